"""The questions the paper raises, as differences in AUC: does CBAM help, does patch transfer help, which protocol.

Made from predictions tables alone. Two networks are compared on the same cases by one bootstrap over patients and by
DeLong's test; Holm's correction runs over each question's family. Draws nothing: the frames are what forest plots show.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mammo_lib import config
from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.export import Table, plain, text, with_interval
from mammo_lib.evaluation.predictions import align
from mammo_lib.evaluation.tables import MISSING, UNDEFINED, Key, Results, Setting

BACKBONES = {"vgg16_cbam": "vgg16", "inception_v3_cbam": "inception_v3", "resnet50_cbam": "resnet50"}
CBAM, OVER_IMAGENET, OVER_SCRATCH = "CBAM", "patch over ImageNet", "patch over scratch"
QUESTIONS = {
    CBAM: "Does CBAM help? Each network with CBAM against its own backbone.",
    OVER_IMAGENET: "Does patch transfer help over ImageNet? Each network with itself.",
    OVER_SCRATCH: "Does patch transfer help over random weights (our control)? Each network with itself.",
}
_FLOATS = ("auc_first", "auc_second", "difference", "low", "high", "p", "p_delong", "p_holm", "p_delong_holm")
_COLUMNS = ["question", "stage", "unit", "first", "second", "cases", "patients", *_FLOATS, "note"]


@dataclass(frozen=True)
class Comparison:
    """First minus second: positive when the first is better."""

    question: str
    first: Key
    second: Key


def planned(profile: config.Profile) -> list[Comparison]:
    """Every comparison the paper makes, and ours with scratch, for the networks and initial weights of the profile."""
    return [*_cbam(profile), *_transfer(profile)]


def _cbam(profile: config.Profile) -> Iterator[Comparison]:
    for stage in ("P", "G"):
        for network, backbone in BACKBONES.items():
            if {network, backbone} <= set(profile.networks):
                for initial in profile.initial(stage):
                    yield Comparison(CBAM, (stage, network, initial), (stage, backbone, initial))


def _transfer(profile: config.Profile) -> Iterator[Comparison]:
    for question, other in ((OVER_IMAGENET, "imagenet"), (OVER_SCRATCH, "scratch")):
        if {"patch", other} <= set(profile.global_initial):
            for network in profile.networks:
                yield Comparison(question, ("G", network, "patch"), ("G", network, other))


def questions(results: Results, setting: Setting) -> Table:
    """Every planned comparison: difference in AUC, interval, p by bootstrap and by DeLong, both after Holm.

    Frame: `question, stage, unit, first, second, cases, patients, auc_first, auc_second, difference, low, high, p,
    p_delong, p_holm, p_delong_holm, note`. A comparison that cannot be made is a row with its reason in `note`, and is
    not in the family.
    """
    rows = [_row(comparison, results, setting) for comparison in planned(setting.profile)]
    frame = pd.DataFrame(rows).reindex(columns=_COLUMNS)
    frame = frame.astype({"cases": "Int64", "patients": "Int64"} | dict.fromkeys(_FLOATS, "Float64"))
    for name, adjusted in (("p", "p_holm"), ("p_delong", "p_delong_holm")):
        for _, family in frame[frame[name].notna()].groupby("question"):
            frame.loc[family.index, adjusted] = statistics.holm(family[name].astype(float))
    evaluation = setting.profile.evaluation
    caption = (
        f"Paired differences in AUC, first minus second. Data: {setting.profile.data}. Protocol: {setting.protocol}. "
        f"Unit: {setting.unit or 'patch in stage P, image in stage G'}. Threshold: none, AUC has no threshold."
    )
    notes = (
        f"Interval ({evaluation.confidence:.0%}, percentile) and p: {evaluation.resamples} bootstrap resamples of "
        "patients, the same for both networks. p DeLong takes cases for independent.",
        "Holm: over the comparisons of one question that could be made.",
        *QUESTIONS.values(),
    )
    return Table(frame, caption, notes, _shown(frame))


def _row(comparison: Comparison, results: Results, setting: Setting) -> dict[str, object]:
    stage = comparison.first[0]
    unit = setting.unit_of(stage)
    row: dict[str, object] = {
        "question": comparison.question,
        "stage": stage,
        "unit": unit,
        "first": name_of(comparison.first),
        "second": name_of(comparison.second),
    }
    absent = [key for key in (comparison.first, comparison.second) if key not in results]
    if absent:
        return row | {"note": "; ".join(f"{name_of(key)}: {setting.reasons.get(key, MISSING)}" for key in absent)}
    paired = align(*(_test(results[key], unit) for key in (comparison.first, comparison.second)))
    return row | compare(paired, setting)


def name_of(key: Key) -> str:
    """`ResNet50+CBAM (Patch data)`."""
    return f"{config.NETWORK_LABELS[key[1]]} ({config.INITIAL_LABELS[key[2]]})"


def _test(predictions: pd.DataFrame, unit: str) -> pd.DataFrame:
    units = metrics.aggregate(predictions, unit)
    return units[units["part"] == "test"].reset_index(drop=True)


def compare(paired: pd.DataFrame, setting: Setting) -> dict[str, object]:
    """Two scores of the same cases (`predictions.align`): AUCs, difference, interval and both p values, or a note."""
    label, first, second = (paired[name].to_numpy() for name in ("label", "first", "second"))
    row: dict[str, Any] = {"cases": len(paired), "patients": paired["patient_id"].nunique(), "note": ""}
    try:
        row |= {"auc_first": metrics.auc(label, first), "auc_second": metrics.auc(label, second)}
        row["difference"] = row["auc_first"] - row["auc_second"]
        statistic = statistics.difference(statistics.weighted_auc(label, first), statistics.weighted_auc(label, second))
        row |= _bootstrapped(statistic, paired["patient_id"], setting)
        row["p_delong"] = statistics.delong_test(label, first, second).p
    except UNDEFINED as reason:
        row["note"] = str(reason)
    return row


def _bootstrapped(statistic: statistics.Statistic, patients: pd.Series, setting: Setting) -> dict[str, object]:
    evaluation = setting.profile.evaluation
    replicates = statistics.bootstrap(statistic, patients, evaluation.resamples, setting.seed)
    found = statistics.percentile(replicates, evaluation.confidence)
    note = f"{replicates.excluded} of {evaluation.resamples} resamples hold one class and are left out"
    row = {"low": found.low, "high": found.high, "p": statistics.bootstrap_p(replicates)}
    return row | ({"note": note} if replicates.excluded else {})


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    form = "{:+.3f}"
    shown = frame[["question", "stage", "first", "second"]].copy()
    shown["AUC first"], shown["AUC second"] = text(frame["auc_first"], "{:.3f}"), text(frame["auc_second"], "{:.3f}")
    shown["difference"] = with_interval(frame["difference"], frame["low"], frame["high"], form)
    for name, label in (
        ("p", "p"),
        ("p_holm", "p Holm"),
        ("p_delong", "p DeLong"),
        ("p_delong_holm", "p DeLong, Holm"),
    ):
        shown[label] = text(frame[name], "{:.3f}")
    return shown.assign(note=frame["note"])


def protocols(results: Mapping[str, Results], setting: Setting, reference: str = "official") -> Table:
    """How much the split protocol moves the AUC: each protocol minus `reference`, per network: the optimism.

    The test cases differ but patients may be shared, so patients of both test sets are resampled together. Frame:
    `stage, network, initial, protocol, reference, auc, auc_reference, difference, low, high, p, patients,
    shared_patients, note`. Protocol of `setting` is not used.
    """
    if reference not in results:
        raise ValueError(f"protocol {reference!r} has no results: choose the reference from {', '.join(results)}")
    rows = [
        _protocol_row(key, name, reference, predictions, results[reference].get(key), setting)
        for name, cells in results.items()
        if name != reference
        for key, predictions in cells.items()
    ]
    floats = ("auc", "auc_reference", "difference", "low", "high", "p")
    columns = ["stage", "network", "initial", "protocol", "reference", *floats, "patients", "shared_patients", "note"]
    types = dict.fromkeys(floats, "Float64") | {"patients": "Int64", "shared_patients": "Int64"}
    frame = pd.DataFrame(rows).reindex(columns=columns).astype(types)
    caption = f"Optimism of the split protocol, in AUC, against {reference}. Data: {setting.profile.data}."
    notes = ("Patients of both test sets are resampled together; the networks were trained on different patients.",)
    return Table(frame, caption, notes, plain(frame))


def _protocol_row(
    key: Key, name: str, reference: str, first: pd.DataFrame, second: pd.DataFrame | None, setting: Setting
) -> dict[str, object]:
    stage, network, initial = key
    labels = {"network": config.NETWORK_LABELS[network], "initial": config.INITIAL_LABELS[initial]}
    row: dict[str, Any] = {"stage": stage, "protocol": name, "reference": reference, "note": ""} | labels
    if second is None:
        return row | {"note": f"{reference}: {MISSING}"}
    sets = [_test(predictions, setting.unit_of(stage)) for predictions in (first, second)]
    both = pd.concat(sets, ignore_index=True)
    parts = np.split(np.arange(len(both)), [len(sets[0])])
    try:
        aucs = [metrics.auc(part["label"], part["probability"]) for part in sets]
        weighted = [
            statistics.on(cases, statistics.weighted_auc(part["label"], part["probability"]))
            for cases, part in zip(parts, sets, strict=True)
        ]
        row |= {"auc": aucs[0], "auc_reference": aucs[1], "difference": aucs[0] - aucs[1]}
        row |= _bootstrapped(statistics.difference(*weighted), both["patient_id"], setting)
    except UNDEFINED as reason:
        row["note"] = str(reason)
    shared = set(sets[0]["patient_id"]) & set(sets[1]["patient_id"])
    return row | {"patients": both["patient_id"].nunique(), "shared_patients": len(shared)}
