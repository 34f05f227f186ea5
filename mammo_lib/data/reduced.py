"""Folders of reduced CBIS-DDSM images with COCO boxes + the official CSVs -> case table. Reads no pixel.

Such a copy names its images (`00484_RIGHT_CC.jpg`) and boxes its masses, but says neither which box is which
abnormality nor how far each image was stretched. A table of the boxes at full resolution (`boxes/*.txt`) tells both.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment

from mammo_lib.data import cases
from mammo_lib.data.cbis_ddsm import find_descriptions, of_case_table, read_descriptions

BOX_RULE = "box_rule"  # a column added at the end of the case table
ONLY, MATCHED, LEFT_OVER, ONE_LABEL = "only mass", "full-resolution box", "elimination", "file order, one label"

# Full-resolution pixels: the copy's boxes enclose each mask on blocks of this side (found: it explains the printed
# digits of over 99% of the edges). Where a copy's don't, assuming it moves an edge by less than 8 of some 4000 pixels.
_GRID = 8
_TOLERANCE = 3.0  # ours: pixels of the reduced image by which an edge may miss its full-resolution counterpart
_ANNOTATIONS = "_annotations.coco.json"
_NAME = re.compile(r"(?:P_)?(\d+_(?:LEFT|RIGHT)_(?:CC|MLO))")
_FULL_LINE = re.compile(
    r".*Mass-(?:Training|Test)_(P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO)_\d+)/.*\s" + r"(\d+) " * 4 + r"\d+ \w+"
)

Edges = npt.NDArray[np.float64]  # (n, 4): left, top, right, bottom


@dataclass(frozen=True)
class Drawn:
    """One reduced image and the boxes drawn in it: `boxes` float (n, 4) as x, y, w, h in its own pixels."""

    path: str
    width: int
    height: int
    boxes: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """`drawn[i]` is the drawn box of full-resolution box i; `scale` = reduced / full pixels in x and y."""

    drawn: tuple[int, ...]
    scale: tuple[float, float]


def case_table(root: Path, allow_partial: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `root` (csv/, optional boxes/*.txt, image folders each with `_annotations.coco.json`).

    Returns the case table (boxes in the stored image's pixels) and the problems table. Two columns are added:
    `box_rule`, how the box found its abnormality, and `aspect`, original height / width, blank where unknown. An image
    whose masses cannot be told apart, and differ in label, is set aside whole, because its own label hangs on it.
    FileNotFoundError without CSVs or annotations, and when masses must be set aside, unless `allow_partial`;
    ValueError, naming file and entry, when a file is malformed.
    """
    images, problems = _annotated(root)
    full = _full_resolution(root)
    rows: list[dict[str, Any]] = []
    descriptions = of_case_table(read_descriptions(find_descriptions(root, allow_partial)), "reduced")
    missing: list[dict[str, str]] = []
    for image_id, masses in descriptions.groupby("image_id", sort=False):
        drawn = images.pop(str(image_id), None)
        known, reason = _assigned(masses, drawn, full, root)
        if reason:
            missing += [cases.problem(mass, "match", drawn.path if drawn else "", reason) for mass in masses["mass_id"]]
            continue
        rows += known
        problems += _notes(known)
    cases.require_complete(missing, len(descriptions), root, allow_partial)
    problems += [cases.problem(name, cases.SCAN, image.path, "no row of the CSVs") for name, image in images.items()]
    return cases.table(rows, str(root)), cases.problem_table([*missing, *problems])


def _annotated(root: Path) -> tuple[dict[str, Drawn], list[dict[str, str]]]:
    """Every annotated image by image_id; an image whose name is not understood is a problem."""
    files = sorted(root.rglob(_ANNOTATIONS))
    if not files:
        raise FileNotFoundError(f"{root}: no {_ANNOTATIONS} in any folder: put each beside the images it describes")
    images: dict[str, Drawn] = {}
    problems = []
    for file in files:
        for drawn in _read_annotations(file, root):
            name = _NAME.fullmatch(PurePosixPath(drawn.path).stem)
            if name is None:
                problems.append(cases.problem(drawn.path, cases.SCAN, drawn.path, "the name is not patient_SIDE_VIEW"))
                continue
            image_id = f"P_{name[1]}"
            if image_id in images:
                raise ValueError(
                    f"{root}: {image_id} is there twice: {images[image_id].path} and {drawn.path}: keep one"
                )
            images[image_id] = drawn
    return images, problems


def _read_annotations(file: Path, root: Path) -> Iterator[Drawn]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            boxes[annotation["image_id"]].append([float(value) for value in annotation["bbox"]])
        for image in content["images"]:
            path = (file.parent / image["file_name"]).relative_to(root).as_posix()
            array = np.array(boxes[image["id"]], float).reshape(-1, 4)
            if not (np.isfinite(array).all() and (array[:, 2:] > 0).all()):
                raise ValueError(f"a box of {image['file_name']} has no area")
            yield Drawn(path, int(image["width"]), int(image["height"]), array)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not a COCO annotation file ({type(error).__name__}: {error})") from None


