"""Cells that come to nothing, and what becomes of those that wait for them."""

import shutil
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest

from mammo_lib import stages
from mammo_lib.stages import trainings
from mammo_lib.training.experiments import UNFINISHED
from mammo_lib.training.loop import TrainingDiverged


def test_a_cell_that_diverged_is_told_and_its_child_has_no_weights(
    tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two calls, as the notebooks make them: the paper's settings may well diverge, and the rest must go on."""
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)

    def diverge(*_: object) -> NoReturn:
        raise TrainingDiverged("training loss is nan in epoch 1, step 8 (images a, b): look at these images")

    monkeypatch.setattr(trainings, "fit", diverge)
    patches = stages.train(experiment, "P/vgg16/scratch/*")
    assert patches["state"].tolist() == ["diverged"]
    whole = stages.train(experiment, "G/vgg16/patch/*")
    assert whole["state"].tolist() == ["not available"]
    assert whole["message"].tolist() == ["its parent P/vgg16/scratch/fold0-seed0 is diverged"]
    assert not pd.concat([patches, whole])["state"].isin(UNFINISHED).any()
    assert (experiment.runs / "P/vgg16/scratch/fold0-seed0/failure.txt").exists()
