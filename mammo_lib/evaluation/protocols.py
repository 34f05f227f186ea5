"""How much the split protocol moves the AUC: a network under two protocols, on all their cases and on the shared.

Made from predictions tables alone; draws nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.comparisons import bootstrapped, joined, paired_difference, tested
from mammo_lib.evaluation.export import Table, p_values, text, with_interval
from mammo_lib.evaluation.tables import MISSING, UNDEFINED, UNIT_OF, Key, Results, Setting, lines, named

ASKED = "How much does the split protocol move the AUC? The optimism of splits at random."
PAIRS = (("as_written", "official"), ("as_written", "grouped_cv"), ("grouped_cv", "official"))


def protocols(results: Mapping[str, Results], setting: Setting) -> Table:
    """How much the split protocol moves the AUC: the looser protocol minus the stricter, per cell: the optimism.

    The test cases differ but patients may be shared, so patients of both test sets are resampled together. Other cases
    may be harder ones: `shared_difference` is that of the cases that both tested. Frame: `stage, network, initial,
    first, second, auc_first, auc_second, difference, low, high, p, patients, shared_patients, shared_cases,
    shared_difference, shared_difference_low, shared_difference_high, note`, AUCs as shares of 1. Of `setting`'s own
    protocol only this: which of our own rows there are.
    """
    pairs = [pair for pair in PAIRS if set(pair) <= set(results)]
    rows = [
        _row((stage, network, initial), pair, results, setting)
        for stage in UNIT_OF
        for network, initial in lines(stage, setting)
        for pair in pairs
        if any((stage, network, initial) in results[name] for name in pair)
    ]
    floats = ("auc_first", "auc_second", "difference", "low", "high", "p")
    counts = ("patients", "shared_patients", "shared_cases")
    shared = ("shared_difference", "shared_difference_low", "shared_difference_high")
    columns = ["stage", "network", "initial", "first", "second", *floats, *counts, *shared, "note"]
    types = dict.fromkeys((*floats, *shared), "Float64") | dict.fromkeys(counts, "Int64")
    frame = pd.DataFrame(rows).reindex(columns=columns).astype(types)
    caption = f"{ASKED} First minus second. Data: {setting.profile.data}. Unit: patch in stage P, image in stage G."
    evaluation = setting.profile.evaluation
    notes = (
        f"Difference in AUC points, hundredths of 1 [{evaluation.confidence:.0%} percentile interval, "
        f"{evaluation.resamples} bootstrap resamples of patients]: patients of both test sets are resampled together. "
        "The networks were trained on different patients, and that is not in the interval. p is not corrected.",
        "With several folds, cases of one fold are ranked among themselves.",
        "Same cases: the difference of the cases that are in both test sets, over the same pairs of cases, so that no "
        "easier or harder ones move it.",
    )
    return Table(frame, caption, notes, _shown(frame))


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame[["stage", "network", "initial", "first", "second"]].copy()
    shown["AUC first"], shown["AUC second"] = text(frame["auc_first"], "{:.3f}"), text(frame["auc_second"], "{:.3f}")
    difference, low, high = (frame[name] * 100 for name in ("difference", "low", "high"))
    shown["difference, AUC points"] = with_interval(difference, low, high, "{:+z.1f}")
    shown["p"], shown["patients"] = p_values(frame["p"]), text(frame["patients"], "{:d}")
    shown["in both test sets"] = text(frame["shared_patients"], "{:d}")
    difference, low, high = (frame[f"shared_difference{end}"] * 100 for end in ("", "_low", "_high"))
    shown["same cases, AUC points"] = with_interval(difference, low, high, "{:+z.1f}")
    return shown.assign(note=frame["note"])


def _row(key: Key, pair: tuple[str, str], results: Mapping[str, Results], setting: Setting) -> dict[str, object]:
    stage, network, initial = key
    row: dict[str, Any] = {"stage": stage, "first": pair[0], "second": pair[1], "note": ""} | named(network, initial)
    absent = [name for name in pair if key not in results[name]]
    if absent:
        return row | {"note": f"{', '.join(absent)}: {MISSING}"}
    sets = [tested(results[name][key], UNIT_OF[stage]) for name in pair]
    patients = [set(cases["patient_id"]) for cases in sets]
    row |= {"patients": len(patients[0] | patients[1]), "shared_patients": len(patients[0] & patients[1])}
    both = pd.concat(sets, ignore_index=True)
    places = np.split(np.arange(len(both)), [len(sets[0])])
    scored = [(cases["label"], cases["probability"], cases["fold"]) for cases in sets]
    try:
        row |= {f"auc_{name}": metrics.auc(*one) for name, one in zip(("first", "second"), scored, strict=True)}
        row["difference"] = row["auc_first"] - row["auc_second"]
        weighted = [
            statistics.on(place, statistics.weighted_auc(*one)) for place, one in zip(places, scored, strict=True)
        ]
        row |= bootstrapped(statistics.difference(*weighted), both["patient_id"], setting)
    except UNDEFINED as reason:
        row["note"] = str(reason)
    same = _same_cases(sets[0], sets[1], setting)
    return row | same | {"note": joined(row["note"], same["note"])}


def _same_cases(first: pd.DataFrame, second: pd.DataFrame, setting: Setting) -> dict[str, Any]:
    """The difference on the cases that both tested, over the pairs of cases that both rank: of one fold in each."""
    both = first.merge(second[["id", "fold", "probability"]], on="id", suffixes=("_first", "_second"))
    if both.empty:
        return {"shared_cases": 0, "note": "same cases: there are none"}
    fold = both["fold_first"].astype(str) + "/" + both["fold_second"].astype(str)
    scores = {"probability_first": "first", "probability_second": "second"}
    found = paired_difference(both.rename(columns=scores).assign(fold=fold), setting)
    names = {"difference": "", "low": "_low", "high": "_high"}
    row = {f"shared_difference{end}": found.get(name) for name, end in names.items()}
    return row | {"shared_cases": len(both), "note": found["note"] and f"same cases: {found['note']}"}
