"""What a run can say of itself for a reporting checklist: sentences by name, made from its settings and its records.

A fact whose record is not there is blank, and the checklist's item stays open. What holds for a source of data (how it
was acquired, what its labels are) stands in sources.py.
"""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mammo_lib.config import (
    CBAM_SUFFIX,
    EXTRA_LABELS,
    INITIAL_LABELS,
    MASS_MAP,
    NETWORK_LABELS,
    PARTS,
    Profile,
    Training,
)
from mammo_lib.data.cases import set_aside
from mammo_lib.stages import sources
from mammo_lib.stages.archive import MASSES, PROBLEMS
from mammo_lib.stages.experiment import Experiment, read_table
from mammo_lib.stages.explanation import is_measured

if TYPE_CHECKING:
    from mammo_lib.evaluation.export import Table

OF_PATIENTS = (
    "Intervals are over patients: they know nothing of what another training seed would give, and are not corrected "
    "for how many there are."
)


def facts(experiment: Experiment, made: "dict[str, Table]") -> dict[str, str]:
    """Name -> sentence, for `evaluation.checklist.fill`; `made` are the tables that `evaluate` returns."""
    return (
        sources.of(experiment.profile).facts
        | _method(experiment)
        | _models(experiment, made)
        | _records(experiment)
        | _results(experiment, made)
    )


def _method(experiment: Experiment) -> dict[str, str]:
    """What the settings say."""
    from mammo_lib.evaluation.statistics import NOTED

    profile, rule = experiment.profile, experiment.profile.evaluation
    patches, whole = profile.patches, profile.globals
    lesions = "Masses, distortions and asymmetries" if profile.asymmetries else "Masses only, as in the paper"
    return {
        "method": "Deep learning: convolutional networks"
        + (
            " with an attention module (CBAM)." if any(name.endswith(CBAM_SUFFIX) for name in profile.networks) else "."
        ),
        "aim": "Aim: to reproduce Xu et al. 2021, networks with and without CBAM, with and without transfer.",
        "data": f"{profile.data}.",
        "eligibility": "Every mass whose image can be read and whose place is known.",
        "selection_of_data": f"{lesions}; no other selection.",
        "preprocessing": f"P: {patches.centres} windows a mass, {patches.context:g} times its longer side, "
        f"{patches.size} x {patches.size} pixels. G: the breast without background, {whole.size} x {whole.size}. "
        "8 bits, grey in three channels, normalised.",
        "predictors": "The pixels of one mammogram, nothing else.",
        "protocol": f"Protocol {experiment.protocol}: "
        f"{sources.protocol_in_words(experiment.profile, experiment.protocol)}.",
        "measures": "Sensitivity, specificity, accuracy, AUC; average precision, Brier score, calibration.",
        "uncertainty": f"{rule.confidence:.0%} intervals from {rule.resamples} bootstrap resamples of patients, "
        "DeLong's beside them, by case and by patient; paired differences, Holm's correction.",
        "clusters": "Cases of a patient are resampled together; a resample of one class is left out, which tables tell "
        f"from a share of {NOTED:g} on; centres are not recorded.",
        "threshold": f"A probability of malignancy; malignant at {rule.threshold:g} or more (ours: the paper states "
        "none), and at Youden's threshold chosen on validation cases.",
        "external_test": "None in this run.",
        "bad_input": "A file that cannot be read and an image without a breast are set aside with the reason.",
        "detail": "config.py holds every setting with its section; run.json of each cell what it was trained with.",
    }


