"""Single cases: what a trained cell makes of them, where its threshold lies, and the same for an image of one's own.

All that the explorer of 07_explore shows, and no widget: explore.py puts it on the screen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mammo_lib.config import CLASSES, INITIAL_LABELS, NETWORK_LABELS
from mammo_lib.stages.archive import load, parts
from mammo_lib.stages.experiment import Experiment, default_device
from mammo_lib.stages.own_image import OwnImage
from mammo_lib.stages.trainings import PREDICTIONS, cells, is_done_as_asked, load_network
from mammo_lib.training.folder import RECORD

if TYPE_CHECKING:
    from mammo_lib.evaluation.figures import Figure
    from mammo_lib.evaluation.figures_case import Explained
    from mammo_lib.evaluation.metrics import Counts
    from mammo_lib.models.networks import Classifier
    from mammo_lib.training.experiments import Cell

NOT_CLINICAL = "Not for clinical use"
UNIT = {"P": "patches", "G": "images"}
PREDICTED_PARTS = ("test", "validation")  # a cell stores no prediction of what it was trained on
CORRECT, MISSED, FALSE_ALARM = "correct", "missed", "false alarm"
SHOWN = {  # which cases a list holds -> their outcomes
    "all cases": (CORRECT, MISSED, FALSE_ALARM),
    "errors": (MISSED, FALSE_ALARM),
    "missed (malignant, called benign)": (MISSED,),
    "false alarms (benign, called malignant)": (FALSE_ALARM,),
}
ORDERS = {  # order of a list -> column, ascending
    "highest loss first": ("loss", False),
    "highest probability first": ("probability", False),
    "lowest probability first": ("probability", True),
    "by id": ("id", True),
}
LEAST_PROBABILITY = 1e-7  # ours: about float32's resolution below 1; keeps the loss of a sure mistake finite
KEPT = 100  # ours: explained cases kept in memory, 2.3 MB each at 512 pixels
SIBLINGS = 7  # ours: pictures in a row; a patient of CBIS-DDSM has four views
SCREEN_DPI = 130  # ours: 920 pixels for both columns of a journal


@dataclass(frozen=True, eq=False)
class TrainedCell:
    """A trained cell and the cases of its fold, opened once; its network is read when it is first asked."""

    experiment: Experiment
    cell: "Cell"
    images: np.ndarray  # uint8 (N, S, S): set P or G
    cases: pd.DataFrame  # of its fold: id, row (in images), part, label, patient_id ...; probability, loss if predicted
    known: dict[str, "Explained"] = field(default_factory=dict)  # what was explained already, by id

    @cached_property
    def network(self) -> "Classifier":
        return load_network(self.experiment, self.cell).to(default_device())

    @property
    def label(self) -> str:
        return network_label(self.cell)


def network_label(cell: "Cell") -> str:
    return f"{NETWORK_LABELS[cell.network]}, from {INITIAL_LABELS[cell.initial]} weights"


def trained_cells(experiment: Experiment) -> "list[Cell]":
    """The cells of the experiment that are trained, set G and the paper's own network first.

    FileNotFoundError when there is none.
    """
    found = [cell for cell in cells(experiment) if (experiment.runs / cell.name / RECORD).exists()]
    if not found:
        name, protocol = experiment.profile.name, experiment.protocol
        raise FileNotFoundError(
            f"{experiment.runs}: no trained cell yet of protocol {protocol} and seed {experiment.seed}: run "
            f"./run_all.sh --profile {name} --protocol {protocol} --seed {experiment.seed} first"
        )
    profile = experiment.profile
    return sorted(
        found, key=lambda c: (c.stage, c.network != profile.main_network, c.initial != profile.main_initial[c.stage])
    )


def open_cell(experiment: Experiment, cell: "Cell") -> TrainedCell:
    """Read a cell's cases and stored predictions. FileNotFoundError or ValueError when they are missing or foreign.

    StageMismatch when the cell was trained with other settings, images or another split than are here now.
    """
    from mammo_lib.evaluation import predictions

    is_done_as_asked(experiment, cell)
    table = parts(experiment, cell.stage)
    table = table[table["fold"] == cell.fold].reset_index(drop=True)
    wanted = table[table["part"] != "train"]
    predicted = predictions.read(experiment.runs / cell.name / PREDICTIONS, wanted)
    cases = table.merge(predicted[["id", "probability"]], on="id", how="left", validate="one_to_one")
    of_truth = cases["probability"].where(cases["label"] == 1, 1 - cases["probability"])
    cases["loss"] = -np.log(of_truth.clip(lower=LEAST_PROBABILITY))
    return TrainedCell(experiment, cell, load(experiment, cell.stage)[0], cases)


def describe(trained: TrainedCell) -> str:
    """Network, training set and data in one sentence, which stands beside everything the network says."""
    cell, experiment = trained.cell, trained.experiment
    count, unit = int((trained.cases["part"] == "train").sum()), UNIT[cell.stage]
    return (
        f"{trained.label}, trained on {count} {unit} of: {experiment.profile.data} "
        f"(set {cell.stage}, protocol {experiment.protocol}, fold {cell.fold}, seed {cell.seed})"
    )


# ----------------------------------------------------------------------------- cases and the threshold


def case_list(trained: TrainedCell, part: str, threshold: float, order: str, shown: str) -> pd.DataFrame:
    """The predicted cases of a part, one row each: id, label, probability, loss, outcome.

    order: a key of ORDERS, ties by id. shown: a key of SHOWN; an outcome is one of CORRECT, MISSED (malignant, below
    `threshold`) and FALSE_ALARM (benign, at or above it).
    """
    cases = _of_part(trained, part)
    called, malignant = cases["probability"] >= threshold, cases["label"] == 1
    outcome = np.select([malignant & ~called, ~malignant & called], [MISSED, FALSE_ALARM], CORRECT)
    cases = cases.assign(outcome=outcome)[["id", "label", "probability", "loss", "outcome"]]
    column, ascending = ORDERS[order]
    ordered = cases.sort_values("id").sort_values(column, ascending=ascending, kind="stable")
    return ordered[ordered["outcome"].isin(SHOWN[shown])].reset_index(drop=True)


def counts(trained: TrainedCell, part: str, threshold: float) -> "Counts":
    """Confusion matrix of a part; malignant is what reaches the threshold."""
    from mammo_lib.evaluation import metrics

    cases = _of_part(trained, part)
    return metrics.counts(cases["label"].to_numpy(), cases["probability"].to_numpy(), threshold)


def _of_part(trained: TrainedCell, part: str) -> pd.DataFrame:
    cases = trained.cases[trained.cases["part"] == part]
    if part not in PREDICTED_PARTS or not len(cases):
        raise ValueError(f"part {part!r} has no predictions: choose one of {', '.join(PREDICTED_PARTS)}")
    return cases


def siblings(trained: TrainedCell, case_id: str) -> pd.DataFrame:
    """The patient's other cases, with their part: the other views of set G; in set P one patch of each other mass.

    Same breast first. A probability is missing where the sibling was trained on, which only leaking splits allow.
    """
    case = _case(trained, case_id)
    others = trained.cases[trained.cases["patient_id"] == case["patient_id"]]
    if "mass_id" in others:
        others = others[others["mass_id"] != case["mass_id"]].drop_duplicates("mass_id")
    others = others[others["id"] != case_id].assign(other_breast=others["side"] != case["side"])
    return others.sort_values(["other_breast", "side", "view", "id"]).reset_index(drop=True)


def _case(trained: TrainedCell, case_id: str) -> "pd.Series":
    found = trained.cases[trained.cases["id"] == case_id]
    if not len(found):
        raise ValueError(f"no case {case_id!r} in the fold of {trained.cell.name}: choose one of its list")
    return found.iloc[0]


# ----------------------------------------------------------------------------- images and maps


def explain_case(trained: TrainedCell, case_id: str) -> "Explained":
    """Image, lesion boxes, stored probability and both maps of a case of the cell's fold; kept for the next time."""
    case = _case(trained, case_id)
    boxes = json.loads(case["boxes"]) if "boxes" in case else []
    return _explain(trained, case_id, trained.images[case["row"]], boxes, case["probability"])


