"""Every comparison of two trained networks on CBIS-DDSM, of every profile that has results, beside what was printed.

Reads stored predictions and tables: no image, no network, no torch. Nothing is chosen: what was compared is shown.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import EXTRA_LABELS, INITIAL_LABELS, PROFILES, PUBLISHED, ROW_LABELS, Profile, get_profile
from mammo_lib.stages.comparison import predictions, setting_of, trained_seeds
from mammo_lib.stages.experiment import Experiment

if TYPE_CHECKING:
    from mammo_lib.evaluation.comparisons import Comparison

PRINTED = "printed"  # in place of a profile
SPLIT = "random split"
SAME_PATIENTS = ("cbis_ddsm", "reduced")  # sources with the same official test patients
LOOSE, STRICT = "as_written", "grouped_cv"
COUNTS = ("pixels", "seed", "cases", "patients", "learnt")
NAMES = ("question", "stage", "profile", "pixels", "network", "initial", "other", "seed", "cases", "patients")
MEAN = ("mean_difference", "mean_low", "mean_high", "sd_seeds")
COLUMNS = (*NAMES, "auc_first", "auc_second", "difference", "low", "high", "learnt", *MEAN)


def overview(experiment: Experiment) -> pd.DataFrame:
    """The comparisons (`compared`) on CBIS-DDSM, written to results/overview.csv and drawn; the same for every profile
    and seed."""
    from mammo_lib.evaluation import figures, figures_overview

    frame = compared([profile for profile in PROFILES.values() if profile.source in SAME_PATIENTS])
    root = experiment.places.root
    paths.write_table(frame, root / "results" / "overview.csv")
    data = "CBIS-DDSM; how large and how long each profile trains is in config.py, and printed numbers are the paper's"
    figures.save(figures_overview.overview(frame, data), root / "figures", "overview")
    return frame


def compared(profiles: Sequence[Profile]) -> pd.DataFrame:
    """One row a comparison and training seed, first minus second, of the official test patients: `question, stage,
    profile, pixels, network, initial, other, seed, cases, patients, auc_first, auc_second, difference, low, high,
    learnt, mean_difference, mean_low, mean_high, sd_seeds`.

    `other` is what differs in the second; `learnt` how many of the two are above chance, the interval of their AUC over
    patients (Obuchowski 1997) being above a half; mean and standard deviation are over a profile's seeds. What was
    printed has neither seed nor interval; a split's difference is that of the cases which both splits tested. A
    training that lies in two profiles is shown with the first. FileNotFoundError when no profile has results.
    """
    ours = [row for profile in profiles for row in (*_asked(profile), *_splits(profile))]
    if not ours:
        results = paths.repository() / "results"
        raise FileNotFoundError(f"{results}: no profile on CBIS-DDSM has predictions: train and evaluate one")
    frame = pd.DataFrame([*_printed(), *ours]).reindex(columns=list(COLUMNS))
    copies = ["question", "stage", "network", "initial", "other", "seed", "auc_first", "auc_second", "difference"]
    return frame.drop_duplicates(copies, ignore_index=True).astype(dict.fromkeys(COUNTS, "Int64"))


def _asked(profile: Profile) -> Iterator[dict[str, Any]]:
    """What CBAM and the patches make of a profile's trainings, for every seed that can tell."""
    from mammo_lib.evaluation import comparisons

    experiment = Experiment(profile, "official", seed=0)
    results = {other.seed: predictions(other) for other in trained_seeds(experiment)}
    planned = {_key(comparison): comparison for comparison in comparisons.planned(profile)}
    for row in comparisons.over_seeds(results, setting_of(experiment), least=1).frame.to_dict("records"):
        comparison = planned.get((row["question"], row["stage"], row["first"], row["second"]))
        if comparison:
            found = results[row["seed"]]
            learnt = sum(_above_chance(found[key]) for key in (comparison.first, comparison.second))
            yield {**row, **_named(comparison, profile), "learnt": learnt}  # type: ignore[dict-item]


def _key(comparison: "Comparison") -> tuple[str, str, str, str]:
    """As rows of comparisons name it."""
    from mammo_lib.evaluation.comparisons import name_of

    return comparison.question, comparison.first[0], name_of(comparison.first), name_of(comparison.second)


def _named(comparison: "Comparison", profile: Profile) -> dict[str, Any]:
    """The columns that say what was compared."""
    stage, network, initial = comparison.first
    _, backbone, other = comparison.second
    return {
        "question": comparison.question,
        "stage": stage,
        "profile": profile.name,
        "pixels": profile.size(stage),
        "network": ROW_LABELS[network],
        "initial": INITIAL_LABELS[initial],
        "other": ROW_LABELS[backbone] if backbone != network else INITIAL_LABELS[other],
    }


def _above_chance(frame: pd.DataFrame) -> bool:
    from mammo_lib.evaluation import statistics

    test = frame[frame["part"] == "test"]
    label, probability, fold, patients = (test[name] for name in ("label", "probability", "fold", "patient_id"))
    try:
        return statistics.delong_interval(label, probability, fold=fold, patients=patients).low > 0.5
    except statistics.Undefined:  # the same score for every case
        return False


def _splits(profile: Profile) -> Iterator[dict[str, Any]]:
    """What the random split of the text adds to the split by patient, of the cases that both tested."""
    path = Experiment(profile, "official", seed=0).results / "protocols.csv"
    if not path.exists():
        return
    table = pd.read_csv(path)
    asked = (table["first"] == LOOSE) & (table["second"] == STRICT) & table["shared_difference"].notna()
    for row in table[asked].to_dict("records"):
        yield {
            "question": SPLIT,
            "stage": row["stage"],
            "profile": profile.name,
            "pixels": profile.size(
                "G" if row["network"] in EXTRA_LABELS.values() else row["stage"]
            ),  # read windows of G
            "network": row["network"],
            "initial": row["initial"],
            "other": STRICT,
            "cases": row["shared_cases"],
            "patients": row["shared_patients"],
            "difference": row["shared_difference"],
            "low": row["shared_difference_low"],
            "high": row["shared_difference_high"],
        }


def _printed() -> Iterator[dict[str, Any]]:
    """The differences of the paper's own rows."""
    from mammo_lib.evaluation.comparisons import PAPERS, planned

    paper = get_profile("paper")
    auc = {(row.stage, row.network, row.initial): row.auc for row in PUBLISHED}
    for comparison in planned(paper):
        if comparison.family == PAPERS:
            first, second = auc[comparison.first], auc[comparison.second]
            found = {"auc_first": first, "auc_second": second, "difference": first - second}
            yield _named(comparison, paper) | {"profile": PRINTED} | found
