"""The paper's two questions, those of the split, the input size and the epochs, on CBIS-DDSM: every pair of trained
networks, of every profile that has results, beside the differences that the paper printed.

Reads stored predictions: no image, no network, no torch. Leaves out what has tables of its own: our own rows against
each other and against the networks, the radiologist, other pairs of protocols, and other archives.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import (
    EXTRA_INITIAL,
    EXTRA_LABELS,
    INITIAL_LABELS,
    PATCH_PARENTS,
    PROBE,
    PROFILES,
    PUBLISHED,
    ROW_LABELS,
    SAME_PATIENTS,
    Profile,
    get_profile,
)
from mammo_lib.stages.comparison import predictions, setting_of, trained_seeds
from mammo_lib.stages.experiment import Experiment
from mammo_lib.stages.trainings import RECORD

if TYPE_CHECKING:
    from mammo_lib.evaluation.comparisons import Comparison
    from mammo_lib.evaluation.tables import Key, Results

OFFICIAL, LOOSE, STRICT = "official", "as_written", "grouped_cv"
WEIGHTS = {"scratch": "random weights", "imagenet": "ImageNet"}
SETS = {"P": "patches", "G": "whole mammograms"}
NAMES = ("question", "arm", "line", "stage", "profile", "protocol", "first", "second", "seed", "cases", "patients")
COLUMNS = (*NAMES, "auc_first", "auc_second", "difference", "low", "high", "above_chance", "note")


def overview(experiment: Experiment) -> pd.DataFrame:
    """The comparisons (`compared`) on CBIS-DDSM, written to results/overview.csv and drawn; the same for every profile
    and seed."""
    from mammo_lib.evaluation import figures, figures_overview

    frame = compared([profile for profile in PROFILES.values() if profile.source in SAME_PATIENTS])
    root = experiment.places.root
    paths.write_table(frame, root / "results" / "overview.csv")
    data = (
        "CBIS-DDSM, the official test patients; grouped_cv: five folds by patient, all patients; as_written: the "
        "random split, what it drew; of a split's effect, what both tested. In brackets the profile: its sizes and "
        "epochs are in mammo_lib/config.py. Printed: Tables 1 and 2 of the paper. Intervals are not corrected for how "
        "many there are"
    )
    figures.save(figures_overview.overview(frame, data), root / "figures", "overview")
    return frame


def compared(profiles: Sequence[Profile]) -> pd.DataFrame:
    """One row a comparison and training seed, first minus second: `question, arm, line, stage, profile, protocol,
    first, second, seed, cases, patients, auc_first, auc_second, difference, low, high, above_chance, note`.

    arm, line: in words, which set from which weights, and which network of which profile, with the protocol where it is
    not the official one. above_chance: how many of the two are, the interval of their AUC over patients (Obuchowski
    1997) lying above a half; of more epochs, the least of its pairs. What was printed has neither seed nor interval; a
    split's difference is that of the cases which both splits tested, a size's that of our probe; of more epochs the
    mean over seeds has a row, without a seed. A pair of trainings that lies in two profiles is shown with the first.
    FileNotFoundError: no profile has results.
    """
    ours: list[dict[str, Any]] = []
    official: list[tuple[Profile, Mapping[int, Results]]] = []
    for profile in profiles:
        trained = {name: _trained(profile, name) for name in (OFFICIAL, STRICT, LOOSE)}
        for protocol, seeds in trained.items():
            ours += _asked(profile, protocol, seeds)
        ours += _splits(profile, trained)
        official.append((profile, trained[OFFICIAL]))
    ours += [*_sizes(official), *_lengths(official)]
    if not ours:
        results = paths.repository() / "results"
        raise FileNotFoundError(f"{results}: no profile on CBIS-DDSM has predictions: train one")
    frame = pd.DataFrame([*_printed(), *ours]).reindex(columns=[*COLUMNS, "trainings"])
    copied = frame["trainings"].notna() & frame.duplicated(["trainings", "question", "first", "second"])
    frame = frame[~copied].sort_values("stage", ascending=False, kind="stable", ignore_index=True)  # P, then G
    frame = frame.drop(columns="trainings")
    return frame.astype(dict.fromkeys(("seed", "cases", "patients", "above_chance"), "Int64"))


def _trained(profile: Profile, protocol: str) -> "dict[int, Results]":
    """Predictions under a protocol, by training seed; none where nothing was trained."""
    return {other.seed: predictions(other) for other in trained_seeds(Experiment(profile, protocol, seed=0))}


def _asked(profile: Profile, protocol: str, trained: "Mapping[int, Results]") -> Iterator[dict[str, Any]]:
    """What CBAM and the patches make of a profile's trainings, for every seed that can tell."""
    from mammo_lib.evaluation import comparisons

    experiment = Experiment(profile, protocol, seed=0)
    setting = setting_of(experiment)
    for comparison in comparisons.planned(profile):
        keys = comparison.first, comparison.second
        for seed, found in trained.items():
            if set(keys) <= set(found):
                row = comparisons.answer(comparison, found, setting) | _named(comparison, profile, protocol)
                row |= {"seed": seed, "above_chance": sum(_above_chance(found[key], profile) for key in keys)}
                yield row | {"trainings": tuple(_trainings(experiment, key, seed) for key in keys)}


