"""The further numbers of every cell: confusion matrix, calibration, chosen thresholds, units, intervals; spread.

Made from predictions tables alone. Knows the settings of `tables.py` and the formulas of `metrics.py`.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.export import Table, plain, with_interval
from mammo_lib.evaluation.tables import (
    MISSING,
    NO_BRACKETS,
    STAGE_LABELS,
    UNDEFINED,
    UNIT_OF,
    Results,
    Setting,
    chosen,
    lines,
    named,
    of_lines,
    over_folds,
    rates,
    with_bounds,
)

FIXED_SPECIFICITY = 0.9  # ours: of "sensitivity at fixed specificity"
UNITS = {"P": metrics.UNITS, "G": metrics.UNITS[2:]}  # an image of set G has no patches
Runs = Mapping[tuple[str, str, str, int, int], pd.DataFrame]  # (stage, network, initial, fold, seed) -> predictions

_METHODS = {
    "percentile": "Bootstrap, percentile",
    "bca": "Bootstrap, BCa",
    "obuchowski": "DeLong, clustered (Obuchowski)",
    "delong": "DeLong (cases independent)",
}
_COUNTS = ("TP", "FN", "TN", "FP")
_PROBABILITY = ("average_precision", "brier")
_YOUDEN = ("youden_sensitivity", "youden_specificity", "youden_accuracy")
_FIXED = ("fixed_sensitivity", "fixed_specificity")
HEADINGS = {"brier": "Brier score", "ece": "ECE"}
Measured = Callable[[pd.DataFrame, Setting, list[str]], dict[str, object]]  # of one cell's units, with room for notes


def scores(stage: str, results: Results, setting: Setting) -> Table:
    """Confusion matrix and quality of the probabilities, one line per cell.

    Columns `network, initial, cases, threshold, TP, FN, TN, FP`, then `average_precision, brier` each with `_low` and
    `_high`, `ece` without; `note` says why a number is missing.
    """
    counted = dict.fromkeys(("cases", *_COUNTS), "Int64")
    frame = _lines(stage, results, setting, _quality, counted, ("threshold", "ece"), _PROBABILITY)
    notes = (
        _bounds(setting),
        "TP, FN, TN, FP: counts of cases at the threshold. Shares of 1: average precision (by chance, the malignant "
        "share of the cases) and ECE, the expected calibration error: the mean over cases of |mean probability - "
        f"malignant share| of the bin, {metrics.CALIBRATION_BINS} bins of equal width, without an interval, since "
        "resampling adds noise to every bin and raises it. Brier: mean squared error, 0 to 1. Where there are several "
        "folds their cases are pooled here, so that average precision also ranks cases of two networks, which have no "
        "common scale.",
    )
    caption = f"Confusion matrices and quality of the probabilities on {STAGE_LABELS[stage]}. {setting.sentence(stage)}"
    shown = _shown(frame, ("cases", "threshold", *_COUNTS, "ece"), _PROBABILITY).rename(columns=HEADINGS)
    return Table(frame, caption, notes, shown)


def operating_points(stage: str, results: Results, setting: Setting) -> Table:
    """Test cases at thresholds chosen on validation cases, one line per cell.

    Columns `network, initial, cases`, `youden_threshold`, `youden_sensitivity, youden_specificity, youden_accuracy`
    (largest sensitivity + specificity), `fixed_threshold`, `fixed_sensitivity, fixed_specificity` (specificity of
    FIXED_SPECIFICITY on validation), each rate with `_low` and `_high`; `note`. With several folds each has its own
    threshold and the mean is shown.
    """
    at = ("youden_threshold", "fixed_threshold")
    frame = _lines(stage, results, setting, _operating, {"cases": "Int64"}, at, (*_YOUDEN, *_FIXED))
    notes = (
        _bounds(setting) + " The threshold is taken as given.",
        f"youden: threshold of the largest sensitivity + specificity on validation cases; fixed: of specificity "
        f"{FIXED_SPECIFICITY:g} on validation cases. With several folds each has its own; their mean is shown. "
        "Shares of 1.",
    )
    caption = f"Thresholds chosen on validation, counted on test cases of {STAGE_LABELS[stage]}. {setting.cases(stage)}"
    shown = _shown(frame, ("cases", "youden_threshold"), _YOUDEN, note=False)
    fixed = _shown(frame, ("fixed_threshold",), _FIXED).drop(columns=["network", "initial"])
    return Table(frame, caption, notes, shown.join(fixed))


def by_unit(stage: str, results: Results, setting: Setting) -> Table:
    """AUC of every cell counted by patch, mass, image, breast and patient, as far as the stage's cases go.

    Columns `network, initial`, and for each unit `<unit>_cases, <unit>, <unit>_low, <unit>_high`; `note`. The paper
    does not say which unit its tables count.
    """
    units = UNITS[stage]

    def measured(predictions: pd.DataFrame, setting: Setting, notes: list[str]) -> dict[str, object]:
        return {name: value for unit in units for name, value in _auc_by(unit, predictions, setting, notes).items()}

    counted = dict.fromkeys([f"{unit}_cases" for unit in units], "Int64")
    frame = _lines(stage, results, setting, measured, counted, (), units, aggregated=False)
    sizes = [f"{unit} {frame[f'{unit}_cases'].max()}" for unit in units if frame[f"{unit}_cases"].notna().any()]
    notes = (
        _bounds(setting),
        "A mass is the mean of its patches, an image the highest of its masses, a breast the mean of its views, a "
        "patient the higher of her breasts; each is malignant if any of its cases is. Test cases alone count: under "
        "as_written, whose parts share patients, a mass has only those of its patches that were drawn for the test."
        + (f" Cases: {', '.join(sizes)}." if sizes else ""),
    )
    caption = f"AUC on {STAGE_LABELS[stage]} by unit, a share of 1. {setting.run}"
    return Table(frame, caption, notes, _shown(frame, (), units))


def _auc_by(unit: str, predictions: pd.DataFrame, setting: Setting, notes: list[str]) -> dict[str, object]:
    units = metrics.aggregate(predictions, unit)
    test = units[units["part"] == "test"]
    statistic = statistics.weighted_auc(test["label"], test["probability"], test["fold"])
    return {f"{unit}_cases": len(test)} | with_bounds(unit, statistic, test, setting, notes)


def _bounds(setting: Setting) -> str:
    evaluation = setting.profile.evaluation
    return (
        f"Estimate [{evaluation.confidence:.0%} percentile interval, {evaluation.resamples} bootstrap resamples of "
        f"patients]. {NO_BRACKETS}"
    )


def _lines(
    stage: str,
    results: Results,
    setting: Setting,
    measured: Measured,
    counts: Mapping[str, str],
    plain_floats: Sequence[str],
    bounded: Sequence[str],
    aggregated: bool = True,
) -> pd.DataFrame:
    """A row per line of the stage's table, nullable types: a number that does not exist is <NA>, empty in the CSV."""

    def of_cell(predictions: pd.DataFrame) -> dict[str, object]:
        notes: list[str] = []
        cell = metrics.aggregate(predictions, UNIT_OF[stage]) if aggregated else predictions
        row = measured(cell, setting, notes)
        return row | {"note": "; ".join(dict.fromkeys(notes))}

    rows = of_lines(stage, results, setting, of_cell)
    floats = [*plain_floats, *(f"{name}{end}" for name in bounded for end in ("", "_low", "_high"))]
    types = dict(counts) | dict.fromkeys(floats, "Float64")
    return pd.DataFrame(rows).reindex(columns=["network", "initial", *types, "note"]).astype(types)


