"""Networks of one archive applied to another: every case, no label of it, the sizes the network knows."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from mammo_lib import stages
from mammo_lib.stages import transferring
from mammo_lib.stages.trainings import load_network

SHARPER = 3.0


@pytest.fixture
def run(tmp_path, trained_home, copy_home, monkeypatch):
    """Three cells of a small finished run."""
    copy_home(trained_home, tmp_path)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return stages.Experiment.of("tiny", "official", 0)


@pytest.fixture
def other(run):
    """The same tables over the images in the opposite order."""
    experiment = replace(run, profile=replace(run.profile, name="other", archive="other"))
    shutil.copytree(run.places.prepared, experiment.places.prepared)
    for name in ("patches", "globals"):
        path = experiment.places.prepared / f"{name}.npy"
        np.save(path, np.load(path)[::-1])
    return experiment


def unsure(experiment, cell):
    """The network of a cell in doubt: conftest's own calls every image malignant with certainty."""
    network = load_network(experiment, cell)
    with torch.no_grad():
        weight = network.head[-1].weight
        weight.copy_(SHARPER * (weight - weight.mean(dim=1, keepdim=True)))
    return network


@pytest.fixture
def small(monkeypatch):
    """A small network of any size of images in the place of each trained one, for what does not depend on it."""

    def load(_experiment, cell):
        torch.manual_seed(len(cell.name))
        return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))

    with torch.random.fork_rng(devices=[]):
        monkeypatch.setattr(transferring, "load_network", load)
        yield


def test_every_case_is_scored_by_every_trained_network(run, other, monkeypatch):
    monkeypatch.setattr(transferring, "load_network", unsure)
    table = stages.transfer_cells(other, run)
    assert len(table) == len(stages.cells(run))
    assert table["note"].value_counts().to_dict() == {"not run": len(table) - 3}
    table = table.set_index(["stage", "network", "initial"])
    for cell in stages.cells(run, "G/resnet50_cbam/patch/*") + stages.cells(run, "P/resnet50_cbam/*"):
        folder = other.places.results("transfer") / "tiny" / "cells"
        scored = pd.read_csv(folder / cell.name / "predictions.csv")
        images, cases = stages.load(other, cell.stage)
        assert scored["id"].tolist() == cases["image_id" if cell.stage == "G" else "patch_id"].tolist()
        assert scored["part"].eq("test").all()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert scored["probability"].std() > 5e-3, "of images mistaken for one another nothing would be seen"
        network = unsure(run, cell)
        with torch.no_grad():  # the same by hand, one image at a time
            seen = [
                (torch.from_numpy(image.copy()).float().div(255).expand(3, -1, -1) - mean) / std for image in images
            ]
            logits = torch.cat([network(image[None]) for image in seen])
        np.testing.assert_allclose(scored["probability"], logits.softmax(1)[:, 1].numpy(), atol=1e-4)
        row = table.loc[(cell.stage, "ResNet50+CBAM", {"G": "Patch data", "P": "random"}[cell.stage])]
        assert row["auc"] == pytest.approx(roc_auc_score(cases["label"], scored["probability"]))
        assert row["cases"] == len(cases)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]


@pytest.mark.usefixtures("small")
def test_labels_are_not_read(run, other):
    first = stages.transfer_cells(other, run)
    folder = other.places.results("transfer") / "tiny" / "cells"
    scored = [pd.read_csv(file) for file in folder.rglob("predictions.csv")]
    assert len(scored) == 3
    assert all(not frame["probability"].duplicated().any() for frame in scored)
    assert first["auc"].dropna().ne(0.5).all()
    for name in ("patches", "globals"):
        path = other.places.prepared / f"{name}.csv"
        table = pd.read_csv(path)
        table.assign(label=1 - table["label"]).to_csv(path, index=False)
    np.testing.assert_allclose(stages.transfer_cells(other, run)["auc"], 1 - first["auc"])


def test_networks_meet_images_of_their_own_size_only(run, other):
    path = other.places.prepared / "globals.npy"
    np.save(path, np.zeros((len(np.load(path)), 96, 96), np.uint8))
    with pytest.raises(ValueError, match=r"set G has 96 pixels a side in profile other and 112 in tiny"):
        stages.transfer_cells(other, run)
    assert not other.places.results("transfer").exists()  # refused before anything is predicted


def test_nothing_trained_is_said(run, other):
    with pytest.raises(FileNotFoundError, match=r"none of 24 cells is trained: train profile tiny first"):
        stages.transfer_cells(other, replace(run, seed=1))


@pytest.mark.usefixtures("small")
def test_a_split_of_the_other_set_is_not_needed(run, other):
    assert not other.places.splits("as_written").exists()
    assert stages.transfer_cells(replace(other, protocol="as_written"), run)["auc"].notna().sum() == 3