def _named(comparison: "Comparison", profile: Profile, protocol: str = OFFICIAL) -> dict[str, str]:
    """What was compared, in the words of the figure."""
    from mammo_lib.evaluation.comparisons import CBAM

    (stage, network, initial), (_, backbone, other) = comparison.first, comparison.second
    by_way = f"{WEIGHTS[PATCH_PARENTS[initial]]}, then patches" if initial in PATCH_PARENTS else WEIGHTS[initial]
    shown = backbone if comparison.question == CBAM else network
    of = profile.name if protocol == OFFICIAL else f"{profile.name}, {protocol}"
    return {
        "arm": f"{SETS[stage]}, {by_way}" if comparison.question == CBAM else f"{by_way}; minus {WEIGHTS[other]} alone",
        "line": f"{ROW_LABELS[shown]}, {profile.size(stage)} pixels ({of})",
        "profile": profile.name,
        "protocol": protocol,
    }


def _above_chance(frame: pd.DataFrame, profile: Profile) -> bool:
    from mammo_lib.evaluation import statistics

    test = frame[frame["part"] == "test"]
    label, probability, fold, patients = (test[name] for name in ("label", "probability", "fold", "patient_id"))
    confidence = profile.evaluation.confidence
    try:
        return statistics.delong_interval(label, probability, confidence, fold, patients).low > 0.5
    except statistics.Undefined:  # the same score for every case
        return False


def _trainings(experiment: Experiment, key: "Key", seed: int) -> tuple[str, ...]:
    """What tells the trainings of all folds from every other: their records, which go along when a folder is copied."""
    stage, network, initial = key
    records = (experiment.published / stage / network / initial).glob(f"fold*-seed{seed}/{RECORD}")
    return tuple(record.read_text(encoding="utf-8") for record in sorted(records))


def _splits(profile: Profile, trained: "Mapping[str, Mapping[int, Results]]") -> Iterator[dict[str, Any]]:
    """What the random split of the text adds to a split by patient, of the cases that both tested.

    Every seed of one with every seed of the other: none of them has more to do with one than with another. What is not
    random, our probe, is there once.
    """
    from mammo_lib.evaluation import comparisons, protocols

    setting = setting_of(Experiment(profile, LOOSE, seed=0))
    pairs = [(name, *pair) for name in (STRICT, OFFICIAL) for pair in product(trained[LOOSE], trained[name])]
    for strict, loose_seed, seed in pairs:
        results = {LOOSE: trained[LOOSE][loose_seed], strict: trained[strict][seed]}
        keys = {(key[0], ROW_LABELS[key[1]], INITIAL_LABELS[key[2]]): key for key in results[LOOSE]}
        for row in protocols.protocols(results, setting).frame.to_dict("records"):
            again = row["network"] == EXTRA_LABELS[PROBE] and (loose_seed, seed) != (0, 0)
            if again or pd.isna(row["shared_difference"]):
                continue
            key = keys[row["stage"], row["network"], row["initial"]]
            # our own rows read a patch as a window of set G
            size = profile.size("G" if row["network"] in EXTRA_LABELS.values() else row["stage"])
            named = f"{row['network']} ({row['initial']}), "
            yield {
                "question": comparisons.SPLIT,
                "arm": f"{SETS[row['stage']]}, minus {strict}",
                "line": f"{row['network']}, {size} pixels ({profile.name})",
                "stage": row["stage"],
                "profile": profile.name,
                "first": f"{named}{LOOSE}, seed {loose_seed}",
                "second": named + strict,
                "seed": seed,
                "cases": row["shared_cases"],
                "patients": row["shared_patients"],
                "difference": row["shared_difference"],
                "low": row["shared_difference_low"],
                "high": row["shared_difference_high"],
                "above_chance": sum(_above_chance(found[key], profile) for found in results.values()),
            }