def explain_own(trained: TrainedCell, own: OwnImage) -> "Explained":
    """The same of an image of one's own, its probability computed now. ValueError for a network of set P."""
    if trained.cell.stage != "G":
        raise ValueError(f"{trained.cell.name} judges patches around a known mass: choose a network of set G")
    return _explain(trained, f"{own.name} {hash(own.view.tobytes())}", own.view, [], None)


def _explain(
    trained: TrainedCell, key: str, image: np.ndarray, boxes: list[list[float]], probability: float | None
) -> "Explained":
    if key in trained.known:
        return trained.known[key]
    import torch

    from mammo_lib.evaluation import gradcam
    from mammo_lib.evaluation.figures_case import Explained
    from mammo_lib.training import augment

    image = np.array(image)
    x = augment.network_input(torch.from_numpy(image)[None].to(default_device()))
    seen = gradcam.look(trained.network, x)
    if probability is None or np.isnan(probability):
        probability = float(seen.probability[0])
    if len(trained.known) >= KEPT:
        trained.known.pop(next(iter(trained.known)))  # the oldest
    gate = None if seen.gate is None else seen.gate[0]
    trained.known[key] = Explained(trained.label, image, boxes, probability, seen.heat[0], gate)
    return trained.known[key]


# ----------------------------------------------------------------------------- figures