def _shown(frame: pd.DataFrame, plainly: Sequence[str], bounded: Sequence[str], note: bool = True) -> pd.DataFrame:
    shown = plain(frame[["network", "initial", *plainly]])
    for name in bounded:
        shown[HEADINGS.get(name, name)] = with_interval(frame[name], frame[f"{name}_low"], frame[f"{name}_high"])
    return shown.assign(note=frame["note"]) if note else shown


def _quality(units: pd.DataFrame, setting: Setting, notes: list[str]) -> dict[str, object]:
    test = units[units["part"] == "test"]
    label, probability = test["label"], test["probability"]
    row: dict[str, object] = {"cases": len(test)}
    threshold = setting.profile.evaluation.threshold
    found = metrics.counts(label, probability, threshold)
    values = (found.true_positive, found.false_negative, found.true_negative, found.false_positive)
    row |= {"threshold": threshold} | dict(zip(_COUNTS, values, strict=True))
    squared = (probability - label) ** 2
    measured = {
        "average_precision": statistics.weighted_average_precision(label, probability),
        "brier": statistics.weighted_ratio(squared, pd.Series(1, index=test.index)),
    }
    row["ece"] = metrics.calibration_error(label, probability)
    for name, statistic in measured.items():
        row |= with_bounds(name, statistic, test, setting, notes)
    return row