def _sizes(official: "Sequence[tuple[Profile, Mapping[int, Results]]]") -> Iterator[dict[str, Any]]:
    """What a smaller whole mammogram costs our probe: the largest size of a source minus each smaller one.

    The probe, as its settings are the same at every size and nothing in it is random; patches would differ in their
    number, too.
    """
    from mammo_lib.evaluation import comparisons
    from mammo_lib.evaluation.predictions import align
    from mammo_lib.evaluation.tables import UNIT_OF

    probe = "G", PROBE, EXTRA_INITIAL
    found: dict[str, dict[int, tuple[Experiment, pd.DataFrame]]] = {}
    for profile, trained in official:
        cases = trained.get(0, {}).get(probe)
        if cases is not None:
            of_source = found.setdefault(profile.source, {})
            of_source.setdefault(profile.size("G"), (Experiment(profile, OFFICIAL, seed=0), cases))
    for of_source in found.values():
        largest, *smaller = sorted(of_source, reverse=True)
        experiment, best = of_source[largest]
        setting = setting_of(experiment)
        for size in smaller:
            other, frame = of_source[size]
            pair = [comparisons.tested(cases, UNIT_OF["G"]) for cases in (best, frame)]
            yield comparisons.compare(align(*pair), setting) | {
                "question": comparisons.SIZE,
                "arm": f"{SETS['G']}, {EXTRA_LABELS[PROBE]}",
                "line": f"{largest} minus {size} pixels ({other.profile.name})",
                "stage": "G",
                "profile": other.profile.name,
                "protocol": OFFICIAL,
                "first": f"{largest} pixels ({experiment.profile.name})",
                "second": f"{size} pixels ({other.profile.name})",
                "seed": 0,
                "above_chance": sum(_above_chance(cases, experiment.profile) for cases in (best, frame)),
            }


def _lengths(official: "Sequence[tuple[Profile, Mapping[int, Results]]]") -> Iterator[dict[str, Any]]:
    """What more epochs make of CBAM's gain and of the patches', with each seed that both lengths have, and on average.

    Of stages that the two profiles train at the same size; one without a shorter profile among these has none.
    """
    from mammo_lib.evaluation import comparisons

    by_name = {profile.name: (profile, trained) for profile, trained in official}
    for profile, longer in official:
        before, shorter = by_name.get(profile.shorter, (profile, {}))
        for comparison in comparisons.planned(profile):
            keys, stage = {comparison.first, comparison.second}, comparison.first[0]
            seeds = [seed for seed in longer if keys <= set(longer[seed]) & set(shorter.get(seed, {}))]
            if not seeds or profile.size(stage) != before.size(stage):
                continue
            setting = setting_of(Experiment(profile, OFFICIAL, seed=0))
            gain = f"{comparisons.name_of(comparison.first)} minus {comparisons.name_of(comparison.second)}"
            names = _named(comparison, profile) | {
                "question": comparisons.LENGTH,
                "arm": f"{comparison.question}, {SETS[stage]}, minus {before.name}",
                "stage": stage,
                "first": f"{gain}, {profile.name}",
                "second": f"{gain}, {before.name}",
            }
            for seed in (*seeds, None) if len(seeds) > 1 else seeds:
                some = seeds if seed is None else [seed]
                now, then = ([trained[seed] for seed in some] for trained in (longer, shorter))
                least = min(sum(_above_chance(found[key], profile) for key in keys) for found in (*now, *then))
                row = comparisons.change(comparison, now, then, setting)
                yield names | row | {"seed": seed, "above_chance": least}


def _printed() -> Iterator[dict[str, Any]]:
    """The differences of the paper's own rows."""
    from mammo_lib.evaluation.comparisons import AS_PRINTED, PAPERS, name_of, planned

    paper = get_profile("paper")
    auc = {(row.stage, row.network, row.initial): row.auc for row in PUBLISHED}
    for comparison in planned(paper):
        if comparison.family == PAPERS:
            first, second = auc[comparison.first], auc[comparison.second]
            yield _named(comparison, paper) | {
                "question": comparison.question,
                "line": f"the paper, {paper.size(comparison.first[0])} pixels",
                "stage": comparison.first[0],
                "profile": AS_PRINTED,
                "protocol": "",  # which one, notebook 06 asks
                "first": name_of(comparison.first),
                "second": name_of(comparison.second),
                "auc_first": first,
                "auc_second": second,
                "difference": round(first - second, 4),  # as many digits as are printed
            }
