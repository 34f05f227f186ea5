"""Every network against the radiologist's BI-RADS assessment of the same cases.

Made from predictions tables alone; draws nothing.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from mammo_lib.evaluation.comparisons import compare, joined, paired_difference, tested
from mammo_lib.evaluation.export import SIGNED, Table, p_values, text, with_interval
from mammo_lib.evaluation.predictions import align
from mammo_lib.evaluation.tables import UNIT_OF_BASELINES, Results, Setting, of_lines

_GAP = ("difference", "low", "high")
_COUNTS = ("cases", "patients", "called_back_cases")
_RENAMED = {"auc_first": "auc", "auc_second": "auc_birads", "zero_as_four_auc_second": "zero_as_four_auc_birads"}
_COLUMNS = [
    *("stage", "unit", "network", "initial", "cases", "patients", "auc", "auc_birads", *_GAP, "p", "p_delong"),
    *("called_back_cases", *(f"called_back_{name}" for name in _GAP)),
    *("zero_as_four_auc_birads", *(f"zero_as_four_{name}" for name in _GAP), "note"),
]


def against_birads(
    stage: str,
    results: Results,
    setting: Setting,
    birads: pd.DataFrame,
    not_called_back: Collection[str] = (),
    zero_as_four: pd.DataFrame | None = None,
) -> Table:
    """Every network of a stage against the radiologist's BI-RADS assessment of the same masses (P) or images (G).

    birads: its predictions per mass (`baselines.birads`); not_called_back: ids of masses that are benign because the
    radiologist did not call the patient back; zero_as_four: the same predictions with BI-RADS 0 level with 4. Frame:
    `stage, unit, network, initial, cases, patients, auc, auc_birads, difference, low, high, p, p_delong,
    called_back_cases, called_back_difference, called_back_low, called_back_high, zero_as_four_auc_birads,
    zero_as_four_difference, zero_as_four_low, zero_as_four_high, note`; positive when the network orders the cases
    better. A network without predictions is a row with its reason. ValueError when the two are not of the same cases.
    """
    unit = UNIT_OF_BASELINES[stage]
    not_counted = birads["mass_id"].isin(not_called_back)
    left_out = set(birads.loc[not_counted, f"{unit}_id"]) if not_counted.any() else set[str]()

    def measured(predictions: pd.DataFrame) -> dict[str, object]:
        scores = tested(predictions, unit)
        paired = align(scores, tested(birads, unit))
        found = compare(paired, setting)
        if left_out:
            without = paired_difference(paired[~paired["id"].isin(left_out)], setting)
            found |= _named("called_back", without, ("cases", *_GAP))
            found["note"] = joined(found["note"], without["note"] and f"called back: {without['note']}")
        if zero_as_four is not None:
            level = paired_difference(align(scores, tested(zero_as_four, unit)), setting)
            found |= _named("zero_as_four", level, ("auc_second", *_GAP))
            found["note"] = joined(found["note"], level["note"] and f"0 as 4: {level['note']}")
        return found

    rows = pd.DataFrame(of_lines(stage, results, setting, measured)).assign(stage=stage, unit=unit)
    frame = rows.rename(columns=_RENAMED).reindex(columns=_COLUMNS)
    frame = frame.astype({name: "Int64" if name in _COUNTS else "Float64" for name in _COLUMNS[4:-1]})
    caption = (
        "Against the radiologist's BI-RADS assessment of the same cases: difference in AUC, network minus radiologist. "
        f"{setting.run} Unit: {unit}."
    )
    evaluation = setting.profile.evaluation
    notes: tuple[str, ...] = (
        f"Interval ({evaluation.confidence:.0%}, percentile) and p: {evaluation.resamples} bootstrap resamples of "
        "patients, the same for both; p is not corrected. A mass has the mean of its patches, an image the highest of "
        "its masses. BI-RADS 0 ranks between 3 and 4 (ours); 0 as 4: level with 4.",
    )
    if left_out:
        notes += (
            "Called back: without the cases with a mass that is benign because the patient was not called back. Their "
            "truth rests on the reader's decision, which favours the assessment; to leave them out takes away benign "
            "cases that were mostly read low, which favours the network.",
        )
    return Table(frame, caption, notes, _shown(frame))


def _named(prefix: str, found: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    return {f"{prefix}_{name}": found.get(name) for name in names}


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame[["network", "initial"]].rename(columns={"initial": "initial weights"})
    shown["AUC"], shown["AUC of BI-RADS"] = text(frame["auc"], "{:.3f}"), text(frame["auc_birads"], "{:.3f}")
    shown["difference"] = with_interval(frame["difference"], frame["low"], frame["high"], SIGNED)
    shown["p"] = p_values(frame["p"])
    for heading, prefix in (("called back", "called_back"), ("0 as 4", "zero_as_four")):
        value, low, high = (frame[f"{prefix}_{name}"] for name in _GAP)
        shown[heading] = with_interval(value, low, high, SIGNED)
    return shown.assign(note=frame["note"])
