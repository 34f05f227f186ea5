"""What a network adds to the radiologist's reading: both in one logistic regression, against the reading alone.

Made from predictions tables alone, those of the radiologist included (`baselines`). A network that orders masses less
well than the radiologist may still know what the record of the reading does not say; this tells whether it does. It is
about scores, not about people: nobody has read these films with the network beside them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import logit

from mammo_lib.evaluation import metrics, refitting, statistics
from mammo_lib.evaluation.comparisons import bootstrapped
from mammo_lib.evaluation.export import SIGNED, Table, p_values, text, with_interval
from mammo_lib.evaluation.predictions import align
from mammo_lib.evaluation.tables import UNDEFINED, UNIT_OF_BASELINES, Results, Setting, of_lines

BIRADS, READING = "birads", "reading"  # the assessment alone, and with the words for shape and margins
SHOWN = {BIRADS: "BI-RADS", READING: "BI-RADS and words"}
LEAST = 1e-7  # ours: predictions in single precision hold no probability nearer to 0 or 1, where log odds are infinite
_KEY = ["part", "fold", "id"]
_SCORES = ["probability_read", "probability_scored"]
_NAMES = ("alone", "with_network", "gain", "low", "high", "p")


def added(stage: str, results: Results, setting: Setting, readings: Mapping[str, pd.DataFrame]) -> Table:
    """Every network of a stage together with the radiologist's reading, minus the reading alone.

    readings: "birads" (the assessment's place, `baselines.birads`) and, where the archive has the words, "reading"
    (`baselines.descriptors` of assessment, shape and margins): predictions of the validation and test masses, with
    `part` and `fold`. Frame: `stage, unit, network, initial, cases, patients`, then for each prefix `birads_` and
    `reading_` `alone, with_network` (AUCs), `gain, low, high, p`; `tied`, the share of pairs of a malignant and a
    benign case that the assessment ranks level, `auc_within`, the network's AUC among these pairs; and `note`. A
    network without predictions is a row with its reason. ValueError when the cases are not the same.
    """
    unit = UNIT_OF_BASELINES[stage]
    units = {name: metrics.aggregate(frame, unit) for name, frame in readings.items()}

    def measured(predictions: pd.DataFrame) -> dict[str, object]:
        scored = metrics.aggregate(predictions, unit)
        scored = scored[scored["part"].isin(("validation", "test"))]
        row, reasons = dict[str, object](), []
        for name, read in units.items():
            found = _gain(name, read, scored, setting)
            row |= {count: found[count] for count in ("cases", "patients") if count in found}
            row |= {f"{name}_{column}": found.get(column) for column in _NAMES}
            reasons += [f"{name}: {found['note']}"] if found["note"] else []
        return row | _within_grades(units[BIRADS], scored) | {"note": "; ".join(reasons)}

    floats = [f"{name}_{column}" for name in SHOWN for column in _NAMES] + ["tied", "auc_within"]
    columns = ["stage", "unit", "network", "initial", "cases", "patients", *floats, "note"]
    types = dict.fromkeys(("cases", "patients"), "Int64") | dict.fromkeys(floats, "Float64")
    rows = pd.DataFrame(of_lines(stage, results, setting, measured)).assign(stage=stage, unit=unit)
    frame = rows.reindex(columns=columns).astype(types)
    caption = (
        "What a network adds to the radiologist's recorded reading of the same cases: AUC of both together minus that "
        f"of the reading alone. {setting.run} Unit: {unit}."
    )
    rule = setting.profile.evaluation
    notes = (
        "Together: a logistic regression of malignancy on the reading and on the network's log odds, fitted on the "
        "validation cases of each fold, which also chose the network's epoch. The reading is the BI-RADS assessment, a "
        "place on a scale with 0 between 3 and 4 (ours); then a regression on its grades and on the words for shape "
        "and margins, fitted on training masses.",
        f"Interval ({rule.confidence:.0%}, percentile) and p: {rule.refits} bootstrap resamples of the validation and "
        "test patients, the regression fitted anew in each (that of the words on training masses, the network and its "
        "epoch are kept). They lean low, if anything, as a resample has fewer different patients to fit on. p is not "
        "corrected.",
        "The assessment has six grades. Tied: the share of pairs, malignant and benign, of one grade. A score that "
        "tells these pairs apart even weakly raises the AUC, which is why the words stand beside it. Masses that are "
        "benign because the patient was not called back are in; that favours the reading.",
    )
    return Table(frame, caption, notes, _shown(frame, list(units)))


def _gain(name: str, read: pd.DataFrame, scored: pd.DataFrame, setting: Setting) -> dict[str, object]:
    """AUC of both together and of the reading alone, and their difference with its interval and p; or a note."""
    units, rule = _both(read, scored, is_place=name == BIRADS), setting.profile.evaluation
    known, test = units["part"] == "validation", units[units["part"] == "test"]
    row: dict[str, object] = {"cases": len(test), "patients": test["patient_id"].nunique(), "note": ""}
    for fold, label in units[known].groupby("fold")["label"]:
        if label.nunique() < 2:
            return row | {"note": f"the validation part of fold {fold} does not hold both classes"}
    both = refitting.aucs(units["label"], units[_SCORES], units["probability_read"], known, units["fold"])
    try:
        whole = np.ones((1, len(units)))
        row |= {what: float(auc(whole)[0]) for what, auc in zip(("with_network", "alone"), both, strict=True)}
        found = bootstrapped(statistics.difference(*both), units["patient_id"], setting, rule.refits)
    except UNDEFINED as reason:
        return row | {"note": str(reason)}
    return row | found | {"gain": found["estimate"]}


def _both(read: pd.DataFrame, scored: pd.DataFrame, is_place: bool) -> pd.DataFrame:
    """The validation and test units of both, which are the same, with the two scores beside each other.

    Probabilities enter as log odds, an assessment as its place (`is_place`). ValueError when the units differ.
    """
    units = read.merge(scored[[*_KEY, "probability"]], on=_KEY, how="outer", suffixes=("_read", "_scored"))
    if len(units) != len(scored) or units[_SCORES].isna().any(axis=None):
        raise ValueError("network and radiologist have not scored the same validation and test cases: predict again")
    as_odds = _SCORES[1:] if is_place else _SCORES
    units[as_odds] = logit(units[as_odds].clip(LEAST, 1 - LEAST))
    return units


def _within_grades(read: pd.DataFrame, scored: pd.DataFrame) -> dict[str, object]:
    """How much room the grades leave among test cases, and how well the network orders the cases of one grade."""
    tests = [frame[frame["part"] == "test"] for frame in (scored, read)]
    paired = align(*tests)
    grade = paired["fold"].astype(str) + "/" + paired["second"].astype(str)
    counted = [paired.groupby(by)["label"].agg(["sum", "size"]) for by in (grade, "fold")]
    tied, pairs = ((one["sum"] * (one["size"] - one["sum"])).sum() for one in counted)
    if not tied:
        return {"tied": 0.0 if pairs else None}
    return {"tied": tied / pairs, "auc_within": metrics.auc(paired["label"], paired["first"], grade)}


def _shown(frame: pd.DataFrame, asked: Sequence[str]) -> pd.DataFrame:
    shown = frame[["network", "initial"]].rename(columns={"initial": "initial weights"})
    for name in asked:
        ours = SHOWN[name]
        shown[f"AUC of {ours}"] = text(frame[f"{name}_alone"], "{:.3f}")
        shown[f"AUC of {ours}, with the network"] = text(frame[f"{name}_with_network"], "{:.3f}")
        gain, low, high = (frame[f"{name}_{end}"] for end in ("gain", "low", "high"))
        shown[f"gain to {ours}"] = with_interval(gain, low, high, SIGNED)
        shown[f"p, {ours}"] = p_values(frame[f"{name}_p"])
    shown["tied"] = text(frame["tied"], "{:.2f}")
    shown["network's AUC among them"] = text(frame["auc_within"], "{:.2f}")
    return shown.assign(note=frame["note"])
