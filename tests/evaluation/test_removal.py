"""Removal against a network whose decision is known: it looks at one square and at nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

from mammo_lib.evaluation import removal

SIZE = 32
SQUARE = (slice(8, 12), slice(20, 24))  # rows, columns: 16 of 1024 pixels, 1.6 %
torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # inside the package grad-cam


class LooksAtTheSquare(nn.Module):
    """p(malignant) = sigmoid(10 * mean of the square - 5)."""

    def forward(self, x):
        score = 10 * x[:, 0, SQUARE[0], SQUARE[1]].mean(dim=(1, 2)) - 5
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def network():
    return LooksAtTheSquare().eval()


@pytest.fixture
def x():
    """Two black images with a white square at the place that counts."""
    images = torch.zeros(2, 3, SIZE, SIZE)
    images[:, :, SQUARE[0], SQUARE[1]] = 1
    return images


def marked(*squares):
    """One map a square: 1 inside, 0 outside."""
    maps = np.zeros((len(squares), SIZE, SIZE), np.float32)
    for heat, square in zip(maps, squares, strict=True):
        heat[square] = 1
    return maps


def test_the_right_map_scores_and_a_wrong_one_does_not(network, x):
    elsewhere = (slice(24, 28), slice(2, 6))
    right, wrong = removal.removal(network, x, marked(SQUARE, elsewhere))
    assert right > 0.8
    assert abs(wrong) < 0.05


def test_the_area_is_the_mean_fall_computed_by_hand(network, x):
    """Once the square is gone, black neighbours fill it: p falls from sigmoid(5) to sigmoid(-5), and stays there."""
    share = 16 / SIZE**2
    found = removal.removal(network, x[:1], marked(SQUARE), shares=(share, 4 * share))[0]
    fall = 1 / (1 + np.exp(-5)) - 1 / (1 + np.exp(5))
    triangle, rectangle = fall * share / 2, fall * 3 * share
    assert found == pytest.approx((triangle + rectangle) / (4 * share), abs=2e-3)


def test_only_the_order_of_a_map_counts(network, x):
    smooth = np.random.default_rng(0).random((2, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_array_equal(
        removal.removal(network, x, smooth), removal.removal(network, x, np.exp(3 * smooth) + 7)
    )


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_exactly_the_share_is_removed_also_of_a_map_without_order(share):
    for heat in (np.zeros((1, SIZE, SIZE)), marked(SQUARE)):
        ranks = removal._ranks(heat, seed=1)
        threshold = np.percentile(ranks, 100 * (1 - share))  # as the package cuts
        assert abs((ranks >= threshold).sum() - share * SIZE**2) <= 1
        if heat.any():
            assert set(np.argsort(ranks.ravel())[-16:]) == set(np.flatnonzero(heat))


def test_an_empty_map_is_anywhere_and_a_seed_is_repeatable(network, x):
    empty = np.zeros((2, SIZE, SIZE), np.float32)
    first = removal.removal(network, x, empty, seed=3)
    np.testing.assert_array_equal(first, removal.removal(network, x, empty, seed=3))
    assert (np.abs(first) < 0.3).all()  # scattered pixels are filled in from their neighbours


def test_the_callers_random_numbers_are_left_alone(network, x, monkeypatch):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    on_a_gpu: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", on_a_gpu.append)
    removal.removal(network, x, marked(SQUARE, SQUARE))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert not on_a_gpu


def test_batches_do_not_change_what_is_compared(network, x, monkeypatch):
    maps = marked(SQUARE, (slice(0, 4), slice(0, 4)))
    together = removal.removal(network, x, maps)
    monkeypatch.setattr(removal, "BATCH", 1)
    np.testing.assert_allclose(removal.removal(network, x, maps), together, atol=0.01)  # other noise


def test_what_cannot_be_measured_is_refused(network, x):
    maps = marked(SQUARE, SQUARE)
    with pytest.raises(ValueError, match="training mode"):
        removal.removal(network.train(), x, maps)
    with pytest.raises(ValueError, match=r"maps must be \(2, 32, 32\)"):
        removal.removal(network.eval(), x, maps[:1])
    for shares in ((), (0.2, 0.1), (0.5, 1.0), (0.0, 0.1)):
        with pytest.raises(ValueError, match="must rise"):
            removal.removal(network, x, maps, shares=shares)
