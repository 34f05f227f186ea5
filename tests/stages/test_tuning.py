"""Candidates are compared on validation alone; the controls notice a training that learns nothing."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mammo_lib import config, paths, stages
from mammo_lib.stages import tuning
from mammo_lib.training.loop import TrainingDiverged


@pytest.fixture
def run(tmp_path, trained_home, monkeypatch):
    """The finished run of conftest: its data, and a copy of the P cell that G starts from."""
    (tmp_path / "data").symlink_to(trained_home / "data")
    cell = "runs/tiny/official/P/resnet50_cbam/scratch/fold0-seed0"
    shutil.copytree(trained_home / cell, tmp_path / cell)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return stages.Experiment.of("tiny", "official", 0)


def small_network(_profile, _cell):
    """Brightness in 16 places, and a linear layer: enough to learn a few patches by heart."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))


def test_every_candidate_is_trained_from_the_patch_weights_and_recorded(run, monkeypatch):
    diverging = replace(config.GLOBAL_TRAINING, learning_rate=1e30)
    tried = {"as published": config.GLOBAL_TRAINING, "far too large a rate": diverging}
    monkeypatch.setattr(tuning, "GLOBAL_CANDIDATES", tried)
    table = stages.tune(run).set_index("candidate")
    assert table.index.tolist() == list(tried)
    assert table.loc["as published", ["learning_rate", "batch_size", "epochs"]].tolist() == [0.01, 4, 1]
    history = pd.read_csv(run.results / "candidates" / "as-published.csv")
    assert table.loc["as published", "validation_auc"] == pytest.approx(history["validation_auc"].iloc[0])
    assert "loss is" in table.loc["far too large a rate", "outcome"]
    assert pd.read_csv(run.results / tuning.CANDIDATES).shape == (2, table.shape[1] + 1)
    monkeypatch.setattr(tuning, "GLOBAL_CANDIDATES", {"as published": replace(diverging, max_epochs=2)})
    shutil.rmtree(run.runs / "candidates")
    stages.tune(run)
    assert not (run.results / "candidates" / "as-published.csv").exists(), "the history of an earlier attempt"


def test_a_candidate_starts_from_the_patch_weights_with_the_seed_of_the_run(run, monkeypatch):
    first, begun = run.runs / "P/resnet50_cbam/scratch/fold0-seed0", []
    parent = first.rename(first.with_name("fold0-seed3"))
    record = paths.read_json(parent / "run.json")
    record["settings"]["cell"]["seed"] = 3
    paths.write_json(parent / "run.json", record)

    def begin(network, images, table, training, profile, seed, *_):
        begun.append((seed, network.state_dict()))
        raise TrainingDiverged("what it begins with is enough")

    monkeypatch.setattr(tuning, "GLOBAL_CANDIDATES", {"as published": config.GLOBAL_TRAINING})
    monkeypatch.setattr(tuning, "fit", begin)
    stages.tune(replace(run, seed=3))
    [(seed, weights)], given = begun, torch.load(parent / "best.pt", weights_only=True)["network"]
    assert seed == 3
    assert weights.keys() == given.keys()
    assert all(torch.equal(weights[name], given[name]) for name in given)


def test_the_controls_of_a_training_that_works(run, monkeypatch):
    monkeypatch.setattr(tuning, "build_network", small_network)
    monkeypatch.setattr(tuning, "OVERFIT_EPOCHS", 30)
    seen = {}
    fit = tuning.fit

    def note(network, images, table, *rest):
        seen[len(seen)] = table
        return fit(network, images, table, *rest)

    monkeypatch.setattr(tuning, "fit", note)
    monkeypatch.setattr(tuning, "SHUFFLES", 3)
    overfit, *shuffles, mean = stages.controls(run).to_dict("records")
    assert overfit["train_accuracy"] == 1.0
    assert overfit["train_loss"] < 0.3
    assert all(shuffled["test_auc_low"] <= shuffled["test_auc"] <= shuffled["test_auc_high"] for shuffled in shuffles)
    assert mean["test_auc"] == pytest.approx(np.mean([shuffled["test_auc"] for shuffled in shuffles]))

    truth = stages.parts(run, "P").set_index("id")["label"]
    few, exchanged, again = seen[3].query("part == 'train'"), seen[0].set_index("id"), seen[1].set_index("id")
    assert few["label"].tolist() == truth[few["id"]].tolist()
    assert few["label"].nunique() == 2
    assert not few["mass_id"].duplicated().any()
    kept = exchanged["part"] == "test"
    assert (exchanged["label"] != again["label"]).any()
    assert (exchanged["label"][kept] == truth[exchanged.index][kept]).all()
    assert (exchanged["label"][~kept] != truth[exchanged.index][~kept]).any()
    assert exchanged["label"][~kept].sum() == truth[exchanged.index][~kept].sum()


def test_the_interval_over_shuffles_is_students(run, monkeypatch):
    monkeypatch.setattr(tuning, "SHUFFLES", 3)
    monkeypatch.setattr(tuning, "_overfit", lambda *_: {})
    monkeypatch.setattr(tuning, "_shuffled", lambda *about: {"test_auc": (0.4, 0.6, 0.5)[about[-1]]})
    mean = stages.controls(run).iloc[-1]
    half = 4.303 * 0.1 / 3**0.5  # t of 2 degrees of freedom at 97.5 %, from a printed table
    found = mean[["test_auc_low", "test_auc", "test_auc_high"]].astype(float)
    assert found.tolist() == pytest.approx([0.5 - half, 0.5, 0.5 + half], abs=1e-4)


def test_the_overfit_control_notices_a_network_that_cannot_learn(run, monkeypatch):
    """Every patch looks the same to it: half of them are right."""
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(1.0), nn.Linear(3, 2))
    monkeypatch.setattr(tuning, "build_network", lambda _profile, _cell: blind.append(nn.LayerNorm(2)))
    monkeypatch.setattr(tuning, "OVERFIT_EPOCHS", 2)
    monkeypatch.setattr(tuning, "_shuffled", lambda *_: {"test_auc": 0.5})
    assert stages.controls(run)["train_accuracy"][0] <= 0.75
