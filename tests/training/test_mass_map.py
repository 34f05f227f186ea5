"""Windows and kinds counted by hand, the loss written out in loops, and trainings of a network of one layer."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from mammo_lib.config import MassMap
from mammo_lib.training import checkpoint, mass_map
from mammo_lib.training.loop import TrainingDiverged
from mammo_lib.training.mass_map import BACKGROUND, BENIGN, CELL, MALIGNANT, UNUSED, Masses

SMALL = replace(
    MassMap(), window=64, masses=4, backgrounds=2, epochs=4, learning_rate=0.02, classifier_factor=1.0, precision="fp32"
)
BRIGHT = {BENIGN: 150, MALIGNANT: 250}


def test_a_cell_is_what_its_centre_lies_in():
    grey = np.full((80, 96), 9, np.uint8)
    grey[:16] = 0
    boxes = [(20.0, 20.0, 40.0, 40.0), (70.0, 50.0, 4.0, 4.0)]  # the second one is less than a cell
    kinds = mass_map.cell_kinds(grey, boxes, [1, 0], core=0.5)
    assert kinds.tolist() == [
        [-1, -1, -1, -1, -1, -1],
        [0, -1, -1, -1, 0, 0],
        [0, -1, 2, -1, 0, 0],
        [0, -1, -1, -1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_the_core_of_a_mass_wins_over_the_rim_of_another():
    grey = np.full((48, 80), 9, np.uint8)
    for order in (1, -1):
        boxes, labels = [(0, 16, 16, 16), (0, 0, 80, 48)][::order], [1, 0][::order]
        kinds = mass_map.cell_kinds(grey, boxes, labels, core=0.2)
        assert kinds.tolist() == [[-1, -1, -1, -1, -1], [2, -1, 1, -1, -1], [-1, -1, -1, -1, -1]]


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)])
def test_the_rate_rises_and_falls(share, wanted):
    assert mass_map.rate_share(share, warm_up=0.2) == pytest.approx(wanted)


def test_a_window_counts_as_much_as_another_whatever_its_mass_covers():
    rng = np.random.default_rng(0)
    logits, kinds = rng.normal(size=(3, 3, 2, 4)), rng.integers(-1, 3, (3, 2, 4))
    kinds[0] = BACKGROUND  # a window without a mass
    sums = {"mass": [], "background": []}
    for window in range(3):
        losses = {"mass": [], "background": []}
        for row in range(2):
            for column in range(4):
                kind = kinds[window, row, column]
                if kind != UNUSED:
                    name = "background" if kind == BACKGROUND else "mass"
                    losses[name].append(-log_softmax(logits[window, :, row, column])[kind])
        for name, values in losses.items():
            sums[name] += [np.mean(values)] if values else []
    wanted = sum(np.mean(values) for values in sums.values())
    assert len(sums["mass"]) == 2
    found = mass_map.map_loss(torch.from_numpy(logits), torch.from_numpy(kinds))
    assert float(found) == pytest.approx(wanted)


def images_and_masses(count=16, size=128):
    """A dim breast at the left of each image; in it one mass, whose brightness says what it is."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, size, size), np.uint8)
    images[:, :, :96] = rng.integers(40, 60, (count, size, 96))
    known = []
    for index in range(count):
        x, y, kind = *rng.integers(8, 56, 2), BENIGN + index % 2
        images[index, y : y + 32, x : x + 32] = BRIGHT[kind]
        known.append(Masses(index, [(float(x), float(y), 32.0, 32.0)], [index % 2]))
    return images, {"train": known[:12], "validation": known[12:]}


