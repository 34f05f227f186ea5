"""Tables 1 and 2 in the paper's layout, ours beside the printed values.

Made from predictions tables alone (checked by `predictions.read`); trains nothing, reads no file. Every table says in
its caption which data, protocol, unit and threshold it shows. A number that does not exist is an empty cell with its
reason in the column `note`, never a nan and never a blank without a word (of an interval that is a point the table's
notes say it, once).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mammo_lib import config
from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.baselines import LABELS as BASELINE_LABELS
from mammo_lib.evaluation.export import SIGNED, Table, plain, text, with_interval

Key = tuple[str, str, str]  # (stage, network, initial)
Results = Mapping[Key, pd.DataFrame]

PAPER_METRICS = {"sensitivity": "Sensitivity", "specificity": "Specificity", "accuracy": "Accuracy", "auc": "AUC"}
UNIT_OF = {"P": "patch", "G": "image"}  # what a stage's tables count: our reading of the paper, which does not name it
UNIT_OF_BASELINES = {"P": "mass", "G": "image"}  # which have one score a mass
NUMBERS = {"P": "Table 1", "G": "Table 2"}
STAGE_LABELS = {"P": "patch dataset P", "G": "global dataset G"}
MISSING = "not run"
POINT = "no interval, both of its ends are the same"
NO_BRACKETS = (
    "Where an interval is left out without a note, both of its ends are the same, which is no proof of the value."
)
UNDEFINED = (metrics.Undefined, statistics.Undefined)


@dataclass(frozen=True)
class Setting:
    """What a table is of, and how its intervals are drawn."""

    profile: config.Profile
    protocol: str
    seed: int = 0
    reasons: Mapping[Key, str] = field(default_factory=dict)  # why a cell has no predictions
    extra: tuple[str, ...] = ()  # those of config.EXTRA_LABELS with predictions: rows of their own, after the networks

    def sentence(self, stage: str) -> str:
        """Data, protocol, unit and threshold, for a caption."""
        return f"{self.cases(stage)} Malignant is positive; threshold: {self.profile.evaluation.threshold:g}."

    def cases(self, stage: str) -> str:
        """The same without the threshold, for what has none."""
        return f"{self.run} Unit: {UNIT_OF[stage]}."

    @property
    def run(self) -> str:
        """Data, protocol and training seed."""
        return f"{self.runs} Seed: {self.seed}."

    @property
    def runs(self) -> str:
        """The same for a table of several seeds."""
        return f"Data: {self.profile.data}. Protocol: {self.protocol}."


def published(
    stage: str, results: Results, setting: Setting, baselines: Mapping[str, pd.DataFrame] | None = None
) -> Table:
    """Table 1 (stage "P") or 2 ("G"): networks by initial weights, then the baselines; ours, printed, difference.

    `baselines`: name (`baselines.LABELS`) -> predictions per mass. In a table per patch they are counted per mass.
    Frame: one row per line; for each of sensitivity, specificity, accuracy, auc (shares) the columns `<m>, <m>_low,
    <m>_high, <m>_printed, <m>_difference` (ours minus printed) and `<m>_printed_inside` our interval.
    """
    printed = {(row.stage, row.network, row.initial): row for row in config.PUBLISHED}
    unit, theirs = UNIT_OF[stage], UNIT_OF_BASELINES[stage]
    ours = of_lines(stage, results, setting, lambda predictions: _measure(predictions, unit, setting))
    rows = [
        {"block": "network", "unit": unit} | row | _beside(row, printed.get((stage, *line)))
        for line, row in zip(lines(stage, setting), ours, strict=True)
    ]
    for name, predictions in (baselines or {}).items():
        labels = {"block": "baseline", "network": BASELINE_LABELS.get(name, name), "initial": "", "unit": theirs}
        rows.append(labels | _measure(predictions, theirs, setting) | _beside({}, None))
    frame = _typed(pd.DataFrame(rows))
    is_any_printed = bool(frame["auc_printed"].notna().any())
    caption = f"{NUMBERS[stage]}. {_title(stage, is_any_printed)} {setting.sentence(stage)}"
    return Table(frame, caption, _notes(frame, is_any_printed, setting), _shown(frame))


def lines(stage: str, setting: Setting) -> list[tuple[str, str]]:
    """(network, initial) of every line of the stage's table: the paper's order, then our controls and our own rows."""
    networks = [
        (network, initial) for network in setting.profile.networks for initial in setting.profile.initial(stage)
    ]
    return networks + [(row, config.EXTRA_INITIAL) for row in setting.extra]


def named(network: str, initial: str) -> dict[str, object]:
    """The columns `network` and `initial` of a line, in words."""
    return {"network": config.ROW_LABELS[network], "initial": config.INITIAL_LABELS[initial]}


def of_lines(
    stage: str, results: Results, setting: Setting, measured: Callable[[pd.DataFrame], dict[str, object]]
) -> list[dict[str, object]]:
    """A row for each of `lines`: names, then what `measured` makes of its predictions, or a note why it has none."""
    rows = []
    for network, initial in lines(stage, setting):
        key = (stage, network, initial)
        found = measured(results[key]) if key in results else {"note": setting.reasons.get(key, MISSING)}
        rows.append(named(network, initial) | found)
    return rows


def _beside(ours: Mapping[str, object], row: config.PublishedRow | None) -> dict[str, object]:
    """The printed values, ours minus printed, and whether printed lies in our interval."""
    beside: dict[str, object] = {}
    for name in PAPER_METRICS:
        value = getattr(row, name) if row else None
        low, high, mine = ours.get(f"{name}_low"), ours.get(f"{name}_high"), ours.get(name)
        beside[f"{name}_printed"] = value
        beside[f"{name}_difference"] = mine - value if value is not None and isinstance(mine, float) else None
        within = isinstance(low, float) and isinstance(high, float) and value is not None
        beside[f"{name}_printed_inside"] = bool(low <= value <= high) if within else None  # type: ignore[operator]
    return beside


def _measure(predictions: pd.DataFrame, unit: str, setting: Setting) -> dict[str, object]:
    """Counts, threshold, the four metrics with intervals, and a note of whatever does not exist."""
    units = metrics.aggregate(predictions, unit)
    test = units[units["part"] == "test"]
    row: dict[str, object] = {
        "cases": len(test),
        "malignant": int(test["label"].sum()),
        "patients": test["patient_id"].nunique(),
    }
    notes: list[str] = []
    row["threshold"] = setting.profile.evaluation.threshold
    auc = statistics.weighted_auc(test["label"], test["probability"], test["fold"])
    for name, statistic in (rates(test, setting.profile.evaluation.threshold) | {"auc": auc}).items():
        row |= with_bounds(name, statistic, test, setting, notes)
    return row | {"note": "; ".join(dict.fromkeys(notes))}


def chosen(units: pd.DataFrame, choose: Callable[[pd.Series, pd.Series], float]) -> pd.Series:
    """`choose(label, probability)` of each fold's validation cases, given to that fold's test cases.

    In another fold they may be test cases. Undefined without validation cases.
    """
    test, validation = (units[units["part"] == part] for part in ("test", "validation"))
    found = {}
    for fold in test["fold"].unique():
        cases = validation[validation["fold"] == fold]
        if cases.empty:
            raise metrics.Undefined("threshold chosen on validation: no validation cases")
        found[fold] = choose(cases["label"], cases["probability"])
    return test["fold"].map(found).astype(float)


def over_folds(threshold: pd.Series, test: pd.DataFrame) -> float:
    """The threshold of these test cases; with several folds, the mean of theirs."""
    return float(threshold.groupby(test["fold"]).first().mean())


def rates(test: pd.DataFrame, threshold: np.ndarray | float) -> dict[str, statistics.Statistic]:
    """Sensitivity, specificity and accuracy of test cases at one threshold, or at their own (n,)."""
    malignant, called = test["label"].to_numpy() == 1, test["probability"].to_numpy() >= threshold
    return {
        "sensitivity": statistics.weighted_ratio(malignant & called, malignant),
        "specificity": statistics.weighted_ratio(~malignant & ~called, ~malignant),
        "accuracy": statistics.weighted_ratio(malignant == called, np.ones_like(malignant)),
    }


def with_bounds(
    name: str, statistic: statistics.Statistic, test: pd.DataFrame, setting: Setting, notes: list[str]
) -> dict[str, object]:
    """`name, name_low, name_high` of a statistic of the test cases; what does not exist is left out and noted.

    An interval that is one point is left out too: 0 of 20 is not 0 of all (NO_BRACKETS).
    """
    estimate = float(statistic(np.ones((1, len(test))))[0]) if len(test) else float("nan")
    if np.isnan(estimate):
        notes.append(f"{name}: {len(test)} cases, a class it needs is empty")
        return {}
    evaluation = setting.profile.evaluation
    try:
        replicates = statistics.bootstrap(statistic, test["patient_id"], evaluation.resamples, setting.seed)
    except statistics.Undefined as reason:
        notes.append(f"{name}: no interval, {reason}")
        return {name: estimate}
    if left_out := statistics.left_out(replicates):
        notes.append(f"{name}: {left_out}")
    found = statistics.percentile(replicates, evaluation.confidence)
    if found.is_point:
        return {name: estimate}
    return {name: estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns in a fixed order, nullable types: what does not exist is <NA>, an empty cell in the CSV."""
    parts = ("", "_low", "_high", "_printed", "_difference")
    floats = [f"{name}{part}" for name in PAPER_METRICS for part in parts]
    types = {"cases": "Int64", "malignant": "Int64", "patients": "Int64", "threshold": "Float64"}
    types |= dict.fromkeys(floats, "Float64")
    types |= {f"{name}_printed_inside": "boolean" for name in PAPER_METRICS}
    columns = ["block", "network", "initial", "unit", "cases", "malignant", "patients", "threshold"]
    columns += [f"{name}{part}" for name in PAPER_METRICS for part in (*parts, "_printed_inside")]
    return frame.reindex(columns=[*columns, "note"]).astype(types)


