"""Draw one mass: an oval, lobulated or spiculated shape, its brightness and its mask.

Knows outlines and how they are filled; knows no breast, no file and no pathology.

A benign mass is typically oval or lobulated with a smooth, sharp margin, a malignant one irregular with spicules
radiating from it: the two ends of BI-RADS' margin descriptors. Liberman et al. (AJR 171, 35, 1998) found carcinoma in
most biopsied masses with a spiculated margin or an irregular shape; Rangayyan et al. (IEEE Trans. Med. Imaging 16, 799,
1997) told benign from malignant by measures of shape and margin. Size and brightness do not depend on the margin: a
mass is scaled to the box, and its mean brightness set to the contrast, that it is given. What is left to tell masses
apart is the margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]  # (n, 2): x, y
Mask = NDArray[np.bool_]

# Ours, set by eye. Lengths are in radii of the body or shares of the size of the mass; a pair is the range of a draw.
ASPECT = (1.0, 1.25)  # of a mass's body
MARGIN = 0.02  # blur of a mass, share of its size: one for all, so that sharpness is no clue
SPICULE_LENGTH = (0.5, 1.3)  # beyond the body, in radii of the body
SPICULE_ROOT = 0.3  # share of a spicule that its mask takes in, from the body outwards
OUTLINE_GAP = 0.06  # radius of the gaps in a mass's outline that its mask closes, share of its size
SPICULE_WIDTH = 0.16  # at the root, in radii of the body
SPICULE_BRIGHTNESS = 0.6  # of the body's


@dataclass(frozen=True)
class Mass:
    """One mass to draw."""

    size: float  # square root of the area of its mask's box, share of the image height
    contrast: float  # mean exposure inside its mask above that of its surroundings, share of the grey range
    lobes: int = 0  # 0: oval; 2 and more: lobulated
    spicules: int = 0  # 0: smooth and circumscribed; otherwise irregular, with that many spicules


def draw_mass(rng: np.random.Generator, mass: Mass, centre: Points, shape: tuple[int, int]) -> tuple[Floats, Mask]:
    """Brightness of a mass (H, W) and its mask: the body and the roots of the spicules, outlined as a reader would.

    The mean inside the mask exceeds the mean of its surroundings by 1, whatever the margin.
    """
    body = _body(rng, mass)
    spicules = [_spicule(rng, body, turn) for turn in _turns(rng, mass.spicules)]
    marked = [body, *(_ribbon(line, SPICULE_ROOT) for line in spicules)]
    low, high = np.vstack(marked).min(axis=0), np.vstack(marked).max(axis=0)
    side = mass.size * shape[0]
    scale = side / np.sqrt(np.prod(high - low))

    def filled(polygons: list[Points]) -> Floats:
        return fill(shape, [(polygon - (low + high) / 2) * scale + centre for polygon in polygons])

    inside, rays = filled([body]), filled([_ribbon(line) for line in spicules])
    deep = cv2.distanceTransform((inside > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / (0.5 * side)
    dome = inside * (0.35 + 0.65 * np.sqrt(np.minimum(deep, 1)))  # thicker, so brighter, in the middle
    brightness = cv2.GaussianBlur(np.maximum(dome, SPICULE_BRIGHTNESS * rays), (0, 0), MARGIN * side)
    mask = cv2.morphologyEx(filled(marked), cv2.MORPH_CLOSE, _disc(OUTLINE_GAP * side)) > 0.2
    surround = (cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) < 0.5 * side) & ~mask
    return brightness / np.float32(brightness[mask].mean() - brightness[surround].mean()), mask


def _body(rng: np.random.Generator, mass: Mass) -> Points:
    """Outline (n, 2) of a mass without spicules, radius about 1: an ellipse, lobulated or irregular."""
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    radius = np.ones_like(angle)
    if mass.lobes:
        radius += 0.3 * np.abs(np.cos(mass.lobes / 2 * angle + rng.uniform(0, np.pi)))  # round lobes, narrow notches
    if mass.spicules:
        for order in range(3, 10):
            radius += rng.normal(0, 0.06) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    aspect, turn = np.sqrt(rng.uniform(*ASPECT)), rng.uniform(0, np.pi)
    ellipse = radius[:, None] * circle(256) * (aspect, 1 / aspect)
    return ellipse @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _turns(rng: np.random.Generator, count: int) -> Points:
    """`count` directions round the circle, in turns (0..1), spread out but not regular."""
    return (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / max(count, 1)


def _spicule(rng: np.random.Generator, body: Points, turn: float) -> Points:
    """Middle line (n, 2) of a spicule: from inside the body outwards, slightly bent."""
    foot = body[int(turn * len(body)) % len(body)]
    steps = np.linspace(0, rng.uniform(*SPICULE_LENGTH), 16)[:, None]
    heading = np.arctan2(foot[1], foot[0]) + rng.normal(0, 0.12) + rng.normal(0, 0.12) * steps
    return 0.9 * foot + steps * np.hstack([np.cos(heading), np.sin(heading)])


def _ribbon(line: Points, share: float = 1.0) -> Points:
    """Outline (n, 2) of a band along `line` that tapers to a point at its end, cut off after `share` of its length."""
    half_width = np.linspace(SPICULE_WIDTH / 2, 0, len(line))[:, None]
    along = np.gradient(line, axis=0)
    across = half_width * np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    count = max(2, round(share * len(line)))
    return np.vstack([(line + across)[:count], (line - across)[:count][::-1]])


def circle(count: int) -> Points:
    """`count` points (n, 2) round the unit circle."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _disc(radius: float) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(radius) + 1,) * 2).astype(np.uint8)


def fill(shape: tuple[int, int], polygons: Sequence[Points]) -> Floats:
    """The union of `polygons` (pixels) as 1 on 0 (H, W), edges antialiased."""
    canvas = np.zeros(shape, np.uint8)
    for polygon in polygons:  # one by one: together, fillPoly would leave holes where they overlap
        cv2.fillPoly(canvas, [fixed_point(polygon)], 255, cv2.LINE_AA, shift=4)
    return canvas * np.float32(1 / 255)


def fixed_point(points: Points) -> NDArray[np.int32]:
    """OpenCV's sub-pixel coordinates: 4 fractional bits."""
    return np.round(points * 16).astype(np.int32)