def test_windows_and_their_kinds_move_together():
    images, known = images_and_masses()
    settings = replace(SMALL, contrast=(1.0, 1.0), brightness=0.0, core=0.5)
    seen, masses_shown = set(), Counter()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        masses = known["train"][seed % 12]
        grey, kinds = mass_map.mass_window(images, masses, 0, settings, generator)
        assert grey.shape == (64, 64)
        for row, column in np.argwhere(kinds > BACKGROUND):
            middle = grey[row * CELL + 7 : row * CELL + 9, column * CELL + 7 : column * CELL + 9]
            assert (middle == BRIGHT[kinds[row, column]]).any()
        masses_shown.update(set(kinds[kinds > BACKGROUND].tolist()))
        black = grey.reshape(4, CELL, 4, CELL).max(axis=(1, 3)) == 0
        assert (kinds[black] == UNUSED).all()
        seen.add(grey.tobytes())
        background, _ = mass_map.background_window(images, masses, settings, generator)
        assert background.any()
    assert len(seen) == 60
    assert masses_shown == {BENIGN: 30, MALIGNANT: 30}, masses_shown


def test_a_window_that_is_not_changed_is_a_part_of_the_image():
    images, known = images_and_masses()
    grey, _ = mass_map.cut(images, known["train"][0], (60.0, 70.0), SMALL)
    assert np.array_equal(grey, images[0, 38:102, 28:92])
    grey, _ = mass_map.cut(images, known["train"][0], (0.0, 500.0), SMALL)
    assert np.array_equal(grey, images[0, 64:128, 0:64])


def test_light_changes_and_black_stays_black():
    images, known = images_and_masses()
    seen = []
    for seed in range(20):
        grey, _ = mass_map.cut(images, known["train"][0], (96.0, 64.0), SMALL, np.random.default_rng(seed))
        assert (grey == 0).mean() == 0.5
        seen.append(grey[grey > 0].mean())
    assert np.ptp(seen) > 5


class OneLayer(nn.Module):
    """The mean of a cell, and a small network of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(8, 3, 1))
        self.first = nn.Conv2d(1, 8, 1)

    def forward(self, images):
        mean = nn.functional.avg_pool2d(images[:, :1], CELL)
        return self.classifier(self.first(mean).relu())


def run(folder, progress=lambda _: None, settings=SMALL, seed=0, images=None, missing=None):
    network, (made, known) = OneLayer(), images_and_masses()
    made = made if images is None else images
    known |= {} if missing is None else {missing: []}
    table = mass_map.train(network, made, known, settings, seed, folder, {"of": settings}, progress=progress)
    return network, table


def test_what_brightness_tells_is_learnt(tmp_path, one_thread):
    settings = replace(SMALL, epochs=30)
    network, table = run(tmp_path, settings=settings)
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0] / 2
    assert table["validation_auc"].iloc[-1] == 1
    assert table["learning_rate"].iloc[-1] == 0
    assert not network.training


def test_a_training_that_was_stopped_equals_one_that_was_not(tmp_path, one_thread):
    whole, table = run(tmp_path / "whole")

    def stop(line):
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop)
    lines = []
    resumed, again = run(tmp_path / "stopped", lines.append)
    assert [line.split("/")[0] for line in lines] == ["epoch 3", "epoch 4"]
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert table.drop(columns="seconds").equals(again.drop(columns="seconds"))
    history = tmp_path / "stopped" / "history.csv"
    said = history.read_text()
    history.unlink()  # as by a crash right after the checkpoint of the last epoch
    run(tmp_path / "stopped")
    assert history.read_text() == said
    other, _ = run(tmp_path / "other", seed=1)
    assert not torch.equal(other.first.weight, whole.first.weight)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run(tmp_path, settings=replace(SMALL, epochs=1))
    with pytest.raises(checkpoint.CheckpointMismatch, match="dropout"):
        run(tmp_path, settings=replace(SMALL, epochs=1, dropout=0.9))


def test_a_loss_that_is_not_finite_names_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(mass_map, "map_loss", lambda logits, _: logits.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1 \(rows \d+, \d+, \d+, \d+ of set G\)"):
        run(tmp_path)


def test_a_part_without_masses_is_refused(tmp_path):
    with pytest.raises(ValueError, match="part 'validation' of the mass map has no images"):
        run(tmp_path, missing="validation")


def test_images_smaller_than_a_window_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"32 pixels.*windows of 64"):
        run(tmp_path, images=np.ones((16, 32, 32), np.uint8))
