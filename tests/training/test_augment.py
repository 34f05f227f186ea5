"""Augmentation against cv2, scipy, numpy's flips and quarter turns, and matrix products written out."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from mammo_lib import config
from mammo_lib.training import augment

SETTINGS = config.Augmentation()
STILL = config.Augmentation(0.0, 0.0, (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=5, size=33):
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


def warped(images, settings=SETTINGS, seed=0):
    """As in a step of a training: float (N, 1, S, S) in 0..1."""
    matrices = augment.affine_matrices(augment.draw(len(images), settings, generator(seed)))
    return augment.warp(torch.from_numpy(images), matrices)


def augmented(images, **changes):
    """Grey levels 0..255, float (N, S, S)."""
    out = warped(images, replace(STILL, **changes))
    return out[:, 0].numpy() * 255


def test_form_of_the_result():
    out = warped(noise())
    assert out.shape == (5, 1, 33, 33)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6


def test_nothing_to_do_changes_nothing():
    np.testing.assert_allclose(augmented(noise()), noise(), atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"horizontal_flip": 1.0}, noise()[:, :, ::-1]),
        ({"vertical_flip": 1.0}, noise()[:, ::-1]),
        ({"rotation_degrees": (90.0, 90.0)}, np.rot90(noise(), axes=(1, 2))),
        ({"rotation_degrees": (180.0, 180.0)}, noise()[:, ::-1, ::-1]),
        ({"horizontal_flip": 1.0, "rotation_degrees": (90.0, 90.0)}, np.rot90(noise()[:, :, ::-1], axes=(1, 2))),
        ({"vertical_flip": 1.0, "rotation_degrees": (90.0, 90.0)}, np.rot90(noise()[:, ::-1], axes=(1, 2))),
        ({"shear_degrees": (45.0, 45.0)}, None),
    ],
)
def test_flips_and_quarter_turns_move_whole_pixels(changes, expected):
    """A flip before a quarter turn is not one after it; a shear of 45 degrees moves row y by y - 16."""
    if expected is None:
        padded = np.pad(noise(), ((0, 0), (0, 0), (16, 16)), mode="symmetric")
        expected = np.stack([padded[:, row, 32 - row : 65 - row] for row in range(33)], axis=1)
    np.testing.assert_allclose(augmented(noise(), **changes), expected, atol=0.02)


def test_composition_is_the_papers_order():
    """Matrices invert zoom @ shear @ rotation @ vertical @ horizontal, each written out for y down."""
    parameters = augment.draw(64, SETTINGS, generator()).double()
    matrices = augment.affine_matrices(parameters).numpy()
    for (across, down, degrees, zoom, shear), matrix in zip(parameters.tolist(), matrices, strict=True):
        angle, slope = math.radians(degrees), math.tan(math.radians(shear))
        horizontal, vertical = np.diag([across, 1]), np.diag([1, down])
        rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        forward = zoom * np.eye(2) @ np.array([[1, slope], [0, 1]]) @ rotation @ vertical @ horizontal
        np.testing.assert_allclose(matrix[:, :2] @ forward, np.eye(2), atol=1e-12)
        np.testing.assert_array_equal(matrix[:, 2], 0)


def test_warp_is_scipys_affine_transform():
    """Exact reference, float64: bilinear, mirrored about the border, positions from the centre (S - 1) / 2."""
    images = noise(20, 41)
    matrices = augment.affine_matrices(augment.draw(20, SETTINGS, generator(1)))
    got = augment.warp(torch.from_numpy(images), matrices)[:, 0].numpy() * 255
    for image, matrix, warped in zip(images, matrices[:, :, :2].double().numpy(), got, strict=True):
        rows_first = matrix[::-1, ::-1]
        shift = 20.0 - rows_first @ [20.0, 20.0]
        expected = ndimage.affine_transform(image.astype(float), rows_first, shift, order=1, mode="reflect")
        np.testing.assert_allclose(warped, expected, atol=0.02)  # of 255, on white noise


def test_warp_is_cv2s_warp_affine():
    """cv2 rounds positions to 1/32 pixel, so the images are smooth and the tolerance is one grey level."""
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in noise(20, 64)])
    matrices = augment.affine_matrices(augment.draw(20, SETTINGS, generator(2)))
    got = augment.warp(torch.from_numpy(images), matrices)[:, 0].numpy() * 255
    for image, matrix, warped in zip(images, matrices.numpy(), got, strict=True):
        matrix[:, 2] = 31.5 - matrix[:, :2] @ [31.5, 31.5]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        expected = cv2.warpAffine(
            image.astype(np.float32), matrix, (64, 64), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        np.testing.assert_allclose(warped, expected, atol=1)


@pytest.mark.parametrize("zoom", [0.75, 2.0])
def test_zoom_above_one_magnifies(zoom):
    disc = np.zeros((1, 128, 128), np.uint8)
    cv2.circle(disc[0], (64, 64), 20, 255, -1)
    area = (augmented(disc, zoom=(zoom, zoom)) > 127).sum() / (disc > 127).sum()
    assert area == pytest.approx(zoom**2, rel=0.05)


def test_draws_fill_their_ranges_and_no_more():
    drawn = augment.draw(4000, SETTINGS, generator()).numpy()
    for column in (0, 1):
        assert set(drawn[:, column]) == {-1.0, 1.0}
        assert (drawn[:, column] == -1).mean() == pytest.approx(0.5, abs=0.04)  # five standard errors
    for column, bounds in ((2, SETTINGS.rotation_degrees), (3, SETTINGS.zoom), (4, SETTINGS.shear_degrees)):
        low, high = bounds
        values = drawn[:, column]
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-6
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.025 * (high - low))
    off_diagonal = np.corrcoef(drawn.T) - np.eye(5)
    assert abs(off_diagonal).max() < 0.08  # columns are drawn apart


def test_generator_alone_decides():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (warped(noise(), seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@given(count=st.integers(1, 7), size=st.sampled_from([32, 200, 400]))
def test_a_sample_does_not_depend_on_its_batch(count, size):
    images = torch.from_numpy(noise(count, size))
    matrices = augment.affine_matrices(augment.draw(count, SETTINGS, generator(count)))
    one_by_one = [augment.warp(images[[row]], matrices[[row]]) for row in range(count)]
    assert torch.equal(augment.warp(images, matrices), torch.cat(one_by_one))


def test_autocast_changes_nothing():
    expected = augment.normalise(warped(noise()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = augment.normalise(warped(noise()))
    assert torch.equal(out, expected)


def test_grid_is_affine_grids():
    matrices = torch.randn(4, 2, 3, generator=generator())
    expected = functional.affine_grid(matrices, [4, 1, 17, 17], align_corners=False)
    torch.testing.assert_close(augment._grid(matrices, 17), expected, rtol=0, atol=1e-6)


def test_normalise_is_the_formula_three_times():
    grey = torch.rand(2, 1, 4, 4, generator=generator())
    kept = grey.clone()
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (config.NORMALISE_MEAN, config.NORMALISE_STD))
    out = augment.normalise(grey)
    np.testing.assert_allclose(out.numpy(), (np.repeat(grey.numpy(), 3, axis=1) - mean) / std, rtol=1e-5, atol=1e-6)
    assert torch.equal(grey, kept)


@pytest.mark.parametrize("shape", [(2, 8, 9), (2, 1, 8, 8), (8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(N, S, S\)"):
        augment.warp(torch.zeros(shape, dtype=torch.uint8), torch.zeros(2, 2, 3))


def test_warp_of_a_device_is_one_graph():
    """With matrices drawn outside, a captured step holds no Python decision on the data."""
    warp = torch.compile(lambda *given: augment.normalise(augment.warp(*given)), backend="eager", fullgraph=True)
    images, matrices = torch.from_numpy(noise()), augment.affine_matrices(augment.draw(5, SETTINGS, generator()))
    assert torch.equal(warp(images, matrices), augment.normalise(augment.warp(images, matrices)))
