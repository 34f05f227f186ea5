"""Runs whose cells are made up: what reads results/ needs predictions, and not a network that made them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo_lib import stages
from mammo_lib.config import PROTOCOLS
from mammo_lib.evaluation.predictions import COLUMNS as PREDICTION_COLUMNS
from mammo_lib.stages.trainings import PREDICTIONS
from mammo_lib.training.experiments import Cell

NETWORKS = ("resnet50", "resnet50_cbam")


def is_run(cell: Cell) -> bool:
    return cell.network in NETWORKS and cell.initial != "imagenet"


def make_up(experiment: stages.Experiment) -> None:
    """Predictions of two networks, better than chance and of no other sense; all other cells are "not available"."""
    outcomes = []
    for number, cell in enumerate(stages.cells(experiment)):
        outcomes.append((cell.name, "done" if is_run(cell) else "not available", "made up"))
        if is_run(cell):
            rng = np.random.default_rng([number, experiment.seed])
            cases = stages.parts(experiment, cell.stage).query(f"part != 'train' and fold == {cell.fold}")
            cases = cases.assign(probability=(rng.random(len(cases)) + 0.3 * cases["label"]) / 1.3)
            folder = experiment.results / "cells" / cell.name
            folder.mkdir(parents=True)
            cases.reindex(columns=PREDICTION_COLUMNS).to_csv(folder / PREDICTIONS, index=False)
    pd.DataFrame(outcomes, columns=["cell", "state", "message"]).to_csv(experiment.results / "outcomes.csv")


@pytest.fixture
def exchange_labels() -> Callable[[stages.Experiment], stages.Experiment]:
    """Make of an experiment another one, whose data is the same with every label exchanged."""

    def exchange(run: stages.Experiment) -> stages.Experiment:
        other = replace(run, profile=replace(run.profile, name="other", archive="other"))
        shutil.copytree(run.places.prepared, other.places.prepared)
        for name in ("cases", "globals", "patches"):
            path = other.places.prepared / f"{name}.csv"
            table = pd.read_csv(path, dtype={"patient_id": str})
            table.assign(label=1 - table["label"]).to_csv(path, index=False)
        return other

    return exchange


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with tiny phantoms, prepared and split by every protocol; to be copied, not changed."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMMO_CBAM_HOME", str(home))
        stages.prepare(stages.Experiment.of("tiny", "official", 0))
        for protocol in PROTOCOLS:
            stages.split(stages.Experiment.of("tiny", protocol, 0))
    return home


@pytest.fixture(scope="module")
def home(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the prepared home that is $MAMMO_CBAM_HOME for one module's tests."""
    copy = shutil.copytree(prepared, tmp_path_factory.mktemp("copy") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMMO_CBAM_HOME", str(copy))
        yield copy


@pytest.fixture(scope="module")
def run(home: Path) -> stages.Experiment:
    """Predictions of two networks made up, under the official protocol alone; the others not run, nothing explained."""
    experiment = stages.Experiment.of("tiny", "official", 0)
    make_up(experiment)
    return experiment


@pytest.fixture(scope="module")
def every_protocol(run: stages.Experiment) -> dict[str, stages.Experiment]:
    """Predictions under every protocol; the official one with a second seed."""
    experiments = {name: replace(run, protocol=name) for name in PROTOCOLS}
    for experiment in (*(experiments[name] for name in PROTOCOLS if name != "official"), replace(run, seed=1)):
        make_up(experiment)
    return experiments
