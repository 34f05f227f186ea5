"""The localisation summary as people read it: one row a method, one column a measure, each mean with its interval.

Takes the long tables of `localisation.summary` and `localisation.differences`; computes nothing.
"""

from collections.abc import Sequence

import pandas as pd

from mammo_lib.evaluation.export import SIGNED, Table, text, with_interval
from mammo_lib.evaluation.localisation import GROUPS
from mammo_lib.evaluation.tables import NO_BRACKETS

LABELS = {  # measure -> heading; in this order
    "energy": "Energy in lesion",
    "pointing": "Pointing game",
    "iou": "IoU, half maximum",
    "best_iou": "IoU, best threshold",
    "removal": "Fall on removal",
}
MEANING = (
    "Energy: share of the map's sum inside the lesion boxes. Pointing game: the map's maximum lies inside a lesion. "
    "IoU: of the lesion and the pixels from half the map's maximum upwards; at the best threshold it knows the answer "
    "and is an upper bound. All of these in 0 to 1, greater is better. Fall on removal: mean fall of p(malignant) when "
    "the pixels the map ranks highest, up to a tenth of the image, are taken away (ROAD); in -1 to 1."
)
EMPTY = (
    "Empty: maps without any positive evidence; they point nowhere and score 0. Random weights: mean of several. "
    "Grad-CAM and gate may lie outside of the breast too, which costs them energy; an even map of the breast does not."
)


def overall(summary: pd.DataFrame, interval: str, data: str) -> Table:
    """Every method over all images. interval: how intervals were made, for the note; data: which, for the caption."""
    caption = f"Where the maps lie, over all test images. {data} Unit: image."
    return _wide(summary, ["all"], ["method"], caption, (interval, MEANING, EMPTY))


def by_decision(summary: pd.DataFrame, interval: str, data: str) -> Table:
    """Every method by truth and decision: benign and malignant, correct and wrong apart."""
    caption = f"The same by truth and decision. {data} Unit: image."
    return _wide(summary, GROUPS[1:], ["group", "method"], caption, (interval,))


def against_controls(differences: pd.DataFrame, method: str, interval: str, data: str) -> Table:
    """`method`, for instance Grad-CAM, minus each other map on the same images."""
    named = differences.rename(columns={"difference": "mean", "label": "map minus control"})
    caption = f"{method} against the controls, paired by image. {data} Unit: image."
    notes = (interval, f"Positive: {method} is better. p values, not corrected for their number, are in the CSV file.")
    return _wide(named.assign(group="all"), ["all"], ["map minus control"], caption, notes, SIGNED)


def _wide(
    long: pd.DataFrame,
    groups: Sequence[str],
    keys: list[str],
    caption: str,
    notes: tuple[str, ...],
    form: str = "{:.3f}",
) -> Table:
    """`shown`: one row for each combination of `keys`, counts if there are any, and a column for each measure."""
    rows = long[long["group"].isin(groups)]
    low, high = (rows[end].where(rows["low"] < rows["high"]) for end in ("low", "high"))  # 0 of 20 is not 0 of all
    shown = rows.assign(shown=with_interval(rows["mean"], low, high, form).replace("", "no such image"))
    counts = [name for name in ("images", "empty") if name in rows]
    for name in counts:
        shown[name] = text(shown[name], "{:g}")
    for name in keys:
        order = list(groups) if name == "group" else shown[name].unique()
        shown[name] = pd.Categorical(shown[name], order)
    shown = shown.pivot(index=[*keys, *counts], columns="measure", values="shown")  # in the order of the categories
    shown = shown[[name for name in LABELS if name in shown]].rename(columns=LABELS)
    return Table(rows, caption, (*notes, NO_BRACKETS), shown.reset_index().rename_axis(columns=None))