def _operating(units: pd.DataFrame, setting: Setting, notes: list[str]) -> dict[str, object]:
    test = units[units["part"] == "test"]
    row: dict[str, object] = {"cases": len(test)}
    rules = {
        "youden": metrics.youden_threshold,
        "fixed": lambda label, score: metrics.threshold_at_specificity(label, score, FIXED_SPECIFICITY),
    }
    for name, choose in rules.items():
        try:
            at = chosen(units, choose)
        except UNDEFINED as reason:
            notes.append(str(reason))
            continue
        row[f"{name}_threshold"] = over_folds(at, test)
        for rate, statistic in rates(test, at.to_numpy()).items():
            if f"{name}_{rate}" in (*_YOUDEN, *_FIXED):
                row |= with_bounds(f"{name}_{rate}", statistic, test, setting, notes)
    return row


def intervals(stage: str, results: Results, setting: Setting) -> Table:
    """AUC of every cell with four intervals: bootstrap over patients (percentile, BCa), DeLong's with and without them.

    Columns `network, initial, cases, patients, auc, percentile_low, percentile_high, bca_low, bca_high, obuchowski_low,
    obuchowski_high, delong_low, delong_high, note`. The last takes cases for independent: where it is much narrower,
    patients matter.
    """
    counts = dict.fromkeys(("cases", "patients"), "Int64")
    bounds = [f"{method}_{end}" for method in _METHODS for end in ("low", "high")]
    frame = _lines(stage, results, setting, _intervals_of, counts, ("auc", *bounds), ())
    shown = plain(frame[["network", "initial", "cases", "patients"]])
    for method, label in _METHODS.items():
        shown[label] = with_interval(frame["auc"], frame[f"{method}_low"], frame[f"{method}_high"])
    evaluation = setting.profile.evaluation
    caption = f"Four intervals of the AUC, a share of 1, on {STAGE_LABELS[stage]}. {setting.cases(stage)}"
    notes = (
        f"{evaluation.confidence:.0%} intervals; bootstrap: {evaluation.resamples} resamples of patients.",
        NO_BRACKETS,
    )
    return Table(frame, caption, notes, shown.assign(note=frame["note"]))


def _intervals_of(units: pd.DataFrame, setting: Setting, notes: list[str]) -> dict[str, object]:
    test = units[units["part"] == "test"]
    names = ("label", "probability", "patient_id", "fold")
    label, probability, patients, fold = (test[name].to_numpy() for name in names)
    row: dict[str, object] = {"cases": len(test), "patients": len(set(patients))}
    resamples, confidence = setting.profile.evaluation.resamples, setting.profile.evaluation.confidence
    try:
        row["auc"] = metrics.auc(label, probability, fold)
        statistic = statistics.weighted_auc(label, probability, fold)
        drawn = statistics.bootstrap(statistic, patients, resamples, setting.seed)
    except UNDEFINED as reason:
        notes.append(str(reason))
        return row
    for interval in (
        lambda: statistics.percentile(drawn, confidence),
        lambda: statistics.delong_interval(label, probability, confidence, fold, patients),
        lambda: statistics.delong_interval(label, probability, confidence, fold),
        lambda: statistics.bca(drawn, confidence),
    ):
        try:  # one that is not defined takes no other with it
            row |= _ends(interval())
        except UNDEFINED as reason:
            notes.append(str(reason))
    return row


def _ends(found: statistics.Interval) -> dict[str, object]:
    return {} if found.is_point else {f"{found.method}_low": found.low, f"{found.method}_high": found.high}


def spread(stage: str, runs: Runs, setting: Setting) -> Table:
    """AUC over seeds and folds: variation of training, shown apart from the sampling error of one run's interval.

    Columns `network, initial, runs, folds, seeds, mean, sd_seeds, sd_folds, least, most, note`. sd_seeds: between
    trainings on the same fold, pooled over folds; sd_folds: between the folds' means (other networks, other test
    patients). Each is missing where there is one of them; a run whose AUC does not exist is told in `note`.
    """
    rows = []
    for network, initial in lines(stage, setting):
        chosen = {key: frame for key, frame in runs.items() if key[:3] == (stage, network, initial)}
        absent = setting.reasons.get((stage, network, initial), MISSING)
        rows.append(named(network, initial) | _spread_of(chosen, UNIT_OF[stage], absent))
    numbers = ("mean", "sd_seeds", "sd_folds", "least", "most")
    frame = pd.DataFrame(rows).astype(dict.fromkeys(numbers, "Float64"))
    caption = (
        f"AUC, a share of 1, over seeds and folds on {STAGE_LABELS[stage]}. {setting.runs} Unit: {UNIT_OF[stage]}."
    )
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
