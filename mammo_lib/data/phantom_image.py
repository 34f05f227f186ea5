"""Draw one phantom: the picture of a film mammogram, and the masks of the masses in it.

Knows shapes and grey values; knows no file, no patient and no pathology (`phantom.py` says which shape stands for
which diagnosis). A phantom is not a patient: it has what the preparation and the networks must cope with, no more.

What the drawing rests on:
- Tissue is a random field with power spectrum 1/f^3. Burgess (Proc. SPIE 3661, 642, 1999) and Burgess, Jacobson and
  Judy (Med. Phys. 28, 419, 2001) found power-law spectra with an exponent near 3 in mammograms and simulated with 3.
- Masses: see `phantom_mass.py`.
- Frame, label, muscle and the way breasts face are those of the digitised films of CBIS-DDSM (Lee et al., Sci. Data 4,
  170177, 2017).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from mammo_lib.data.phantom_mass import Floats, Mask, Mass, Points, circle, draw_mass, fill, fixed_point

# Every number below is ours, set by eye beside films of CBIS-DDSM. Lengths are shares of the image height, grey values
# shares of the full range; a pair is the range of a uniform draw.
SPECTRUM_EXPONENT = 3.0  # Burgess
OUTLINES = {  # left breast, from above the nipple to below: x as share of the width, y as share of the height
    "CC": ((-0.05, 0.07), (0.22, 0.13), (0.50, 0.29), (0.65, 0.48), (0.52, 0.69), (0.24, 0.85), (-0.05, 0.91)),
    "MLO": ((0.47, -0.1), (0.48, 0.06), (0.56, 0.24), (0.68, 0.43), (0.72, 0.58), (0.60, 0.73), (0.32, 0.86), (0, 0.9)),
}  # fmt: skip
RIM = 0.13  # width of the zone in which the compressed breast thins out towards the skin
FAT, MUSCLE = 0.30, 0.62  # exposure at full thickness
GLAND = {1: 0.10, 2: 0.15, 3: 0.20, 4: 0.25}  # exposure that glandular tissue adds, by BI-RADS density
TEXTURE = 0.06  # standard deviation of the power-law texture at full thickness
FIBRES, FIBRE = 70, 0.10  # their number; exposure of the strongest
BORDER = 0.04  # no mass nearer than this to an edge of the film: the frame lies there
FRAME_WIDTH = (0.004, 0.02)
FOG, SHOULDER, NOISE = 0.015, 4, 0.012  # of the film and the scanner


@dataclass(frozen=True)
class Phantom:
    """A drawn mammogram: `image` uint16 (H, W); `masks` bool (H, W), one a mass; `breast` bool (H, W)."""

    image: NDArray[np.uint16]
    masks: list[Mask]
    breast: Mask


@dataclass(frozen=True)
class _Anatomy:
    """A left breast, chest wall at the left edge; arrays (H, W)."""

    breast: Mask
    depth: Floats  # distance from the skin, pixels
    thickness: Floats  # of the compressed breast, 0..1
    muscle: Floats  # share of pectoral muscle, 0..1
    nipple: Points  # (2,), pixels


def draw(
    rng: np.random.Generator, height: int, width: int, side: str, view: str, masses: Sequence[Mass], density: int
) -> Phantom:
    """Draw the breast `side` (LEFT, RIGHT) in projection `view` (CC, MLO) with `masses` somewhere inside it.

    As in CBIS-DDSM a left breast has its chest wall at the image's left edge, a right breast at the right edge.
    `density` is BI-RADS breast density, 1 to 4. ValueError for a side, view or density that there is not, and when a
    mass finds no room.
    """
    _check("side", side, ("LEFT", "RIGHT"))
    _check("view", view, OUTLINES)
    _check("density", density, GLAND)
    anatomy = _anatomy(rng, height, width, view)
    exposure = _tissue(rng, anatomy, density)
    masks: list[Mask] = []
    for mass, centre in zip(masses, _centres(rng, anatomy, masses), strict=True):
        profile, mask = draw_mass(rng, mass, centre, (height, width))
        exposure += mass.contrast * anatomy.thickness * profile
        masks.append(mask)
    breast = anatomy.breast
    if side == "RIGHT":
        exposure, breast, masks = exposure[:, ::-1], breast[:, ::-1].copy(), [mask[:, ::-1].copy() for mask in masks]
    film = np.maximum.reduce([exposure, _label(rng, height, width, side, view), _frame(rng, height, width)])
    return Phantom(_scan(rng, film), masks, breast)


def power_law_field(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Gaussian random field (H, W) with mean 0, standard deviation 1 and power spectrum 1/f^3, f radial."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    white = scipy.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    field = scipy.fft.irfft2(white * (frequency ** (-SPECTRUM_EXPONENT / 2)).astype(np.float32), s=(height, width))
    return field / field.std()


def _check(name: str, value: object, known: Collection[object]) -> None:
    if value not in known:
        raise ValueError(f"phantom: {name} is {value!r}, it must be one of {', '.join(map(str, known))}")


# Anatomy


def _anatomy(rng: np.random.Generator, height: int, width: int, view: str) -> _Anatomy:
    outline = _curve(_jittered(rng, OUTLINES[view]) * (width, height), 200)
    nipple = outline[outline[:, 0].argmax()]
    top = outline[0, 1]
    body = fill((height, width), [np.vstack([outline, [(-width, outline[-1, 1]), (-width, top)]])])
    tip = nipple + 0.018 * height * circle(32)
    breast = np.maximum(body, fill((height, width), [tip])) > 0.5
    depth = _depth(breast, RIM * height)
    thickness = np.sqrt(1 - (1 - np.minimum(depth / (RIM * height), 1)) ** 2)
    muscle = _muscle(rng, height, width) if view == "MLO" else np.zeros_like(depth)
    return _Anatomy(breast, depth, thickness, muscle, nipple)


def _jittered(rng: np.random.Generator, outline: Sequence[tuple[float, float]]) -> Points:
    """The outline of another breast: deeper or flatter, larger or smaller, higher or lower, each by a little."""
    points = np.array(outline)
    points[:, 0] *= rng.uniform(0.90, 1.08)
    points[:, 1] = 0.5 + rng.uniform(-0.02, 0.02) + rng.uniform(0.93, 1.03) * (points[:, 1] - 0.5)
    points[1:-1] += rng.normal(0, 0.008, (len(points) - 2, 2))
    return points


def _depth(inside: Mask, most: float) -> Floats:
    """Distance to the nearest pixel outside, at most `most` pixels; the body goes on beyond the film's edges."""
    pad = int(most) + 1
    beyond = cv2.copyMakeBorder(inside.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    return np.minimum(cv2.distanceTransform(beyond, cv2.DIST_L2, 5)[pad:-pad, pad:-pad], np.float32(most))


def _muscle(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Pectoral muscle (H, W), 0..1: a wedge from the film's top down the chest wall, a little convex."""
    top, bottom = rng.uniform(0.28, 0.38) * width, rng.uniform(0.36, 0.48) * height
    bulge = rng.uniform(0.0, 0.04) * width
    edge = [(top, -5.0), (0.75 * top + bulge, 0.25 * bottom), (0.4 * top + bulge, 0.6 * bottom), (-5.0, bottom)]
    wedge = fill((height, width), [np.vstack([_curve(np.array(edge), 60), [(-5.0, -5.0)]])])
    thicker = np.minimum(0.6 + _depth(wedge > 0.5, 0.2 * height) / (0.5 * height), 1)
    return cv2.GaussianBlur(wedge * thicker, (0, 0), 0.009 * height)


# Tissue


def _tissue(rng: np.random.Generator, anatomy: _Anatomy, density: int) -> Floats:
    """Exposure (H, W) of the breast without masses: fat, glandular tissue, fibres, muscle."""
    texture = TEXTURE * power_law_field(rng, *anatomy.breast.shape)
    soft = FAT + GLAND[density] * _gland(rng, anatomy) + texture + _fibres(rng, anatomy)
    mixed = soft + anatomy.muscle * (MUSCLE - FAT + 0.5 * texture - 0.7 * (soft - FAT))
    return anatomy.thickness * np.maximum(mixed, 0.05)


def _gland(rng: np.random.Generator, anatomy: _Anatomy) -> Floats:
    """Fibroglandular tissue (H, W), 0..1: a ragged cone behind the nipple, under a layer of fat."""
    height, width = anatomy.breast.shape
    reach = 0.6 * anatomy.nipple[0]
    rows, columns = np.ogrid[:height, :width]
    from_middle = np.hypot((columns - 0.6 * anatomy.nipple[0]) / reach, (rows - anatomy.nipple[1]) / (0.25 * height))
    ragged = 0.4 * power_law_field(rng, height, width)
    cone = np.clip(1.1 - from_middle + ragged, 0, 1)
    under_fat = np.clip(anatomy.depth / (0.05 * height) - 0.5 + ragged, 0, 1)
    return (cone * under_fat).astype(np.float32)


def _fibres(rng: np.random.Generator, anatomy: _Anatomy) -> Floats:
    """Exposure (H, W) of ducts and ligaments: faint thin curves that fan out from the nipple."""
    height, width = anatomy.breast.shape
    fibres = np.zeros((height, width), np.uint8)
    for _ in range(FIBRES):
        steps = np.linspace(rng.uniform(0.1, 0.5), 1, 24)[:, None]
        wander = 0.03 * np.cumsum(rng.normal(0, 1, (24, 1)), axis=0)
        angle = rng.normal(np.pi, 0.6) + rng.normal(0, 0.25) * steps**2 + wander * steps
        curve = anatomy.nipple + rng.uniform(0.25, 0.6) * height * steps * np.hstack([np.cos(angle), np.sin(angle)])
        cv2.polylines(fibres, [fixed_point(curve)], False, rng.uniform(60, 255), 1, cv2.LINE_AA, shift=4)
    return FIBRE / 255 * cv2.GaussianBlur(fibres.astype(np.float32), (0, 0), 0.0012 * height)


# Masses


def _centres(rng: np.random.Generator, anatomy: _Anatomy, masses: Sequence[Mass]) -> list[Points]:
    """A centre (x, y) for every mass: inside the breast, off muscle, rim and film edges, clear of the other masses."""
    height, width = anatomy.breast.shape
    room = ((anatomy.muscle < 0.05) & (anatomy.depth > 0.03 * height)).astype(np.uint8)
    margin = round(BORDER * height)
    room[:margin], room[-margin:], room[:, :margin], room[:, -margin:] = 0, 0, 0, 0
    centres = []
    for mass in masses:
        reach = 0.72 * mass.size * height  # about half the diagonal of its box
        rows, columns = np.nonzero(cv2.distanceTransform(room, cv2.DIST_L2, 5) > reach)
        if not rows.size:
            raise ValueError(f"phantom, {height} x {width} pixels: no room for mass of size {mass.size:.2f}, draw less")
        pick = rng.integers(rows.size)
        centres.append(np.array([columns[pick], rows[pick]], dtype=float))
        cv2.circle(room, (int(columns[pick]), int(rows[pick])), round(1.2 * reach), 0, cv2.FILLED)
    return centres


# Film


def _label(rng: np.random.Generator, height: int, width: int, side: str, view: str) -> Floats:
    """Exposure (H, W) of the view label, e.g. "RMLO": lead letters near the top corner away from the chest wall."""
    text = f"{side[0]}{rng.choice(['', ' '])}{view}"
    font, scale, thick = cv2.FONT_HERSHEY_DUPLEX, height / 800, max(1, round(height / 400))
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, thick)
    from_edge = width * rng.uniform(0.10, 0.14)
    centre = (width - from_edge if side == "LEFT" else from_edge, height * rng.uniform(0.08, 0.13))
    canvas = np.zeros((height, width), np.uint8)
    origin = (round(centre[0] - text_width / 2), round(centre[1] + text_height / 2))
    cv2.putText(canvas, text, origin, font, scale, 255, thick, cv2.LINE_AA)
    turned = cv2.warpAffine(canvas, cv2.getRotationMatrix2D(centre, rng.uniform(-45, 45), 1.0), (width, height))
    return turned * np.float32(rng.uniform(0.6, 0.95) / 255)


def _frame(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The unexposed film border (H, W), 2 (saturated) on 0: white, never quite straight strips along 1 to 3 edges."""
    frame = np.zeros((height, width), np.float32)
    for edge in rng.permutation(4)[: rng.integers(1, 4)]:
        start, end = height * rng.uniform(*FRAME_WIDTH) * rng.uniform(0.5, 1, 2)
        length = (width, height, width, height)[edge]  # top, right, bottom, left
        strip = np.linspace(start, end, length) > np.arange(height if edge % 2 == 0 else width)[:, None]
        turned = (strip, strip.T[:, ::-1], strip[::-1], strip.T)[edge]
        frame = np.maximum(frame, turned)
    return np.float32(2) * cv2.GaussianBlur(frame, (0, 0), 0.8)


def _scan(rng: np.random.Generator, exposure: Floats) -> NDArray[np.uint16]:
    """Film and scanner: base fog, the shoulder of the film's curve, noise that grows with the signal, 16 bits."""
    grey = FOG + (1 - FOG) * exposure / (1 + exposure**SHOULDER) ** (1 / SHOULDER)
    noise = cv2.GaussianBlur(rng.standard_normal(grey.shape, dtype=np.float32), (0, 0), 0.6)
    grey += NOISE * (0.5 + np.sqrt(grey)) * noise
    return np.round(np.clip(grey, 0, 1) * 65535).astype(np.uint16)


def _curve(points: Points, count: int) -> Points:
    """`count` points of the cubic spline through `points`, parametrised by chord length."""
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    curve: Points = make_interp_spline(chord, points)(np.linspace(0, chord[-1], count))
    return curve