def _models(experiment: Experiment, made: "dict[str, Table]") -> dict[str, str]:
    """What was trained, and how its scores came about, as far as the tables have results of it."""
    profile, frames = experiment.profile, {"P": made["table1"].frame, "G": made["table2"].frame}
    known = {stage: frame[frame["auc"].notna()] for stage, frame in frames.items()}
    rows = pd.concat(known.values())
    names = [name for name in profile.networks if NETWORK_LABELS[name] in set(rows["network"])]
    trained = [NETWORK_LABELS[name] for name in names]
    mapped = EXTRA_LABELS[MASS_MAP] in set(rows["network"])
    found = {
        "ensemble": "The mass map's reading of an image and the linear probe's, by a regression fitted on validation "
        "cases; all else is of one network."
        if mapped
        else "None: every result is of one network.",
        "imbalance": "Not treated: classes are as they come, and nothing is recalibrated"
        + (" but by the mass map's regression on validation cases." if mapped else "."),
    }
    starts = rows[rows["network"].isin(trained)].groupby("network")["initial"].nunique()
    checked = {
        "other initial weights": (starts > 1).any(),
        "networks without CBAM": len({name.endswith(CBAM_SUFFIX) for name in names}) > 1,
        "baselines without a network": (rows["block"] == "baseline").any(),
        "other protocols": "protocols" in made,
    }
    if any(checked.values()):
        found["robustness"] = "Also: " + ", ".join(name for name, there in checked.items() if there) + "."
    if not trained:
        return found
    initial = {
        stage: ", ".join(label for label in INITIAL_LABELS.values() if label in set(table["initial"])) or "nothing"
        for stage, table in ((stage, table[table["network"].isin(trained)]) for stage, table in known.items())
    }
    cbam = ""
    if any(name.endswith(CBAM_SUFFIX) for name in names):
        normalised = ", spatial gate batch-normalised" if profile.cbam.normalised else ""
        cbam = (
            f"; where named, one CBAM behind the last feature layer (reduction {profile.cbam.reduction}, kernel "
            f"{profile.cbam.spatial_kernel}{normalised})"
        )
    return found | {
        "model": f"{', '.join(trained)}{cbam}.",
        "initialisation": f"P: {initial['P']}. G: {initial['G']}.",
        "training": f"P: {_words(profile.patch_training)}. G: {_words(profile.global_training)}"
        f"{_before(profile)}. Flips, rotation, zoom and shear at random; seed {experiment.seed}.",
        "final_model": "The epoch of best validation accuracy, ties by loss.",
        "predictions": "Softmax of the two scores of best.pt, in evaluation mode; stored in predictions.csv.",
    }


def _words(training: Training) -> str:
    return (
        f"{training.optimiser}, learning rate {training.learning_rate:g}, batch {training.batch_size}, at most "
        f"{training.max_epochs} epochs"
    )


def _before(profile: Profile) -> str:
    """What goes before stage G, if anything does."""
    if profile.warm_up is None or "imagenet" not in profile.global_initial:
        return ""
    return f" (from {INITIAL_LABELS['imagenet']}, first with the trunk frozen: {_words(profile.warm_up)})"


def _records(experiment: Experiment) -> dict[str, str]:
    """What the files of the run say of its data and its machine."""
    from mammo_lib.training.records import commit

    results = experiment.results
    version = importlib.metadata.version("mammo-cbam")
    code = (
        f"Code: MIT licence, version {version}; commit {commit() or 'unknown'} made this page and the tables of "
        "scores, run.json names that of each training."
    )
    found = {"availability": f"{code} Trained networks: best.pt of each cell, kept by who trained it."}
    if (results / MASSES).exists():
        found |= _parts(read_table(results / MASSES))
    if (results / "leakage.csv").exists():
        leaks = pd.read_csv(results / "leakage.csv").query("relation == 'same patient' and seen_in == 'train'")
        shares = [f"{row.stage}: {row.with_relative} of {row.test_cases}" for row in leaks.itertuples()]
        found["leakage"] = f"Test cases whose patient is in training: {'; '.join(shares)}."
    if (results / "integrity.csv").exists():
        found["checks"] = _checks(pd.read_csv(results / "integrity.csv", dtype=str, keep_default_na=False))
    if (results / PROBLEMS).exists():
        found["missing"] = _set_aside(results / PROBLEMS)
        if "flow" in found:
            found["flow"] += f" {found['missing']}"
    if (results / "environment.csv").exists():
        machine = pd.read_csv(results / "environment.csv").set_index("what")["value"]
        versions = machine.loc["Python":]  # type: ignore[misc]  # the rows from there on
        found["software"] = ", ".join(f"{what} {value}" for what, value in versions.items()) + "."
    return found


def _checks(checks: pd.DataFrame) -> str:
    """How many there are, and by name those that are not as expected; all of it text, as in the file: what was found
    may be that it was not looked for."""
    others = checks[~checks["verdict"].isin(["as expected", "noted"])]
    named = [f"{row.name} ({row.expected}, found {row.found})" for row in others.itertuples()]
    fine = f"Named checks of the archive: {len(checks)}; as expected or only noted: {len(checks) - len(others)}."
    return f"{fine} Not: {'; '.join(named)}." if named else fine


def _set_aside(path: Path) -> str:
    problems = read_table(path)
    noted = int(problems["stage"].isin(["note", "scan"]).sum())
    return f"Set aside with the reason: {set_aside(problems)}; repaired or noted: {noted}. Nothing is imputed."


