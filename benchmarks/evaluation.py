"""Time of the evaluation at the paper's size, from made-up predictions: intervals, DeLong, audit, figures, page.

    python benchmarks/evaluation.py [--rounds 3] [--resamples 20000] [--out results/benchmarks/evaluation_cpu.md]

The predictions are those of 18 cells on as many cases as the official CBIS-DDSM test set has: P 8 patches of each of
378 masses, G about as many images, 201 patients. The process keeps to one core. The best of the rounds counts: other
work on the machine only ever adds. A bar is the most that the project allows itself.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
import pandas as pd
import tables

from mammo_lib import config, stages
from mammo_lib.evaluation import statistics
from mammo_lib.stages import published

PATIENTS = {"validation": 138, "test": 201}
MASSES = {"validation": 264, "test": 378}
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def masses(part: str, rng: np.random.Generator) -> pd.DataFrame:
    """Masses of one part: every patient has one, some have more; two views of a breast."""
    count, patients = MASSES[part], PATIENTS[part]
    owner = np.sort(np.r_[np.arange(patients), rng.integers(0, patients, count - patients)])
    frame = pd.DataFrame({"patient_id": [f"{part}{number:04d}" for number in owner], "part": part, "fold": 0})
    number = frame.groupby("patient_id").cumcount()
    frame["image_id"] = frame["patient_id"] + "_LEFT_" + pd.Series(np.where(number % 2, "MLO", "CC"))
    frame["mass_id"] = frame["image_id"] + "_" + (number // 2).astype(str)
    frame["label"] = (rng.random(patients) < 0.4).astype(int)[owner]
    given = {"side": "LEFT", "pathology": "BENIGN", "assessment": "4", "shape": "OVAL", "margins": "ILL_DEFINED"}
    return frame.assign(**given)


def write_run(experiment: stages.Experiment) -> None:
    """What training leaves in results/: expected cases, masses, predictions and histories of every cell."""
    rng = np.random.default_rng(0)
    every = pd.concat([masses(part, rng) for part in MASSES], ignore_index=True)
    train = every[every["part"] == "validation"].assign(part="train", patient_id=lambda rows: "t" + rows["patient_id"])
    experiment.results.mkdir(parents=True)
    pd.concat([every, train]).to_csv(experiment.results / "masses.csv", index=False)
    patches = pd.concat([every.assign(id=every["mass_id"] + f"#{centre}") for centre in range(8)], ignore_index=True)
    images = every.groupby("image_id", as_index=False).agg(
        {"patient_id": "first", "part": "first", "fold": "first", "side": "first", "label": "max"}
    )
    cases = {"P": patches, "G": images.assign(id=images["image_id"], mass_id="")}
    for stage, frame in cases.items():
        frame.to_csv(experiment.results / f"expected_{stage}.csv", index=False)
    history = pd.DataFrame({"epoch": np.arange(1, 41)})
    for name in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"):
        history[name] = rng.random(40)
    cells = stages.cells(experiment)
    for cell in cells:
        folder, frame = experiment.results / "cells" / cell.name, cases[cell.stage]
        folder.mkdir(parents=True)
        score = 1 / (1 + np.exp(-rng.normal(frame["label"] - 0.5)))
        frame.assign(probability=score).to_csv(folder / "predictions.csv", index=False)
        history.to_csv(folder / "history.csv", index=False)
    outcomes = pd.DataFrame({"cell": [cell.name for cell in cells], "state": "done", "message": ""})
    outcomes.to_csv(experiment.results / "outcomes.csv", index=False)


def bootstraps(resamples: int) -> Callable[[], object]:
    """The AUC of 18 networks on the same 400 cases of 200 patients."""
    rng = np.random.default_rng(1)
    label, patients = rng.integers(0, 2, 400), np.arange(400) // 2
    scores = [rng.normal(label) for _ in range(18)]
    return lambda: [
        statistics.bootstrap(statistics.weighted_auc(label, score), patients, resamples, 0) for score in scores
    ]


def delong(cases: int) -> Callable[[], object]:
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, cases)
    score = rng.normal(label)
    return lambda: statistics.delong(label, score, patients=np.arange(cases) // 2)


def audit(experiment: stages.Experiment) -> object:
    """Both tables, with the tables drawn at random that tell how many rows are explained by luck."""
    published._audit_table.cache_clear()
    return stages.audit(experiment)


def report(experiment: stages.Experiment) -> object:
    """With an audit of its own."""
    published._audit_table.cache_clear()
    return stages.report(experiment)


def best(job: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Least seconds by the clock, and least of the processor."""
    times = []
    for _ in range(rounds):
        start, busy = perf_counter(), process_time()
        job()
        times.append((perf_counter() - start, process_time() - busy))
    clock, processor = zip(*times, strict=True)
    return min(clock), min(processor)


def main() -> None:
    parser = tables.parser(__doc__ or "", "evaluation", devices=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=config.Evaluation().resamples)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rule = config.Evaluation(resamples=arguments.resamples)
    with tempfile.TemporaryDirectory() as home:
        os.environ["MAMMO_CBAM_HOME"] = home
        profile = replace(config.get_profile("paper"), evaluation=rule, global_initial=("imagenet", "patch"))
        experiment = stages.Experiment(profile, "official", 0)
        write_run(experiment)
        jobs: dict[str, tuple[Callable[[], object], float]] = {
            f"AUC of 18 cells of 400 cases, {arguments.resamples} resamples of patients": (
                bootstraps(arguments.resamples),
                5,
            ),
            "DeLong, 100 000 cases of 50 000 patients": (delong(100_000), 1),
            f"audit of both printed tables, with 2 x {published.DRAWN} drawn ones": (lambda: audit(experiment), 30),
            "figures, from stored predictions": (lambda: stages.draw_everything(experiment), 60),
            "report, all tables made anew": (lambda: report(experiment), 60),
        }
        rows = []
        for name, (job, bar) in jobs.items():
            seconds, busy = best(job, arguments.rounds)
            rows.append([name, f"{seconds:.2f}", f"{busy:.2f}", f"{bar:g}", "held" if seconds < bar else "NOT HELD"])
        del os.environ["MAMMO_CBAM_HOME"]
    header = ["what", "seconds", "of the processor", "bar, seconds", ""]
    tables.write("evaluation", arguments, f"Best of {arguments.rounds} rounds.", header, rows, PACKAGES)


if __name__ == "__main__":
    main()
