"""Predictions -> the paper's tables beside the printed ones, baselines, paired questions, curves.

Reads results/<profile>/<protocol>/ alone: no image, no network, no torch.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import EXTRA_INITIAL, EXTRA_LABELS, INITIAL_LABELS, MASS_MAP, NO_CALLBACK, PROBE, PROTOCOLS
from mammo_lib.stages.archive import MASSES, expected
from mammo_lib.stages.experiment import Experiment, extra_file, extra_folder, read_table
from mammo_lib.stages.trainings import PREDICTIONS, RECORD, cells, made_otherwise, outcomes
from mammo_lib.training.experiments import DIVERGED, NOT_AVAILABLE

if TYPE_CHECKING:
    from mammo_lib.evaluation.export import Table
    from mammo_lib.evaluation.figures_curves import Curve
    from mammo_lib.evaluation.scores import Runs
    from mammo_lib.evaluation.tables import Results, Setting


def predictions(experiment: Experiment) -> "Results":
    """(stage, network, initial) -> checked predictions, folds below one another; keys with every fold done only.

    Column `fold` keeps the folds apart: the validation cases of one are test cases of another, and the scores of two
    networks have no common scale.
    """
    return _whole(experiment, _runs(experiment))


def _whole(experiment: Experiment, runs: "Runs") -> "Results":
    frames: dict[tuple[str, str, str], list[pd.DataFrame]] = {}
    for (stage, network, initial, _, _), frame in runs.items():
        frames.setdefault((stage, network, initial), []).append(frame)
    folds = len({cell.fold for cell in cells(experiment)})
    return {key: pd.concat(found, ignore_index=True) for key, found in frames.items() if len(found) == folds}


def _runs(experiment: Experiment) -> "Runs":
    """(stage, network, initial, fold, seed) -> checked predictions of one cell, for every cell that is done."""
    from mammo_lib.evaluation.predictions import read

    wanted = {stage: expected(experiment, stage) for stage in experiment.profile.main_initial}
    runs = {}
    for key, path in _predicted(experiment).items():
        cases = wanted[key[0]]
        cases = cases[cases["fold"] == key[3]]
        kept = cases[["fold", "side"]].reset_index(drop=True)
        runs[key] = read(path, cases).join(kept)  # in the order of `cases`
    if not runs:
        raise FileNotFoundError(
            f"{experiment.published}: no cell of seed {experiment.seed} is finished: train some first"
        )
    return runs


def _predicted(experiment: Experiment) -> dict[tuple[str, str, str, int, int], Path]:
    """(stage, network, initial, fold, seed) -> predictions of the cells that are done, and of our own rows.

    Not of cells that were trained with other settings than the profile has now: `setting_of` says so.
    """
    matrix, folder = cells(experiment), experiment.published
    files = {
        (c.stage, c.network, c.initial, c.fold, c.seed): folder / c.name / PREDICTIONS
        for c in matrix
        if not made_otherwise(experiment, c, folder)
    }
    for row, stage, fold in product(EXTRA_LABELS, experiment.profile.main_initial, {cell.fold for cell in matrix}):
        seed = 0 if row == PROBE else experiment.seed  # nothing is random in the probe
        if not _extra_otherwise(experiment, row, fold):
            files[stage, row, EXTRA_INITIAL, fold, seed] = extra_file(experiment, row, stage, fold)
    return {key: path for key, path in files.items() if path.exists()}


def _extra_otherwise(experiment: Experiment, row: str, fold: int) -> str:
    """In what the record of one of our own rows differs from the profile as it is now; "" where in nothing, or none."""
    record = extra_folder(experiment, row) / (RECORD if row == PROBE else f"fold{fold}/{RECORD}")
    if not record.exists():
        return ""
    found = paths.read_json(record)["settings"].get(row, {})
    wanted = paths.plain({PROBE: experiment.profile.probe, MASS_MAP: experiment.profile.mass_map}[row])
    return "; ".join(paths.differences(found, wanted)[:3])


def trained_seeds(experiment: Experiment) -> list[Experiment]:
    """The experiment with every training seed that has results: data and splits are the same for all."""
    trained = [path.parent.name for path in experiment.published.glob(f"*/*/*/fold*-seed*/{PREDICTIONS}")]
    mapped = [path.name for path in experiment.results.glob(f"{MASS_MAP}/seed*")]
    seeds = sorted({experiment.seed} | {int(name.rpartition("seed")[2]) for name in trained + mapped})
    others = [replace(experiment, seed=seed) for seed in seeds]
    return [other for other in others if _any_run(other)]


def evaluate(experiment: Experiment) -> "dict[str, Table]":
    """Tables 1 and 2 with baselines, further scores, units, kinds of interval, spread, and the paired questions.

    Each is written as CSV, LaTeX and HTML to results/. The table of protocols is made when more than one has results.
    """
    from mammo_lib.evaluation import added, comparisons, radiologist, scores, tables

    read = {experiment.seed: _runs(experiment)}  # first, or its absence would not be told
    read |= {other.seed: _runs(other) for other in trained_seeds(experiment) if other.seed != experiment.seed}
    of_seeds = {seed: _whole(experiment, read[seed]) for seed in sorted(read)}
    every_seed = {key: run for seed in of_seeds for key, run in read[seed].items()}
    results, setting = of_seeds[experiment.seed], setting_of(experiment)
    made = _asked(experiment, results, setting) | {"cited": tables.cited()}
    if len(of_seeds) > 1:
        made["questions_seeds"] = comparisons.over_seeds(of_seeds, setting)
    for number, stage in enumerate(experiment.profile.main_initial, start=1):
        baselines = _baselines(experiment, stage)
        level = baselines.pop("zero_as_four", None)
        made[f"table{number}"] = tables.published(stage, results, setting, baselines)
        if "birads" in baselines:
            made[f"birads_{stage}"] = radiologist.against_birads(
                stage, results, setting, baselines["birads"], _not_called_back(experiment), level
            )
        if readings := _readings(experiment, stage):
            made[f"added_{stage}"] = added.added(stage, results, setting, readings)
        made[f"scores_{stage}"] = scores.scores(stage, results, setting)
        made[f"operating_points_{stage}"] = scores.operating_points(stage, results, setting)
        made[f"units_{stage}"] = scores.by_unit(stage, results, setting)
        made[f"intervals_{stage}"] = scores.intervals(stage, results, setting)
        made[f"spread_{stage}"] = scores.spread(stage, every_seed, setting)
    passing = {"protocols", "questions_seeds", *(f"{name}_{stage}" for name in ("birads", "added") for stage in "PG")}
    _write(experiment, made, passing)
    return made


def compare(experiment: Experiment) -> None:
    """Of the tables of `evaluate` those that figures are drawn from: the paired questions, and the protocols."""
    _write(experiment, _asked(experiment, predictions(experiment), setting_of(experiment)), {"protocols"})


def _asked(experiment: Experiment, results: "Results", setting: "Setting") -> "dict[str, Table]":
    from mammo_lib.evaluation import comparisons, protocols

    others = {name: replace(experiment, protocol=name) for name in PROTOCOLS}
    finished = {
        name: results if name == experiment.protocol else predictions(other)
        for name, other in others.items()
        if _any_run(other)
    }
    made = {"questions": comparisons.questions(results, setting)}
    return made | {"protocols": protocols.protocols(finished, setting)} if len(finished) > 1 else made


def _write(experiment: Experiment, made: "dict[str, Table]", passing: set[str]) -> None:
    """Write every table as CSV, LaTeX and HTML; of `passing`, remove what is not made any more."""
    from mammo_lib.evaluation import export

    for name in passing - set(made):
        for path in experiment.results.glob(f"{name}.*"):
            path.unlink()
    for name, table in made.items():
        paths.write_table(table.frame, experiment.results / f"{name}.csv")
        paths.write_text(experiment.results / f"{name}.tex", export.to_latex(table, f"tab:{name}"))
        paths.write_text(experiment.results / f"{name}.html", export.to_html(table))


def _any_run(experiment: Experiment) -> bool:
    """Whether results/ has predictions of this protocol and seed."""
    return bool(_predicted(experiment))


def setting_of(experiment: Experiment) -> "Setting":
    """How the tables are counted, with the reason for every cell that has no predictions."""
    from mammo_lib.evaluation.tables import Setting

    tried = outcomes(experiment)
    reasons: dict[tuple[str, str, str], str] = {}
    for cell in cells(experiment):
        row, key = tried[tried["cell"] == cell.name], (cell.stage, cell.network, cell.initial)
        otherwise = made_otherwise(experiment, cell, experiment.published)
        if otherwise:
            reasons[key] = f"trained with other settings ({otherwise})"
        elif row.empty:
            reasons.setdefault(key, f"fold {cell.fold} not run" if cell.fold else "not run")
        elif row["state"].item() == NOT_AVAILABLE:
            reasons[key] = "weights not available"
        elif row["state"].item() in ("failed", "not run", DIVERGED):
            said = row["message"].item().partition(" (")[0].partition(";")[0]  # the rest is in outcomes.csv
            reasons[key] = f"{row['state'].item()}: {said}"
    extra = tuple(row for row in EXTRA_LABELS if extra_file(experiment, row, "P").exists())
    for ours, fold, stage in product(extra, {cell.fold for cell in cells(experiment)}, experiment.profile.main_initial):
        if otherwise := _extra_otherwise(experiment, ours, fold):
            reasons[stage, ours, EXTRA_INITIAL] = f"made with other settings ({otherwise})"
    return Setting(experiment.profile, experiment.protocol, seed=experiment.seed, reasons=reasons, extra=extra)


def _masses(experiment: Experiment, stage: str) -> pd.DataFrame:
    """The masses with their part in a stage: that of their image in G, and of their patches in P.

    Only as_written draws P apart from G. There a mass is tested on when any of its patches is.
    """
    masses = read_table(experiment.results / MASSES)
    if (stage, experiment.protocol) != ("P", "as_written"):
        return masses
    tested = expected(experiment, "P").query("part == 'test'")["mass_id"]
    return masses.assign(part=masses["mass_id"].isin(tested).map({True: "test", False: "train"}))


def _baselines(experiment: Experiment, stage: str) -> dict[str, pd.DataFrame]:
    """What can be said of the test masses without a network; each fold's baselines are fitted on its own training part.

    Left out: the BI-RADS assessment where the source has none, and the regression under as_written, whose training and
    test part share patients.
    """
    from mammo_lib.evaluation import baselines

    masses = _masses(experiment, stage)
    folds = [
        {part: rows.drop(columns="part") for part, rows in fold.groupby("part")} for _, fold in masses.groupby("fold")
    ]
    made = {"prevalence": [baselines.prevalence(fold["train"], fold["test"]) for fold in folds]}
    if masses["assessment"].astype(str).ne("").any():
        made["birads"] = [baselines.birads(fold["test"]) for fold in folds]
        made["zero_as_four"] = [baselines.birads(fold["test"], baselines.ZERO_AS_FOUR) for fold in folds]
    if experiment.protocol != "as_written" and masses["margins"].ne("").any():
        made["descriptors"] = [baselines.descriptors(fold["train"], fold["test"]) for fold in folds]
    return {
        name: pd.concat([frame.assign(fold=fold) for fold, frame in enumerate(frames)], ignore_index=True)
        for name, frames in made.items()
    }


def _readings(experiment: Experiment, stage: str) -> dict[str, pd.DataFrame]:
    """What the radiologist said of the validation and test masses, as scores; {} where the archive has no assessment.

    None under as_written, whose validation and test part share patients.
    """
    from mammo_lib.evaluation import added, baselines

    masses = _masses(experiment, stage)
    if experiment.protocol == "as_written" or not masses["assessment"].astype(str).ne("").any():
        return {}
    made: dict[str, list[pd.DataFrame]] = {}
    for fold, part in product(masses["fold"].unique().tolist(), ("validation", "test")):
        of_fold = masses[masses["fold"] == fold]
        train, rows = (of_fold[of_fold["part"] == name].drop(columns="part") for name in ("train", part))
        read = {added.BIRADS: baselines.birads(rows)}
        if masses["margins"].ne("").any():
            read[added.READING] = baselines.descriptors(train, rows, baselines.READING)
        for name, frame in read.items():
            made.setdefault(name, []).append(frame.assign(fold=fold, part=part))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in made.items()}


def _not_called_back(experiment: Experiment) -> set[str]:
    """The masses whose truth is that the radiologist did not call the patient back."""
    masses = read_table(experiment.results / MASSES)
    return set(masses.loc[masses["pathology"] == NO_CALLBACK, "mass_id"])


def draw_evaluation(experiment: Experiment) -> list[Path]:
    """ROC curves, confusion matrices, calibration and forest plots, from stored predictions; files in figures/."""
    from mammo_lib.evaluation import figures, figures_curves

    results, written = predictions(experiment), []
    for stage, initial in experiment.profile.main_initial.items():
        shown = [key for key in results if key[0] == stage and (key[2] == initial or key[1] in EXTRA_LABELS)]
        curves = [_curve(experiment, key, results[key]) for key in shown]
        if not curves:
            continue
        data = experiment.sentence
        if not {key[1] for key in shown} <= set(EXTRA_LABELS):
            data += f"; networks started from: {INITIAL_LABELS[initial]}"
        threshold = experiment.profile.evaluation.threshold
        folds = results[shown[0]]["fold"].nunique()
        pooled = "; a curve pools the folds, its AUC counts pairs within a fold" if folds > 1 else ""
        drawn = {
            f"roc_{stage}": figures_curves.roc_curves(curves, data + pooled),
            f"calibration_{stage}": figures_curves.calibration([_with_errors(curve) for curve in curves], data),
            f"confusion_{stage}": figures_curves.confusion_matrices(curves, threshold, data),
        }
        for name, figure in drawn.items():
            written += figures.save(figure, experiment.figures, name)
    written += _draw_questions(experiment, experiment.sentence) + _draw_protocols(experiment)
    names = ("roc_?.*", "calibration_?.*", "confusion_?.*", "question_*", "protocols.*")
    for path in {path for name in names for path in experiment.figures.glob(name)} - set(written):
        path.unlink()  # of what is no longer there
    return written


def _curve(experiment: Experiment, key: tuple[str, str, str], frame: pd.DataFrame) -> "Curve":
    from mammo_lib.evaluation import roc, statistics
    from mammo_lib.evaluation.figures_curves import Curve

    test, rule = frame[frame["part"] == "test"], experiment.profile.evaluation
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    statistic = statistics.weighted_auc(label, probability, test["fold"])
    try:
        replicates = statistics.bootstrap(statistic, test["patient_id"], rule.resamples, experiment.seed)
    except statistics.Undefined as reason:
        return Curve(key[1], label, probability, str(reason))
    auc = statistics.percentile(replicates, rule.confidence)
    band = roc.band(label, probability, test["patient_id"], rule.resamples, rule.confidence, experiment.seed)
    interval = "" if auc.is_point else f" ({auc.low:.2f} to {auc.high:.2f})"  # as in the tables
    return Curve(key[1], label, probability, f"AUC {auc.estimate:.2f}{interval}", band)


def _with_errors(curve: "Curve") -> "Curve":
    """With its calibration error and Brier score beside its name, as in the tables, in place of the AUC."""
    from mammo_lib.evaluation import metrics

    error = metrics.calibration_error(curve.label, curve.probability)
    brier = float(((curve.probability - curve.label) ** 2).mean())
    return replace(curve, text=f"ECE {error:.2f}, Brier score {brier:.2f}")


def _draw_questions(experiment: Experiment, data: str) -> list[Path]:
    """One forest plot for each question that has an answer."""
    from mammo_lib.evaluation import figures, figures_curves

    table = pd.read_csv(experiment.results / "questions.csv")
    written = []
    for number, (question, rows) in enumerate(table.groupby("question", sort=False), start=1):
        if rows["difference"].isna().all():
            continue
        frame = rows.assign(label=rows["stage"] + ", " + rows["first"] + "\n− " + rows["second"], p=rows["p_holm"])
        figure = figures_curves.forest(frame, data, f"{question}: difference in AUC (p after Holm)")
        written += figures.save(figure, experiment.figures, f"question_{number}")
    return written


def _draw_protocols(experiment: Experiment) -> list[Path]:
    """The optimism of each protocol, for our own rows and the arm of each stage that figures show, where both ran."""
    from mammo_lib.evaluation import figures, figures_curves
    from mammo_lib.evaluation.tables import MISSING

    path = experiment.results / "protocols.csv"
    if not path.exists():
        return []
    table = pd.read_csv(path)
    table = table[~table["note"].astype("string").fillna("").str.endswith(MISSING)]
    main = table["initial"] == table["stage"].map(experiment.profile.main_initial).map(INITIAL_LABELS)
    table = table[main | (table["network"].isin(EXTRA_LABELS.values()))]
    if table.empty:
        return []
    frame = table.assign(
        label=table["stage"] + ", " + table["network"] + ": " + table["first"] + " − " + table["second"]
    )
    frame[["difference", "low", "high"]] *= 100
    data = f"{experiment.profile.data}; seed {experiment.seed}"
    if not table["network"].isin(EXTRA_LABELS.values()).all():
        starts = (f"{stage}: {INITIAL_LABELS[name]}" for stage, name in experiment.profile.main_initial.items())
        data += f"; networks started from: {'; '.join(starts)}"
    figure = figures_curves.forest(frame, data, "optimism: difference in AUC, AUC points (hundredths of 1)", decimals=1)
    return figures.save(figure, experiment.figures, "protocols")
