"""Fig. 3 of a drawn film that is stored as a square: its marks lie where the drawing has its mass."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib.config import get_profile
from mammo_lib.data import cases, prepare
from mammo_lib.evaluation.figures import View
from mammo_lib.stages import pictures

MASS = (70, 90, 30, 50)  # [x, y, w, h] in the film, 200 wide and 300 high


@pytest.fixture
def steps(tmp_path: Path) -> tuple[View, View, View]:
    """Patch, whole mammogram and global image of a dim breast with one bright box in it."""
    x, y, w, h = MASS
    rows, columns = np.ogrid[:300, :200]
    film = np.where(((rows - 150) / 110) ** 2 + (columns / 140) ** 2 < 1, 90, 1).astype(np.uint8)
    film[y : y + h, x : x + w] = 220
    cv2.imwrite(str(tmp_path / "film.png"), cv2.resize(film, (300, 300), interpolation=cv2.INTER_NEAREST))
    row = dict.fromkeys(cases.COLUMNS, "") | {"mass_id": "m", "image_id": "i", "patient_id": "p", "side": "LEFT"}
    row |= {"view": "CC", "label": 1, "image_path": "film.png", "source": "drawn", cases.ASPECT: "1.5"}
    row |= dict(zip(cases.BOX_COLUMNS, (x * 3 // 2, y, w * 3 // 2, h), strict=True))
    table, prepared = cases.table([row], "drawn"), tmp_path / "prepared"
    prepare.prepare(table, cases.problem_table([]), tmp_path, prepared, get_profile("tiny"), 0)
    masses: pd.DataFrame = cases.read(prepared / "cases.csv")
    return pictures._steps(tmp_path, prepared, masses)


def test_each_picture_marks_the_mass(steps: tuple[View, View, View]) -> None:
    for view in steps:
        (box,) = view.boxes
        inside = _filled(view.image.shape, box, -2)
        assert inside.any()
        assert view.image[inside].min() > 150, "all of the box is bright"
        assert view.image[~_filled(view.image.shape, box, 2)].max() < 150, "and nothing else is"


def test_the_patch_is_what_lies_in_the_dashed_box(steps: tuple[View, View, View]) -> None:
    patch, whole, global_image = steps
    assert whole.image.shape == (450, 300), "the proportions of the film"
    assert patch.crop is global_image.crop is None
    assert whole.crop is not None
    x, y, w, h = (round(value) for value in whole.crop)
    cut = cv2.resize(whole.image[y : y + h, x : x + w], patch.image.shape, interpolation=cv2.INTER_AREA)
    assert np.abs(cut.astype(float) - patch.image).mean() < 2


def _filled(shape: tuple[int, ...], box: "np.ndarray | list[float]", wider: float = 0) -> np.ndarray:
    """True within a box, `wider` pixels on each side."""
    x, y, w, h = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (columns >= x - wider) & (columns < x + w + wider) & (rows >= y - wider) & (rows < y + h + wider)
    return np.asarray(inside)