def _full_resolution(root: Path) -> dict[str, tuple[int, ...]]:
    """mass_id -> x, y, w, h in full-resolution pixels, 1-based, of every line of `boxes/*.txt`; empty without them."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted((root / "boxes").glob("*.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            parts = _FULL_LINE.fullmatch(line.strip())
            if parts is None:
                raise ValueError(f"{file}, line {number}: {line.strip()!r} is not '<mask path> x y w h n label'")
            if parts[1] in found:
                raise ValueError(f"{file}, line {number}: {parts[1]} has a box already: delete one of the two lines")
            found[parts[1]] = tuple(int(value) for value in parts.groups()[1:])
    return found


def _assigned(
    masses: pd.DataFrame, drawn: Drawn | None, full: Mapping[str, tuple[int, ...]], root: Path
) -> tuple[list[dict[str, Any]], str]:
    """Case rows of one image's masses, or no rows and the reason."""
    if drawn is None:
        return [], f"no {_ANNOTATIONS} names its image"
    if not (root / drawn.path).is_file():
        return [], "the image is not on disk"
    if len(drawn.boxes) != len(masses):
        return [], f"{len(masses)} masses in the CSVs, but {len(drawn.boxes)} boxes drawn"
    known = [index for index, mass in enumerate(masses["mass_id"]) if mass in full]
    found = match(drawn.boxes, np.array([full[masses["mass_id"].iloc[index]] for index in known], float).reshape(-1, 4))
    pairs = dict(zip(known, found.drawn, strict=True)) if found else {}
    rules = dict.fromkeys(pairs, MATCHED)
    left = [index for index in range(len(masses)) if index not in pairs]
    if len(left) > 1 and masses["label"].nunique() > 1:
        return [], f"{len(left)} masses of different labels whose boxes cannot be told apart"
    pairs |= dict(zip(left, sorted(set(range(len(masses))) - set(pairs.values())), strict=True))
    rules |= dict.fromkeys(left, LEFT_OVER if len(left) == 1 else ONE_LABEL)
    if len(masses) == 1:
        rules = {0: ONLY}
    aspect = f"{found.scale[0] / found.scale[1] * drawn.height / drawn.width:.4f}" if found else ""
    return [
        {
            **mass,
            "image_path": drawn.path,
            **_whole(drawn.boxes[pairs[index]], drawn),
            cases.ASPECT: aspect,
            BOX_RULE: rules[index],
        }
        for index, mass in enumerate(masses.to_dict("records"))
    ], ""


def _whole(box: npt.NDArray[np.float64], drawn: Drawn) -> dict[str, int]:
    """A box of whole pixels inside its image, edges rounded to the nearest."""
    left, top = (
        min(max(round(low), 0), size - 1) for low, size in zip(box[:2], (drawn.width, drawn.height), strict=True)
    )
    right, bottom = round(min(box[0] + box[2], drawn.width)), round(min(box[1] + box[3], drawn.height))
    sides = (left, top, max(right - left, 1), max(bottom - top, 1))
    return dict(zip(cases.BOX_COLUMNS, sides, strict=True))


def _notes(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What was kept, but is less sure than the rest."""
    said = []
    for row in rows:
        if row[BOX_RULE] == LEFT_OVER:
            said.append((row["mass_id"], "box by elimination: no full-resolution box of this mass"))
        if row[BOX_RULE] == ONE_LABEL:
            said.append((row["mass_id"], "box in file order: its label is sure, its abnormality number is not"))
    if not rows[0][cases.ASPECT]:
        said.append((rows[0]["image_id"], "original proportions unknown: the image stays as it is stored"))
    return [cases.problem(name, cases.NOTE, rows[0]["image_path"], reason) for name, reason in said]


def match(drawn: npt.NDArray[np.float64], full: npt.NDArray[np.float64]) -> Match | None:
    """Find the drawn box of each full-resolution box and the two scales between them.

    `drawn` float (n, 4), `full` float (m, 4), m <= n, both x, y, w, h; the reduced image is the original stretched by
    one unknown factor in x and one in y. Each possible pair proposes its factors; under each, the best assignment is
    found and its factors are refined by least squares over every edge. None without full boxes, and unless exactly
    one assignment puts every edge within the tolerance.
    """
    corners = np.hstack([drawn[:, :2], drawn[:, :2] + drawn[:, 2:]])
    edges = _enclosing(full)
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    for i, j in np.ndindex(len(full), len(drawn)):
        proposal = _scale(corners[[j]], edges[[i]])
        chosen = linear_sum_assignment(_misfit(corners, edges, proposal))[1]
        scale = _scale(corners[chosen], edges)
        fits = _misfit(corners, edges, scale) <= _TOLERANCE
        if fits[np.arange(len(full)), chosen].all():
            if (fits.sum(axis=1) > 1).any():
                return None
            found[tuple(chosen.tolist())] = scale
    return Match(*next(iter(found.items()))) if len(found) == 1 else None


def _enclosing(full: npt.NDArray[np.float64]) -> Edges:
    """Edges, counted from 0, of the blocks that enclose 1-based boxes."""
    low = _GRID * np.floor((full[:, :2] - 1) / _GRID)
    high = _GRID * np.ceil((full[:, :2] + full[:, 2:]) / _GRID) - 1
    return np.hstack([low, high])


def _scale(corners: Edges, edges: Edges) -> tuple[float, float]:
    """Factors in x and y that carry `edges` to `corners`, both (n, 4), with the least sum of squares."""
    x, y = ((corners[:, axis::2] * edges[:, axis::2]).sum() / (edges[:, axis::2] ** 2).sum() for axis in (0, 1))
    return float(x), float(y)


def _misfit(corners: Edges, edges: Edges, scale: tuple[float, float]) -> npt.NDArray[np.float64]:
    """(m, n): the largest distance, in reduced pixels, between the edges of full box i and of drawn box j."""
    return np.abs(edges[:, None] * np.tile(scale, 2) - corners[None]).max(axis=2)
