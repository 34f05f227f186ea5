"""The further numbers of every cell: confusion matrix, average precision, Brier, calibration, thresholds; spread.

Made from predictions tables alone. Knows the settings of `tables.py` and the formulas of `metrics.py`.
"""

from collections.abc import Callable, Mapping

import pandas as pd

from mammo_lib import config
from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.export import Table, plain, with_interval
from mammo_lib.evaluation.tables import MISSING, STAGE_LABELS, UNDEFINED, Key, Results, Setting, lines, threshold_of

FIXED_SPECIFICITY = 0.9  # ours: of "sensitivity at fixed specificity"
Runs = Mapping[tuple[str, str, str, int, int], pd.DataFrame]  # (stage, network, initial, fold, seed) -> predictions

_METHODS = {"percentile": "Bootstrap, percentile", "bca": "Bootstrap, BCa", "delong": "DeLong (cases independent)"}
_COLUMNS = {  # nullable types: a number that does not exist is <NA>, an empty cell in the CSV
    "cases": "Int64",
    "threshold": "Float64",
    **dict.fromkeys(("TP", "FN", "TN", "FP"), "Int64"),
    **dict.fromkeys(("average_precision", "brier", "ece", "youden_threshold"), "Float64"),
    **dict.fromkeys(("youden_sensitivity", "youden_specificity", "sensitivity_at_specificity"), "Float64"),
}


def scores(stage: str, results: Results, setting: Setting) -> Table:
    """One line per cell: columns `network, initial, cases, threshold, TP, FN, TN, FP, average_precision, brier, ece`
    and, at thresholds chosen on validation, `youden_threshold, youden_sensitivity, youden_specificity,
    sensitivity_at_specificity`; `note` says why a number is missing.
    """
    rows = [
        {"network": config.NETWORK_LABELS[network], "initial": config.INITIAL_LABELS[initial]}
        | _cell((stage, network, initial), results, setting)
        for network, initial in lines(stage, setting)
    ]
    frame = pd.DataFrame(rows).reindex(columns=["network", "initial", *_COLUMNS, "note"]).astype(_COLUMNS)
    notes = (
        "ece: expected calibration error, the mean over cases of |mean probability - malignant share| of the bin, "
        f"{metrics.CALIBRATION_BINS} bins of equal width.",
        f"youden_* and sensitivity at specificity {FIXED_SPECIFICITY:g}: threshold chosen on validation cases.",
    )
    return Table(frame, f"Further scores on {STAGE_LABELS[stage]}. {setting.sentence(stage)}", notes, plain(frame))


def _cell(key: Key, results: Results, setting: Setting) -> dict[str, object]:
    if key not in results:
        return {"note": setting.reasons.get(key, MISSING)}
    units = metrics.aggregate(results[key], setting.unit_of(key[0]))
    test, validation = (units[units["part"] == part] for part in ("test", "validation"))
    row: dict[str, object] = {"cases": len(test)}
    notes: list[str] = []
    for name, number in _numbers(units, test, validation, setting).items():
        try:
            row[name] = number()
        except UNDEFINED as reason:
            notes.append(str(reason))
    return row | {"note": "; ".join(dict.fromkeys(notes))}


def _numbers(
    units: pd.DataFrame, test: pd.DataFrame, validation: pd.DataFrame, setting: Setting
) -> dict[str, Callable[[], float]]:
    """Each number as a function, so that one which does not exist leaves the others alone."""
    cases, chosen = (test["label"], test["probability"]), (validation["label"], validation["probability"])

    def at(threshold: float) -> metrics.Counts:
        return metrics.counts(*cases, threshold)

    def at_rule() -> metrics.Counts:
        return at(threshold_of(units, setting.rule))

    def at_youden() -> metrics.Counts:
        return at(metrics.youden_threshold(*chosen))

    return {
        "threshold": lambda: threshold_of(units, setting.rule),
        "TP": lambda: at_rule().true_positive,
        "FN": lambda: at_rule().false_negative,
        "TN": lambda: at_rule().true_negative,
        "FP": lambda: at_rule().false_positive,
        "average_precision": lambda: metrics.average_precision(*cases),
        "brier": lambda: metrics.brier(*cases),
        "ece": lambda: metrics.expected_calibration_error(*cases),
        "youden_threshold": lambda: metrics.youden_threshold(*chosen),
        "youden_sensitivity": lambda: at_youden().sensitivity,
        "youden_specificity": lambda: at_youden().specificity,
        "sensitivity_at_specificity": lambda: (
            at(metrics.threshold_at_specificity(*chosen, FIXED_SPECIFICITY)).sensitivity
        ),
    }


