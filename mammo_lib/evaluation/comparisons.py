"""The questions the paper raises of two networks, as differences in AUC: does CBAM help, does patch transfer help?

Made from predictions tables alone. Two networks are compared on the same cases by one bootstrap over patients and by
DeLong's test; Holm's correction runs over each question's family. Draws nothing: the frames are what forest plots show.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mammo_lib import config
from mammo_lib.evaluation import metrics, statistics
from mammo_lib.evaluation.export import SIGNED, Table, p_values, text, with_interval
from mammo_lib.evaluation.predictions import align
from mammo_lib.evaluation.tables import (
    MISSING,
    POINT,
    UNDEFINED,
    UNIT_OF,
    Key,
    Results,
    Setting,
)

CBAM, OVER_IMAGENET, OVER_SCRATCH = "CBAM", "patch over ImageNet", "patch over scratch"
TAUGHT, OVER_PROBE = "taught over frozen", "network over probe"
SPLIT = "random split"  # asked of two protocols, not of two networks
SIZE, LENGTH = "input size", "training length"  # asked of two profiles
AS_PRINTED = "printed"  # in place of a profile
QUESTIONS = {
    CBAM: "Does CBAM help? Each network with CBAM against its own backbone.",
    OVER_IMAGENET: "Does patch transfer help over ImageNet? Each network with itself.",
    OVER_SCRATCH: "Does patch transfer help over random weights (our control)? Each network with itself.",
    TAUGHT: "Does VGG16 see more once it was taught masses? Our mass map against our probe of the frozen network.",
    OVER_PROBE: "Does the main network, trained whole, see more than our probe of a frozen ImageNet VGG16?",
}
PRINTED = {(row.stage, row.network, row.initial) for row in config.PUBLISHED}
PAPERS, OURS = "the paper's", "ours"
_FLOATS = ("auc_first", "auc_second", "difference", "low", "high", "p", "p_delong", "p_holm", "p_delong_holm")
_COLUMNS = ["question", "family", "stage", "unit", "first", "second", "cases", "patients", *_FLOATS, "note"]


@dataclass(frozen=True)
class Comparison:
    """First minus second: positive when the first is better."""

    question: str
    first: Key
    second: Key

    @property
    def family(self) -> str:
        """Whose comparison it is; Holm's correction for the paper's does not grow with controls of ours."""
        return PAPERS if {self.first, self.second} <= PRINTED else OURS


def planned(profile: config.Profile) -> list[Comparison]:
    """Every comparison the paper makes, and ours with scratch, for the networks and initial weights of the profile."""
    return [*_cbam(profile), *_transfer(profile)]


def _cbam(profile: config.Profile) -> Iterator[Comparison]:
    for stage in ("P", "G"):
        for network in profile.networks:
            backbone = network.removesuffix(config.CBAM_SUFFIX)
            if backbone != network and backbone in profile.networks:
                for initial in profile.initial(stage):
                    yield Comparison(CBAM, (stage, network, initial), (stage, backbone, initial))


def _transfer(profile: config.Profile) -> Iterator[Comparison]:
    for question, other in ((OVER_IMAGENET, "imagenet"), (OVER_SCRATCH, "scratch")):
        for initial in config.PATCH_PARENTS:
            if {initial, other} <= set(profile.global_initial):
                for network in profile.networks:
                    yield Comparison(question, ("G", network, initial), ("G", network, other))


def _asked(setting: Setting) -> list[Comparison]:
    """Every planned comparison, and those with our own rows where they are there."""
    return [*planned(setting.profile), *_taught(setting.extra), *_over_probe(setting)]


def _taught(extra: Sequence[str]) -> Iterator[Comparison]:
    if {config.MASS_MAP, config.PROBE} <= set(extra):
        for stage in ("P", "G"):
            first, second = ((stage, row, config.EXTRA_INITIAL) for row in (config.MASS_MAP, config.PROBE))
            yield Comparison(TAUGHT, first, second)


def _over_probe(setting: Setting) -> Iterator[Comparison]:
    if config.PROBE in setting.extra:
        for stage, initial in setting.profile.main_initial.items():
            first = stage, setting.profile.main_network, initial
            yield Comparison(OVER_PROBE, first, (stage, config.PROBE, config.EXTRA_INITIAL))


def questions(results: Results, setting: Setting) -> Table:
    """Every comparison asked for: difference in AUC, interval, p by bootstrap and by DeLong, both after Holm.

    Frame: `question, family, stage, unit, first, second, cases, patients, auc_first, auc_second, difference, low, high,
    p, p_delong, p_holm, p_delong_holm, note`. A comparison that cannot be made is a row with its reason in `note`, and
    is not corrected for.
    """
    rows = [answer(comparison, results, setting) for comparison in _asked(setting)]
    frame = pd.DataFrame(rows).reindex(columns=_COLUMNS)
    frame = frame.astype({"cases": "Int64", "patients": "Int64"} | dict.fromkeys(_FLOATS, "Float64"))
    for name, adjusted in (("p", "p_holm"), ("p_delong", "p_delong_holm")):
        for _, family in frame[frame[name].notna()].groupby(["question", "family"]):
            frame.loc[family.index, adjusted] = statistics.holm(family[name].astype(float))
    evaluation = setting.profile.evaluation
    caption = (
        f"Paired differences in AUC, first minus second. {setting.run} Unit: patch in stage P, image in stage G. "
        "Threshold: none, AUC has no threshold."
    )
    notes = (
        f"Interval ({evaluation.confidence:.0%}, percentile) and p: {evaluation.resamples} bootstrap resamples of "
        "patients, the same for both networks. p DeLong: its variance for clustered cases, of patients (Obuchowski "
        "1997).",
        f"Holm: over the comparisons of one question and family that could be made; family {PAPERS}: both networks "
        f"are rows of its tables, {OURS}: controls that it does not print.",
        *QUESTIONS.values(),
    )
    return Table(frame, caption, notes, _shown(frame))


def over_seeds(results: Mapping[int, Results], setting: Setting) -> Table:
    """The questions for every training seed on its own: would another seed have answered otherwise?

    results: seed -> results. Frame: one row for each comparison and seed, of those that more than one seed can make,
    `question, stage, unit, first, second, seed, cases, patients, auc_first, auc_second, difference, low, high, p,
    mean_difference, mean_low, mean_high, sd_seeds, note`; the mean is over the seeds of a comparison, its interval over
    patients; the standard deviation is that of the seeds' differences. p is not corrected.
    """
    rows = []
    for comparison in _asked(setting):
        able = [seed for seed, found in results.items() if {comparison.first, comparison.second} <= set(found)]
        if len(able) > 1:
            of_seeds = [answer(comparison, results[seed], setting) | {"seed": seed} for seed in able]
            differences = pd.Series([row.get("difference") for row in of_seeds], dtype=float)
            mean = _mean_interval([_paired(comparison, results[seed], setting) for seed in able], setting)
            mean |= {"mean_difference": differences.mean(), "sd_seeds": differences.std()}
            lacking = _lacking(comparison, results)
            rows += [row | mean | {"note": joined(row.get("note"), *lacking)} for row in of_seeds]
    columns = [name for name in _COLUMNS if name not in ("family", "p_delong", "p_holm", "p_delong_holm", "note")]
    columns = [*columns[:5], "seed", *columns[5:], "mean_difference", "mean_low", "mean_high", "sd_seeds", "note"]
    frame = pd.DataFrame(rows).reindex(columns=columns)
    caption = (
        f"The paired differences in AUC of each training seed. {setting.runs} Unit: patch in stage P, image in stage G."
    )
    notes = (
        "Every seed with both networks, each compared with that of the same seed; the note names what another seed "
        "lacks, for instance as the patch training before it had failed. Interval and p as in the table of questions, "
        "of the test patients alone. p is not corrected. Mean: over these seeds; its interval is of "
        "the test patients, too, resampled for all trainings at once. It tells how these trainings would differ on "
        "other patients, not what training again would give: for that see SD, the standard deviation over the seeds.",
    )
    shown = frame[["question", "stage", "first", "second"]].assign(seed=text(frame["seed"], "{:.0f}"))
    shown["difference"] = with_interval(frame["difference"], frame["low"], frame["high"], SIGNED)
    shown["p"] = p_values(frame["p"])
    shown["mean"] = with_interval(frame["mean_difference"], frame["mean_low"], frame["mean_high"], SIGNED)
    shown["SD"] = text(frame["sd_seeds"], "{:.3f}")
    return Table(frame, caption, notes, shown.assign(note=frame["note"]))


def _lacking(comparison: Comparison, results: Mapping[int, Results]) -> list[str]:
    """What the seeds that cannot make a comparison have no predictions of: not every seed may have come so far."""
    absent = {
        seed: [name_of(key) for key in (comparison.first, comparison.second) if key not in found]
        for seed, found in results.items()
    }
    return [f"seed {seed} has no {' and no '.join(names)}" for seed, names in absent.items() if names]


def answer(comparison: Comparison, results: Results, setting: Setting) -> dict[str, object]:
    """One row of `questions`, not corrected; only its names and a note where one of the two has no predictions."""
    stage = comparison.first[0]
    unit = UNIT_OF[stage]
    row: dict[str, object] = {
        "question": comparison.question,
        "family": comparison.family,
        "stage": stage,
        "unit": unit,
        "first": name_of(comparison.first),
        "second": name_of(comparison.second),
    }
    absent = [key for key in (comparison.first, comparison.second) if key not in results]
    if absent:
        return row | {"note": "; ".join(f"{name_of(key)}: {setting.reasons.get(key, MISSING)}" for key in absent)}
    return row | compare(_paired(comparison, results, setting), setting)


def _paired(comparison: Comparison, results: Results, setting: Setting) -> pd.DataFrame:
    unit = UNIT_OF[comparison.first[0]]
    return align(*(tested(results[key], unit) for key in (comparison.first, comparison.second)))


def _mean_interval(pairs: Sequence[pd.DataFrame], setting: Setting) -> dict[str, object]:
    """Of the mean difference of several trainings on the same cases."""
    try:
        drawn = bootstrapped(statistics.mean([_gap(paired) for paired in pairs]), pairs[0]["patient_id"], setting)
    except UNDEFINED:  # every seed's own row says why
        return {}
    return {"mean_low": drawn.get("low"), "mean_high": drawn.get("high")}


def change(
    comparison: Comparison, longer: Sequence[Results], shorter: Sequence[Results], setting: Setting
) -> dict[str, object]:
    """How much longer trainings move the difference of a comparison: its mean over the one minus its mean over the
    other, with the interval of patients resampled for all trainings at once, or a note.

    longer, shorter: the results of each seed. ValueError unless all have the same test cases.
    """
    pairs = [_paired(comparison, results, setting) for results in (*longer, *shorter)]
    patients = pairs[0]["patient_id"]
    if any(not paired["id"].equals(pairs[0]["id"]) for paired in pairs):
        raise ValueError(f"{setting.profile.name}, {setting.profile.shorter}: their test cases differ; split anew")
    means = [
        statistics.mean([_gap(paired) for paired in half]) for half in (pairs[: len(longer)], pairs[len(longer) :])
    ]
    row: dict[str, object] = {"cases": len(pairs[0]), "patients": patients.nunique()}
    try:
        drawn = bootstrapped(statistics.difference(*means), patients, setting)
    except UNDEFINED as reason:
        return row | {"note": str(reason)}
    return row | drawn | {"difference": drawn["estimate"]}


def _gap(paired: pd.DataFrame) -> statistics.Statistic:
    label, first, second, fold = _columns(paired)
    return statistics.difference(
        statistics.weighted_auc(label, first, fold), statistics.weighted_auc(label, second, fold)
    )


def _columns(paired: pd.DataFrame) -> Iterator[np.ndarray]:
    return (paired[name].to_numpy() for name in ("label", "first", "second", "fold"))


def name_of(key: Key) -> str:
    """`ResNet50+CBAM (Patch data)`."""
    return f"{config.ROW_LABELS[key[1]]} ({config.INITIAL_LABELS[key[2]]})"


def tested(predictions: pd.DataFrame, unit: str) -> pd.DataFrame:
    """The test cases of a predictions table, one row a unit (`metrics.aggregate`)."""
    units = metrics.aggregate(predictions, unit)
    return units[units["part"] == "test"].reset_index(drop=True)


def compare(paired: pd.DataFrame, setting: Setting) -> dict[str, object]:
    """Two scores of the same cases (`predictions.align`): AUCs, difference, interval and both p values, or a note."""
    label, first, second, fold = _columns(paired)
    row = paired_difference(paired, setting)
    try:
        row["p_delong"] = statistics.delong_test(label, first, second, fold, paired["patient_id"])
    except UNDEFINED as reason:  # takes no interval with it
        row["note"] = joined(row["note"], str(reason))
    return row


def joined(*notes: object) -> str:
    return "; ".join(str(note) for note in notes if note)


def paired_difference(paired: pd.DataFrame, setting: Setting) -> dict[str, Any]:
    """The same by the bootstrap alone."""
    label, first, second, fold = _columns(paired)
    row: dict[str, Any] = {"cases": len(paired), "patients": paired["patient_id"].nunique(), "note": ""}
    try:
        row |= {"auc_first": metrics.auc(label, first, fold), "auc_second": metrics.auc(label, second, fold)}
        row["difference"] = row["auc_first"] - row["auc_second"]
        row |= bootstrapped(_gap(paired), paired["patient_id"], setting)
    except UNDEFINED as reason:
        row["note"] = str(reason)
    return row


def bootstrapped(
    statistic: statistics.Statistic, patients: pd.Series, setting: Setting, resamples: int | None = None
) -> dict[str, object]:
    """`estimate, low, high, p, note` of a difference; a point has a note in the place of its ends.

    resamples: as many as the profile has, where none is named.
    """
    evaluation = setting.profile.evaluation
    replicates = statistics.bootstrap(statistic, patients, resamples or evaluation.resamples, setting.seed)
    found = statistics.percentile(replicates, evaluation.confidence)
    row: dict[str, object] = {"estimate": found.estimate, "p": statistics.bootstrap_p(replicates)}
    row["note"] = statistics.left_out(replicates)
    if found.is_point:
        return row | {"note": joined(row["note"], POINT)}
    return row | {"low": found.low, "high": found.high}


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame[["question", "family", "stage", "first", "second"]].copy()
    shown["AUC first"], shown["AUC second"] = text(frame["auc_first"], "{:.3f}"), text(frame["auc_second"], "{:.3f}")
    shown["difference"] = with_interval(frame["difference"], frame["low"], frame["high"], SIGNED)
    for name, label in (
        ("p", "p"),
        ("p_holm", "p Holm"),
        ("p_delong", "p DeLong"),
        ("p_delong_holm", "p DeLong, Holm"),
    ):
        shown[label] = p_values(frame[name])
    return shown.assign(note=frame["note"])
