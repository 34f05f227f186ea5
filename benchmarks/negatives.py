"""How many films are refused as negatives: as they are, with their values inverted, and where tissue fills the view.

    python benchmarks/negatives.py ARCHIVE/images_800 data/mini-MIAS

A folder of whole mammograms, JPEG, PNG or PGM, for each archive. The view is the middle of the breast, half as high
and as wide as the box around it, where that holds tissue alone; its brightest twentieth is clipped to white. It is what
comes nearest to a negative without being one.
"""

from pathlib import Path

import numpy as np
import tables

from mammo_lib.data import breast
from mammo_lib.data.images import read_image, to_8bit

CLIPPED = 0.05
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm")


def is_refused(image: breast.Pixels) -> bool:
    """Whether it is taken for a negative; no other reason counts."""
    try:
        breast.coarse_mask(image)
    except breast.NoBreastError as reason:
        return "negative" in str(reason)
    return False


def view_of_tissue(image: breast.Pixels) -> breast.Pixels | None:
    """The clipped middle of the breast; None where background is in it, or no breast was found."""
    try:
        mask, factor = breast.coarse_mask(image)
    except breast.NoBreastError:
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    middle = tuple(slice(int(some[0] + len(some) // 4), int(some[-1] + 1 - len(some) // 4)) for some in (rows, columns))
    if not mask[middle].all():
        return None
    view = image[tuple(slice(part.start * factor, part.stop * factor) for part in middle)]
    return to_8bit(view, white=int(np.quantile(view, 1 - CLIPPED)))


def measure(folder: Path) -> list[str]:
    """A row of the table."""
    films = [to_8bit(read_image(path)) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not films:
        raise FileNotFoundError(f"{folder}: holds no image")
    views = [view for film in films if (view := view_of_tissue(film)) is not None]
    counted = [
        f"{sum(map(is_refused, some))} of {len(some)}" for some in (films, [255 - film for film in films], views)
    ]
    return [folder.name, *counted]


def main() -> None:
    parser = tables.parser(__doc__ or "", "negatives", devices=False)
    parser.add_argument("folders", nargs="+", type=Path)
    arguments = parser.parse_args()
    rows = [measure(folder) for folder in arguments.folders]
    header = ["films", "refused as they are", "refused inverted", "refused views of tissue alone, clipped"]
    what = "Films that are refused as negatives; nothing is timed."
    tables.write("negatives", arguments, what, header, rows, packages=("numpy", "opencv-python-headless"))


if __name__ == "__main__":
    main()