def intervals(stage: str, results: Results, setting: Setting) -> Table:
    """AUC of every cell with three intervals: bootstrap over patients (percentile, BCa) and DeLong's.

    Columns `network, initial, cases, patients, auc, percentile_low, percentile_high, bca_low, bca_high, delong_low,
    delong_high, note`. DeLong's takes cases for independent: where it is much narrower, patients matter.
    """
    rows = [
        {"network": config.NETWORK_LABELS[network], "initial": config.INITIAL_LABELS[initial]}
        | _intervals_of((stage, network, initial), results, setting)
        for network, initial in lines(stage, setting)
    ]
    bounds = [f"{method}_{end}" for method in _METHODS for end in ("low", "high")]
    types = dict.fromkeys(["auc", *bounds], "Float64") | {"cases": "Int64", "patients": "Int64"}
    columns = ["network", "initial", "cases", "patients", "auc", *bounds, "note"]
    frame = pd.DataFrame(rows).reindex(columns=columns).astype(types)
    shown = plain(frame[["network", "initial", "cases", "patients"]])
    for method, label in _METHODS.items():
        shown[label] = with_interval(frame["auc"], frame[f"{method}_low"], frame[f"{method}_high"])
    evaluation = setting.profile.evaluation
    caption = f"Three intervals of the AUC on {STAGE_LABELS[stage]}. {setting.sentence(stage)}"
    notes = (f"{evaluation.confidence:.0%} intervals; bootstrap: {evaluation.resamples} resamples of patients.",)
    return Table(frame, caption, notes, shown.assign(note=frame["note"]))


def _intervals_of(key: Key, results: Results, setting: Setting) -> dict[str, object]:
    if key not in results:
        return {"note": setting.reasons.get(key, MISSING)}
    units = metrics.aggregate(results[key], setting.unit_of(key[0]))
    test = units[units["part"] == "test"]
    label, probability, patients = (test[name].to_numpy() for name in ("label", "probability", "patient_id"))
    row: dict[str, object] = {"cases": len(test), "patients": len(set(patients)), "note": ""}
    resamples, confidence = setting.profile.evaluation.resamples, setting.profile.evaluation.confidence
    try:
        row["auc"] = metrics.auc(label, probability)
        drawn = statistics.bootstrap(statistics.weighted_auc(label, probability), patients, resamples, setting.seed)
        row |= _ends(statistics.percentile(drawn, confidence))
        row |= _ends(statistics.delong_interval(label, probability, confidence))
        row |= _ends(statistics.bca(drawn, confidence))
    except UNDEFINED as reason:
        row["note"] = str(reason)
    return row


def _ends(found: statistics.Interval) -> dict[str, object]:
    return {f"{found.method}_low": found.low, f"{found.method}_high": found.high}


def spread(stage: str, runs: Runs, setting: Setting) -> Table:
    """AUC over seeds and folds: variation of training, shown apart from the sampling error of one run's interval.

    Columns `network, initial, runs, folds, seeds, mean, sd_seeds, sd_folds, least, most, note`. sd_seeds: between
    trainings on the same fold, pooled over folds; sd_folds: between the folds' means (other networks, other test
    patients). Each is missing where there is one of them; a run whose AUC does not exist is told in `note`.
    """
    rows = []
    for network, initial in lines(stage, setting):
        chosen = {key: frame for key, frame in runs.items() if key[:3] == (stage, network, initial)}
        labels = {"network": config.NETWORK_LABELS[network], "initial": config.INITIAL_LABELS[initial]}
        absent = setting.reasons.get((stage, network, initial), MISSING)
        rows.append(labels | _spread_of(chosen, setting.unit_of(stage), absent))
    numbers = ("mean", "sd_seeds", "sd_folds", "least", "most")
    frame = pd.DataFrame(rows).astype(dict.fromkeys(numbers, "Float64"))
    caption = f"AUC over seeds and folds on {STAGE_LABELS[stage]}. {setting.sentence(stage)}"
    notes = (
        "Every seed that was trained. sd seeds: standard deviation (n - 1) between seeds on the same fold, pooled over "
        "folds; sd folds: between the means of the folds. Neither is the sampling error over patients.",
    )
    return Table(frame, caption, notes, plain(frame))


def _spread_of(runs: Runs, unit: str, absent: str) -> dict[str, object]:
    aucs, notes = [], []
    for key, predictions in runs.items():
        units = metrics.aggregate(predictions, unit)
        test = units[units["part"] == "test"]
        try:
            aucs.append((key[3], metrics.auc(test["label"], test["probability"])))
        except metrics.Undefined as reason:
            notes.append(f"fold {key[3]}, seed {key[4]}: {reason}")
    found = pd.DataFrame(aucs, columns=["fold", "auc"]).astype({"auc": float})
    by_fold, values = found.groupby("fold")["auc"], found["auc"]
    repeats = by_fold.count() - 1
    within = (by_fold.var() * repeats).sum() / repeats.sum() if repeats.sum() else float("nan")
    counted = {"runs": len(found), "folds": len({key[3] for key in runs}), "seeds": len({key[4] for key in runs})}
    spreads = {"sd_seeds": within**0.5, "sd_folds": by_fold.mean().std()}
    numbers = {"mean": values.mean(), **spreads, "least": values.min(), "most": values.max()}
    return counted | numbers | {"note": "; ".join(notes) if runs else absent}
