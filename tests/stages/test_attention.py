"""How open CBAM's gates are, against the same means taken over one batch, and a gate that is shut."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mammo_lib import stages
from mammo_lib.stages import attention, trainings
from mammo_lib.training import augment, loop
from mammo_lib.training.experiments import Cell


@pytest.fixture
def run(tmp_path, trained_home, monkeypatch):
    """Tiny phantoms, and the trained P cell of the proposed network."""
    (tmp_path / "data").symlink_to(trained_home / "data")
    cell = "runs/tiny/official/P/resnet50_cbam/scratch/fold0-seed0"
    shutil.copytree(trained_home / cell, tmp_path / cell)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    monkeypatch.setattr(attention, "SEEDS", 2)
    monkeypatch.setattr(attention, "BATCH", attention.IMAGES)  # all in one, as `batch` has them
    experiment = stages.Experiment.of("tiny", "official", 0)
    return replace(experiment, profile=replace(experiment.profile, networks=("resnet50", "resnet50_cbam")))


def batch(run, cell):
    images, table = trainings.cell_data(run, cell)
    rows = table.loc[table["part"] == "validation", "row"].to_numpy()
    assert len(rows) <= attention.IMAGES
    return augment.normalise(torch.from_numpy(images[rows])[:, None].float() / 255)


def test_the_gates_of_each_seed_and_of_what_was_trained(run, capsys):
    table = stages.gates(run).set_index(["stage", "initial", "seed", "when"])
    assert [index for index in table.index if index[0] == "P"] == [
        ("P", "scratch", 0, "before training"),
        ("P", "scratch", 0, "kept epoch"),
        ("P", "scratch", 1, "before training"),
    ]
    assert {index[1:] for index in table.index if index[0] == "G"} == {
        ("scratch", 0, "before training"),
        ("scratch", 1, "before training"),
        ("patch", 0, "before training"),  # its parent is trained with this seed alone; ImageNet weights are not here
    }
    assert "G/resnet50_cbam/imagenet/fold0-seed0: no row before training: ImageNet weights" in capsys.readouterr().out
    cell, whole = (Cell("official", stage, "resnet50_cbam", "scratch") for stage in ("P", "G"))
    trained = trainings.load_network(run, cell)
    for index, met, network in (
        (("P", "scratch", 0, "before training"), cell, trainings.build_network(run.profile, cell).train()),
        (("P", "scratch", 0, "kept epoch"), cell, trained),
        (("G", "patch", 0, "before training"), whole, copy.deepcopy(trained).train()),  # whose weights it begins with
    ):
        with torch.no_grad():
            features = network.features(batch(run, met))
            gate = network.attention.channel_gate(features)
            spatial = network.attention.spatial_gate(gate * features)
        row = table.loc[index]
        assert row[["channel_gate", "spatial_gate"]].tolist() == pytest.approx(
            [float(gate.mean()), float(spatial.mean())], rel=1e-4
        )


def test_a_training_of_other_settings_costs_its_own_row_alone(run, capsys, monkeypatch):
    monkeypatch.setattr(attention, "SEEDS", 1)
    other = replace(run.profile.patch_training, max_epochs=9)
    table = stages.gates(replace(run, profile=replace(run.profile, patch_training=other)))
    assert set(table["when"]) == {"before training"}
    assert "P/resnet50_cbam/scratch/fold0-seed0: no row of the kept epoch: " in capsys.readouterr().out


def test_few_images_are_spread_over_the_validation_part(run, monkeypatch):
    monkeypatch.setattr(attention, "IMAGES", 2)
    known = stages.parts(run, "G").query("part == 'validation'")["row"]
    assert len(known) > 2
    chosen = attention._images(run, Cell("official", "G", "resnet50_cbam", "scratch"))[1]
    assert chosen.tolist() == [known.min(), known.max()]


def test_a_shut_gate_is_seen(run, monkeypatch):
    monkeypatch.setattr(attention, "SEEDS", 1)
    build = trainings.build_network

    def shut(profile, cell):
        network = build(profile, cell)
        torch.nn.init.constant_(network.attention.conv.weight, -100.0)
        return network

    monkeypatch.setattr(attention, "build_network", shut)
    table = stages.gates(run)
    before = table[table["initial"].eq("scratch") & table["when"].eq("before training")]
    assert before["stage"].tolist() == ["P", "G"]
    assert (before["spatial_gate"] < 1e-6).all()


def test_the_batches_of_a_finished_network_do_not_matter(run, monkeypatch):
    monkeypatch.setattr(attention, "SEEDS", 1)
    whole = stages.gates(run)
    monkeypatch.setattr(attention, "BATCH", 5)
    parts = stages.gates(run)
    kept = whole["when"].eq("kept epoch")
    assert kept.any()
    assert parts["spatial_gate"][kept].tolist() == pytest.approx(whole["spatial_gate"][kept].tolist(), rel=1e-4)


def test_data_that_is_not_prepared_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="prepare"):
        stages.gates(stages.Experiment.of("tiny", "official", 0))


def test_the_first_steps_are_those_of_a_training(run):
    """At a rate of 0 the losses of the first two are those of their batches, warped and in order as in training."""
    still = replace(run.profile.global_training, learning_rate=0.0, batch_size=4, precision="fp32")
    run = replace(run, profile=replace(run.profile, global_training=still), seed=2)
    found = stages.first_steps(run)
    assert found["step"].tolist() == list(range(1, len(found) + 1))
    assert found["spatial_gate"].between(0, 1).all()
    cell = Cell("official", "G", "resnet50_cbam", "scratch", seed=2)
    images, table = trainings.cell_data(run, cell)
    train = table.loc[table["part"] == "train", "row"].to_numpy()
    order, network = np.random.default_rng((2, 1, 0)).permutation(train), trainings.build_network(run.profile, cell)
    for number, chosen in ((1, order[:4]), (2, order[4:8])):
        generator = torch.Generator().manual_seed(loop.step_seeds(2, 1, number)[1])
        matrices = augment.affine_matrices(augment.draw(len(chosen), run.profile.augmentation, generator))
        x = augment.normalise(augment.warp(torch.from_numpy(images[chosen]), matrices))
        logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits, torch.from_numpy(table["label"].to_numpy()[chosen]))
        assert found["loss"][number - 1] == pytest.approx(loss.item(), rel=1e-4)