def draw_case(opened: Sequence[TrainedCell], case_id: str) -> "Figure":
    """A case as one network, or two below one another, see it."""
    from mammo_lib.evaluation import figures_case

    case = _case(opened[0], case_id)
    title = f"{case_id}: {CLASSES[case['label']]} ({case['part']})"
    rows = [explain_case(trained, case_id) for trained in opened]
    return figures_case.explained_case(rows, title, _sentence(opened[0]))


def draw_own(opened: Sequence[TrainedCell], own: OwnImage) -> "Figure":
    """An image of one's own: the mammogram with its crop, the global image, score and maps."""
    from mammo_lib.evaluation import figures, figures_case

    if not opened:
        raise ValueError(f"{own.name} can be judged by a trained network only, and none is chosen")
    whole = figures.View(own.whole, "mammogram\nand its crop", crop=own.crop)
    rows = [explain_own(trained, own) for trained in opened]
    networks = ". ".join(describe(trained) for trained in opened)
    data = f"{own.name}, a file of the user's. {networks}. {NOT_CLINICAL}"
    return figures_case.explained_case(rows, own.name, data, whole)


def draw_siblings(trained: TrainedCell, case_id: str) -> "Figure | None":
    """The patient's other views with their lesions, label and probability; None when there is no other."""
    from mammo_lib.evaluation import figures

    others = siblings(trained, case_id).head(SIBLINGS)
    views = []
    for case in others.to_dict("records"):
        score = case["part"] if np.isnan(case["probability"]) else f"p = {case['probability']:.3f}"
        title = f"{case['side']} {case['view']}\n{CLASSES[case['label']]}, {score}"
        boxes = json.loads(case["boxes"]) if "boxes" in case else []
        views.append(figures.View(np.asarray(trained.images[case["row"]]), title, boxes))
    return figures.four_views(views, _sentence(trained)) if views else None


def draw_threshold(trained: TrainedCell, part: str, threshold: float) -> "dict[str, Figure]":
    """ROC curve with the operating point, and the confusion matrix. metrics.Undefined (ValueError) for one class."""
    from mammo_lib.evaluation import figures_case, figures_curves, metrics

    cases = _of_part(trained, part)
    label, probability = cases["label"].to_numpy(), cases["probability"].to_numpy()
    text = f"AUC {metrics.auc(label, probability):.3f}"
    curve = figures_curves.Curve(trained.cell.network, label, probability, text)
    data = f"{_sentence(trained)}. The {len(cases)} {UNIT[trained.cell.stage]} of the {part} part"
    return {
        "roc": figures_case.operating_point(curve, threshold, data),
        "confusion": figures_curves.confusion_matrices([curve], threshold, data),
    }


def _sentence(trained: TrainedCell) -> str:
    experiment = trained.experiment
    return f"{experiment.sentence}. {NOT_CLINICAL}"


def png(figure: "Figure") -> bytes:
    """The figure at the size of a screen."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=SCREEN_DPI)
    return buffer.getvalue()


def export(shown: "Mapping[str, Figure]", folder: Path) -> list[Path]:
    """Write each figure as PNG and PDF at print size, named by its key (what no file name may hold becomes "_")."""
    from mammo_lib.evaluation import figures

    if not shown:
        raise ValueError("nothing is shown that could be exported: choose a case first")
    names = {name: "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name) for name in shown}
    return [path for name, figure in shown.items() for path in figures.save(figure, folder, names[name])]