def _title(stage: str, is_any_printed: bool) -> str:
    beside = (
        "ours beside the values printed by Xu et al. 2021" if is_any_printed else "ours; the paper prints no such row"
    )
    return f"Classification of masses on {STAGE_LABELS[stage]}: {beside}."


def _notes(frame: pd.DataFrame, is_any_printed: bool, setting: Setting) -> tuple[str, ...]:
    evaluation, is_phantom = setting.profile.evaluation, setting.profile.source == "phantom"
    notes = [
        f"Ours: estimate [{evaluation.confidence:.0%} percentile interval, {evaluation.resamples} bootstrap resamples "
        f"of patients]. {NO_BRACKETS} All values are shares of 1.",
        "The paper does not name the unit its tables count; patches in Table 1 and images in Table 2 are our reading.",
    ]
    if is_any_printed:
        difference = "Difference: ours minus printed, blank where the paper prints no such row. "
        notes.insert(1, difference + "* The printed value lies outside our interval; no star where we have none.")
    if (frame["block"] == "baseline").any():
        notes.append(
            "Baselines have one score per mass, also where the table counts patches. Prevalence calls every mass what "
            "most training masses are."
        )
    if (frame["network"] == BASELINE_LABELS["birads"]).any():
        notes.append(
            "The radiologist's assessment calls malignant what was called back: BI-RADS 0, 4 and 5 (0 ranks between 3 "
            "and 4, ours)."
            + (" Assessment and words are drawn with a phantom: no radiologist saw it." if is_phantom else "")
        )
    if frame["network"].isin(config.EXTRA_LABELS.values()).any():
        notes.append("Rows marked ours read a patch as its window of set G, at the resolution of that set.")
    empty = frame[frame["note"] != ""]
    return (*notes, *(f"{row.network} {row.initial}".strip() + f": {row.note}." for row in empty.itertuples()))


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    shown = {
        ("", "Network"): frame["network"],
        ("", "Initial weights"): frame["initial"],
        ("", "Cases"): text(frame["cases"], "{:d}"),
    }
    for name, label in PAPER_METRICS.items():
        outside = frame[f"{name}_printed_inside"].eq(False).fillna(False)
        shown[(label, "Ours")] = with_interval(frame[name], frame[f"{name}_low"], frame[f"{name}_high"])
        shown[(label, "Printed")] = text(frame[f"{name}_printed"], "{:.4f}") + outside.map({True: "*", False: ""})
        shown[(label, "Difference")] = text(frame[f"{name}_difference"], SIGNED)
    return pd.DataFrame(shown)


def cited() -> Table:
    """What the paper quotes of the systems it cites: context, not comparable."""
    frame = pd.DataFrame(config.CITED, columns=["system", "data", "metric", "value"])
    caption = "Systems cited by the paper: context, not comparable with ours or with each other."
    notes = ("As quoted in the introduction of Xu et al. 2021; other data, splits and units.",)
    return Table(frame, caption, notes, plain(frame, "{:.4g}"))