def _parts(masses: pd.DataFrame) -> dict[str, str]:
    """Counts of each part (of fold 0), and of the whole."""
    first = masses[masses["fold"] == 0]
    counted = {part: _count(first[first["part"] == part]) for part in PARTS}
    test, folds = first[first["part"] == "test"], masses["fold"].nunique()
    fold = f"Fold 0 of {folds}, " if folds > 1 else "Cases, "
    return {
        "flow": f"Used: {_count(first)}.",
        "parts": fold + "; ".join(f"{part}: {count}" for part, count in counted.items()) + ".",
        "internal_test": f"On test cases of the same source: {counted['test']}; malignant share of masses "
        f"{test['label'].mean():.2f}.",
    }


def _count(masses: pd.DataFrame) -> str:
    numbers = {
        "patients": masses["patient_id"].nunique(),
        "images": masses["image_id"].nunique(),
        "masses": len(masses),
    }
    listed = ", ".join(f"{count} {name}" for name, count in numbers.items())
    return f"{listed} ({int(masses['label'].sum())} malignant)"


def _results(experiment: Experiment, made: "dict[str, Table]") -> dict[str, str]:
    """What the tables say of the main network on whole mammograms."""
    network, initial = experiment.main_in_words
    name = f"{network} from {initial}"
    table, spread = made["table2"], made["spread_G"].frame
    chosen = (table.frame["network"] == network) & (table.frame["initial"] == initial)
    found = {}
    if table.frame.loc[chosen, "auc"].notna().any():
        shown = table.shown[chosen].iloc[0]
        values = [f"{metric} {shown[metric, 'Ours']}" for metric in ("Sensitivity", "Specificity", "Accuracy", "AUC")]
        found["performance"] = f"{name}, {shown['', 'Cases']} images: {', '.join(values)}; all others in the tables."
        runs = spread[(spread["network"] == network) & (spread["initial"] == initial)].iloc[0]
        if runs["runs"] > 1:
            found["spread"] = (
                f"AUC of the {runs['runs']} trainings of {name} ({runs['folds']} fold(s), {runs['seeds']} seed(s)): "
                f"mean {runs['mean']:.3f}, {runs['least']:.3f} to {runs['most']:.3f}; centres are not recorded."
            )
    if is_measured(experiment):
        found["explanation"] = "Grad-CAM of every test image, measured against the lesion beside controls."
        told = "Shown as heat maps and measured" if (experiment.figures / "fig7_gradcam.png").exists() else "Measured"
        found["failures"] = f"{told} by group; why they fail is for a person to say."
    return found


def answers(experiment: Experiment, made: "dict[str, Table]") -> list[str]:
    """What the tables of differences say, a sentence a question; none of a question that nothing could answer.

    Nor of the radiologist under as_written, whose test patients the networks were also trained on.
    """
    from mammo_lib.evaluation.comparisons import QUESTIONS

    asked = made["questions"].frame
    known = [(told, asked[asked["question"] == question]) for question, told in QUESTIONS.items()]
    birads = [made[name].frame for name in ("birads_P", "birads_G") if name in made]
    if birads and experiment.protocol != "as_written":
        rows = pd.concat(birads)
        rows = rows.assign(first=rows["network"] + " (" + rows["initial"] + ")", second="the radiologist's grade")
        told = "As good as the radiologist's BI-RADS grade? (What may favour either is below its table.)"
        known.append((told, rows))
    answered = [(told, rows[rows["difference"].notna()]) for told, rows in known]
    found = [f"{told} {_differences(rows)}" for told, rows in answered if len(rows)]
    if not found:
        return []
    seeds = f"Seed {experiment.seed}" + ("; other seeds are in a table below." if "questions_seeds" in made else ".")
    return [*found, f"{seeds} {OF_PATIENTS}"]


def _differences(rows: pd.DataFrame) -> str:
    """The one difference in AUC, or the least and the most of several and how many have an interval without 0."""
    from mammo_lib.evaluation.export import SIGNED, with_interval

    ordered = rows.sort_values("difference", ignore_index=True)
    value = with_interval(ordered["difference"], ordered["low"], ordered["high"], SIGNED).str.replace("-", "−")
    named = ordered["first"] + " minus " + ordered["second"] + ", by " + ordered["unit"] + ": " + value
    if len(ordered) == 1:
        return f"Difference in AUC, {named[0]}."
    above, below = int((ordered["low"] > 0).sum()), int((ordered["high"] < 0).sum())
    return (
        f"{len(ordered)} differences in AUC, {above} with an interval above 0, {below} below. "
        f"Least: {named.iloc[0]}. Most: {named.iloc[-1]}."
    )
