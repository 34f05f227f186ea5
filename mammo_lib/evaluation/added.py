"""What a network adds to the radiologist's reading: both in one logistic regression, against the reading alone.

Made from predictions tables alone, those of the radiologist included (`baselines`). A network that orders masses less
well than the radiologist may still know what the reading does not say; this tells whether it does. It is about the
scores, not about people: nobody has read these films with the network beside them.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mammo_lib import config
from mammo_lib.evaluation import metrics
from mammo_lib.evaluation.comparisons import compare
from mammo_lib.evaluation.export import Table, text, with_interval
from mammo_lib.evaluation.predictions import align
from mammo_lib.evaluation.tables import MISSING, UNDEFINED, UNIT_OF_BASELINES, Results, Setting, lines

BIRADS, WORDS = "birads", "descriptors"  # as `baselines.LABELS` names them
READINGS = {"birads": (BIRADS,), "words": (BIRADS, WORDS)}  # prefix of the columns -> what the radiologist said
LEAST = 1e-7  # ours: predictions in single precision hold no probability nearer to 0 or 1, where log odds are infinite
_KEY = ["part", "fold", "id"]
_NAMES = ("auc", "auc_with", "difference", "low", "high", "p")


def added(stage: str, results: Results, setting: Setting, readings: Mapping[str, pd.DataFrame]) -> Table:
    """Every network of a stage together with the radiologist's reading, minus the reading alone.

    readings: "birads" and, where the archive has the words, "descriptors": predictions of the validation and test
    masses with `part` and `fold` (`baselines`). Frame: `stage, unit, network, initial, cases, patients`, then for the
    assessment (prefix `birads_`) and for assessment and words (`words_`) `auc, auc_with, difference, low, high, p`, and
    `note`. A network without predictions is a row with its reason. ValueError when the cases are not the same.
    """
    unit, rows = UNIT_OF_BASELINES[stage], []
    units = {name: metrics.aggregate(frame, unit) for name, frame in readings.items()}
    asked = {prefix: names for prefix, names in READINGS.items() if set(names) <= set(units)}
    for network, initial in lines(stage, setting):
        key = (stage, network, initial)
        row: dict[str, object] = {"stage": stage, "unit": unit}
        row |= {"network": config.ROW_LABELS[network], "initial": config.INITIAL_LABELS[initial]}
        if key not in results:
            rows.append(row | {"note": setting.reasons.get(key, MISSING)})
            continue
        scored, reasons = _log_odds(_known(metrics.aggregate(results[key], unit))), []
        for prefix, names in asked.items():
            read = [units[name] if name == BIRADS else _log_odds(units[name]) for name in names]
            found = _gain(scored, [_known(frame) for frame in read], setting)
            row |= {name: found.get(name) for name in ("cases", "patients")}
            row |= {f"{prefix}_{name}": found.get(name) for name in _NAMES}
            reasons += [f"{prefix}: {found['note']}"] if found["note"] else []
        rows.append(row | {"note": "; ".join(reasons)})
    floats = [f"{prefix}_{name}" for prefix in READINGS for name in _NAMES]
    columns = ["stage", "unit", "network", "initial", "cases", "patients", *floats, "note"]
    types = dict.fromkeys(("cases", "patients"), "Int64") | dict.fromkeys(floats, "Float64")
    frame = pd.DataFrame(rows).reindex(columns=columns).astype(types)
    caption = (
        "What a network adds to the radiologist's reading of the same cases: AUC of both together minus that of the "
        f"reading alone. Data: {setting.profile.data}. Protocol: {setting.protocol}. Unit: {unit}."
    )
    rule = setting.profile.evaluation
    notes = (
        "Together: a logistic regression of malignancy on the reading and on the network's log odds, fitted on the "
        "validation cases of each fold. The reading is the BI-RADS assessment (its place, 0 between 3 and 4, ours), "
        "then assessment and words: the score of a regression on shape and margins, itself fitted on training masses.",
        f"Interval ({rule.confidence:.0%}, percentile) and p: {rule.resamples} bootstrap resamples of patients; they "
        "do not know of the fitting. p is not corrected.",
        "The assessment has six grades: whatever orders the cases of one grade better than chance adds to it. That is "
        "why the words stand beside it. Nobody has read these films together with a network.",
    )
    return Table(frame, caption, notes, _shown(frame, list(asked)))


def _gain(scored: pd.DataFrame, read: Sequence[pd.DataFrame], setting: Setting) -> dict[str, object]:
    """`auc` of the reading, `auc_with` of both, and their difference as `comparisons.compare` has it; or a note."""
    try:
        alone = _together(read) if len(read) > 1 else read[0]  # one column keeps its order in any regression
        both = _together([*read, scored])
    except UNDEFINED as reason:
        return {"note": str(reason)}
    tests = [frame[frame["part"] == "test"] for frame in (both, alone)]
    names = {"auc_first": "auc_with", "auc_second": "auc"}
    return {names.get(name, name): value for name, value in compare(align(*tests), setting).items()}


def _together(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The units of `frames`, the same in each, with one probability from the `probability` of all of them.

    Fitted in each fold on its validation units. The columns are standardised, the strength is scikit-learn's default
    (ours: two or three columns need no other). ValueError when the units differ; metrics.Undefined when the validation
    part of a fold does not hold both classes.
    """
    first, columns = frames[0], [f"score_{number}" for number in range(len(frames))]
    scores = [
        frame.set_index(_KEY)["probability"].rename(column) for frame, column in zip(frames, columns, strict=True)
    ]
    joined = reduce(lambda left, right: left.join(right, how="outer"), scores[1:], scores[0].to_frame())
    if len(joined) != len(first) or joined.isna().any(axis=None):
        raise ValueError("network and radiologist have not scored the same validation and test cases: predict again")
    units = first.set_index(_KEY).join(joined).reset_index()
    fitted = []
    for fold, of_fold in units.groupby("fold"):
        known = of_fold[of_fold["part"] == "validation"]
        if known["label"].nunique() < 2:
            raise metrics.Undefined(f"the validation part of fold {fold} does not hold both classes")
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(known[columns], known["label"])
        fitted.append(of_fold.assign(probability=model.predict_proba(of_fold[columns])[:, 1]))
    return pd.concat(fitted, ignore_index=True).drop(columns=columns)


def _known(units: pd.DataFrame) -> pd.DataFrame:
    return units[units["part"].isin(("validation", "test"))].reset_index(drop=True)


def _log_odds(units: pd.DataFrame) -> pd.DataFrame:
    return units.assign(probability=logit(np.clip(units["probability"], LEAST, 1 - LEAST)))


def _shown(frame: pd.DataFrame, asked: Sequence[str]) -> pd.DataFrame:
    shown = frame[["network", "initial"]].rename(columns={"initial": "initial weights"})
    for prefix in asked:
        name, beside = {"birads": ("BI-RADS", ""), "words": ("BI-RADS and words", ", beside words")}[prefix]
        shown[f"AUC of {name}"] = text(frame[f"{prefix}_auc"], "{:.3f}")
        gain, low, high = (frame[f"{prefix}_{end}"] for end in ("difference", "low", "high"))
        shown[f"gain with the network{beside}"] = with_interval(gain, low, high, "{:+.3f}")
        shown[f"p{beside}"] = text(frame[f"{prefix}_p"], "{:.3f}")
    return shown.assign(note=frame["note"])
