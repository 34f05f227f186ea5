"""Repairs against masks whose right form is known because they were made here."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammo_lib.data import masks

SHAPE = (2400, 1800)
X, Y, W, H = 700, 1300, 260, 310
CROP = (X - 20, Y - 20, W + 40, H + 40)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6) + 0.02 * noise
    return cv2.normalize(smooth, None, 0, 65535, cv2.NORM_MINMAX).astype(np.uint16)


@pytest.fixture(scope="module")
def right() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    cv2.ellipse(mask, (X + W // 2, Y + H // 2), (W // 2, H // 2), 0, 0, 360, 255, -1)
    return mask


@pytest.fixture
def save(tmp_path):
    def save(name: str, pixels: np.ndarray):
        cv2.imwrite(str(tmp_path / name), pixels)
        return tmp_path / name

    return save


def crop_of(image: np.ndarray) -> np.ndarray:
    x, y, w, h = CROP
    return image[y : y + h, x : x + w]


def rectangle() -> np.ndarray:
    x, y, w, h = CROP
    expected = np.zeros(SHAPE, bool)
    expected[y : y + h, x : x + w] = True
    return expected


@pytest.mark.parametrize("name", ["mask.png", "mask.jpg"])
def test_a_right_mask_comes_back(name, right, image, save):
    mask, note = masks.read_mask(save(name, right), image)
    assert note == ""
    assert mask.dtype == bool
    assert np.count_nonzero(mask != (right > 0)) == 0
    assert masks.is_mask(save(name, right))


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25])
def test_another_size_is_scaled_and_confirmed(scale, right, image, save):
    small = cv2.resize(right, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    mask, note = masks.read_mask(save("mask.png", small), image, save("crop.png", crop_of(image)))
    assert mask.shape == SHAPE
    assert np.count_nonzero(mask & (right > 0)) > 0.98 * np.count_nonzero(mask | (right > 0))
    assert f"{small.shape[1]} x {small.shape[0]} pixels scaled to 1800 x 2400 pixels" in note
    assert "confirmed by the crop" in note


def test_scaled_without_a_crop_is_said_to_be_unconfirmed(right, image, save):
    small = cv2.resize(right, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
    mask, note = masks.read_mask(save("mask.png", small), image)
    assert mask.any()
    assert "not confirmed (there is no crop)" in note


def test_a_mask_of_other_proportions_needs_a_crop(right, image, save, tmp_path):
    """A part of the mask, which a stretch over the whole image would put somewhere else."""
    with pytest.raises(masks.MaskError, match=r"1800 x 1800 pixels has other proportions than .* 1800 x 2400 pixels"):
        masks.read_mask(save("mask.png", right[600:]), image)
    with pytest.raises(masks.MaskError, match="other proportions, and no crop confirms its place"):
        masks.read_mask(save("mask.png", right[600:]), image, tmp_path / "gone.png")


def test_a_mask_that_vanishes_when_scaled_is_named(image, right, save):
    large = np.zeros((2 * SHAPE[0], 2 * SHAPE[1]), np.uint8)
    large[2001, 2001] = 255  # nearest takes the even rows and columns
    with pytest.raises(masks.MaskError, match=r"mask\.png: the mask of 3600 x 4800 pixels is empty when scaled"):
        masks.read_mask(save("mask.png", large), image)
    mask, note = masks.read_mask(save("mask.png", large), image, save("crop.png", crop_of(image)))
    np.testing.assert_array_equal(mask, rectangle())
    assert "box of the crop taken instead" in note


def test_a_mask_that_contradicts_its_crop_gives_way(image, right, save):
    """The mask was cut, not scaled: scaling moves the mass away from where the crop shows it."""
    cut = right[600:, :]
    mask, note = masks.read_mask(save("mask.png", cut), image, save("crop.png", crop_of(image)))
    np.testing.assert_array_equal(mask, rectangle())
    assert "box of the crop taken instead" in note


@pytest.mark.parametrize("broken", ["empty", "grey", "inverted", "one pixel", "unreadable", "missing", "none"])
def test_without_a_usable_mask_the_crop_stands_in(broken, image, right, save, tmp_path):
    path = {
        "empty": lambda: save("mask.png", np.zeros(SHAPE, np.uint8)),
        "grey": lambda: save("mask.png", (image >> 8).astype(np.uint8)),
        "inverted": lambda: save("mask.png", 255 - right),
        "one pixel": lambda: save("mask.png", np.ones((1, 1), np.uint8)),
        "unreadable": lambda: Path(__file__),
        "missing": lambda: tmp_path / "nowhere.png",
        "none": lambda: None,
    }[broken]()
    mask, note = masks.read_mask(path, image, save("crop.png", crop_of(image)))
    np.testing.assert_array_equal(mask, rectangle())
    assert "box of the crop taken instead" in note
    with pytest.raises(masks.MaskError, match="its crop cannot stand in for it: there is no crop"):
        masks.read_mask(path, image)


def test_a_crop_from_elsewhere_is_no_help(image, save):
    stranger = np.random.default_rng(9).integers(0, 65535, (300, 300), dtype=np.uint16)
    with pytest.raises(masks.MaskError, match="is not found in its image"):
        masks.read_mask(None, image, save("crop.png", stranger))
    for small in (image[:50, :50], image[:50], image[:, :50]):
        with pytest.raises(masks.MaskError, match="is larger than its image"):
            masks.read_mask(None, small, save("crop.png", stranger))
    with pytest.raises(masks.MaskError, match="is not found in its image"):
        masks.read_mask(None, np.zeros(SHAPE, np.uint16), save("crop.png", crop_of(image)))


def test_a_crop_is_found_at_the_edges_and_in_another_contrast(image):
    for x, y, w, h in [
        (0, 0, 150, 90),
        (1800 - 200, 2400 - 130, 200, 130),
        (0, 2400 - 33, 40, 33),
        (901, 77, 600, 800),
    ]:
        crop = (image[y : y + h, x : x + w] / 512 + 40).astype(np.uint8)
        place = masks.locate(crop, image)
        assert place[:4] == (x, y, w, h)
        assert place.score > 0.95


def test_a_crop_that_is_its_whole_image_is_found(image, save):
    part = image[:300, :200]
    assert masks.read_mask(None, part, save("crop.png", part))[0].all()


def test_is_mask(image, right, save):
    assert not masks.is_mask(save("a.png", image))
    assert not masks.is_mask(save("a.jpg", (crop_of(image) >> 8).astype(np.uint8)))
    assert not masks.is_mask(save("a.png", np.zeros(SHAPE, np.uint8)))
    third = right.copy()
    third[0, 0] = 7
    assert not masks.is_mask(save("a.png", third))
