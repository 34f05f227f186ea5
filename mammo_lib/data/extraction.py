"""One mammogram -> its patches (set P) and its global view (set G): the unit of work that an executor is given.

Knows one image's files and pixels; knows no table, no archive and no other image. What cannot be used becomes problems.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mammo_lib import paths
from mammo_lib.config import GlobalExtraction, PatchExtraction
from mammo_lib.data.breast import NoBreastError
from mammo_lib.data.cases import NOTE, problem
from mammo_lib.data.cropping import (
    Box,
    box_of_mask,
    global_image,
    patch,
    patch_centres,
    patch_window,
    view_of_mask,
)
from mammo_lib.data.images import ImageError, read_image
from mammo_lib.data.masks import MaskError, read_mask

STAGE = "prepare"  # of the problems
VERSION = 2  # of how pixels become P and G, here and in cropping.py and breast.py; raised when arrays would differ
ONE_PART = 0.99  # ours: of a mask, in its largest part; less is told, as a stray speck widens the box
COVERED = 0.5  # ours: of a lesion's box; less of it in the breast, as that was found, is told


@dataclass(frozen=True)
class Mass:
    """What an image's job needs of one row of the case table; `box` is None where the mask gives it."""

    mass_id: str
    box: Box | None
    mask_path: str
    crop_path: str


@dataclass(frozen=True)
class ImageJob:
    """One image with all its masses, small enough to be sent anywhere; paths are below `root`."""

    root: Path
    image_path: str
    aspect: float | None  # original height / width, of an image stored with other proportions
    masses: tuple[Mass, ...]
    patches: PatchExtraction
    globals: GlobalExtraction
    seed: int
    result: Path


@dataclass(frozen=True)
class Findings:
    """What came of an image but for its pixels; empty, with problems, when all its masses were set aside."""

    boxes: dict[str, Box] = field(default_factory=dict)  # mass_id -> box in the stored image
    centres: list[list[int]] = field(default_factory=list)  # x, y and side of each window, in the restored image
    crop: Box | None = None  # in the restored image
    view_boxes: list[list[float]] = field(default_factory=list)  # in the global view, in order of `boxes`
    problems: list[dict[str, str]] = field(default_factory=list)


def run_job(job: ImageJob) -> None:
    """`process_image`, kept in the file `job.result`."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the executor spreads the work; threads below it only get in each other's way
    try:
        findings, patches, view = process_image(job)
    finally:
        cv2.setNumThreads(threads)
    with paths.atomic_write(job.result) as part, open(part, "wb") as file:
        np.savez(file, patches=patches, view=view, findings=np.array(json.dumps(asdict(findings))))


def load_findings(path: Path) -> Findings:
    """The findings in a file that `run_job` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        fields: dict[str, Any] = json.loads(str(arrays["findings"]))
    fields["boxes"] = {mass_id: Box(**box) for mass_id, box in fields["boxes"].items()}
    fields["crop"] = fields["crop"] and Box(**fields["crop"])
    return Findings(**fields)


def load_pixels(path: Path, name: str) -> np.ndarray:
    """uint8 (n, size, size) of a file that `run_job` wrote: "patches", or "view" with n = 1."""
    with np.load(path, allow_pickle=False) as arrays:
        pixels: np.ndarray = arrays[name]
    return pixels


def process_image(job: ImageJob) -> tuple[Findings, np.ndarray, np.ndarray]:
    """Findings, patches uint8 (n, size, size) in order of the boxes, global view uint8 (1 or 0, size, size)."""
    patches, view = (np.empty((0, size, size), np.uint8) for size in (job.patches.size, job.globals.size))
    try:
        image = read_image(_inside(job.root, job.image_path))
    except (ImageError, OSError) as error:
        return Findings(problems=[_problem(mass.mass_id, job.image_path, error) for mass in job.masses]), patches, view
    boxes, problems = _find_boxes(job, image)
    if not boxes:
        return Findings(problems=problems), patches, view
    whole, restored = restore(image, boxes, job.aspect)
    try:
        cut = global_image(whole, list(restored.values()), job.globals)
    except NoBreastError as error:
        lost = [_problem(mass_id, job.image_path, error) for mass_id in boxes]
        return Findings(problems=problems + lost), patches, view
    centres, patches = _patches(job, whole, restored)
    problems += [
        problem(mass_id, NOTE, job.image_path, f"only {share:.0%} of its box lies in the breast that was found")
        for mass_id, share in zip(boxes, cut.covered, strict=True)
        if share < COVERED
    ]
    return Findings(boxes, centres, cut.crop, cut.boxes, problems), patches, cut.pixels[None]


def lesion_view(job: ImageJob, crop: Box) -> np.ndarray | None:
    """Masks of all the image's masses in its global view, which was cut from `crop`: bool (size, size).

    None where a mass has no mask that can be used, or its files are not at hand.
    """
    try:
        image = read_image(_inside(job.root, job.image_path))
        masks = [_read_mask(job.root, mass, image)[0] for mass in job.masses]
    except (ImageError, OSError):
        return None
    whole, _ = restore(255 * np.any(masks, axis=0).astype(np.uint8), {}, job.aspect)
    return view_of_mask(whole >= 128, crop, job.globals.size)


def restore(image: np.ndarray, boxes: Mapping[str, Box], aspect: float | None) -> tuple[np.ndarray, dict[str, Box]]:
    """Image (H, W) and boxes with their original height / width, `aspect`; None: they have it.

    The squeezed side is stretched, so that no pixel is lost.
    """
    if aspect is None:
        return image, dict(boxes)
    height, width = image.shape
    wider, higher = max(1.0, height / aspect / width), max(1.0, width * aspect / height)
    size = (round(width * wider), round(height * higher))
    scaled = {}
    for mass_id, box in boxes.items():
        x, y = int(box.x * size[0] / width), int(box.y * size[1] / height)
        right, bottom = -int(-box.right * size[0] // width), -int(-box.bottom * size[1] // height)
        scaled[mass_id] = Box(x, y, right - x, bottom - y)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)), scaled


def _patches(job: ImageJob, image: np.ndarray, boxes: Mapping[str, Box]) -> tuple[list[list[int]], np.ndarray]:
    centres, patches, white = [], [], int(image.max())
    for mass_id, box in boxes.items():
        generator = np.random.default_rng([job.seed, zlib.crc32(mass_id.encode())])  # the same in any order of work
        side = round(job.patches.context * max(box.w, box.h))
        for x, y in patch_centres(box, job.patches.centres, generator):
            centres.append([int(x), int(y), patch_window(image.shape, (x, y), side).w])
            patches.append(patch(image, (x, y), side, job.patches.size, white))
    return centres, np.stack(patches)


def _problem(mass_id: str, file: str, reason: object) -> dict[str, str]:
    return problem(mass_id, STAGE, file, str(reason))


def _inside(root: Path, relative: str) -> Path:
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(f"{path}: a link that leads out of the archive: put the file itself there")
    return path


def _find_boxes(job: ImageJob, image: np.ndarray) -> tuple[dict[str, Box], list[dict[str, str]]]:
    """The box of each mass that has one within the image; problems of the others; notes on repaired masks."""
    boxes, problems = {}, []
    for mass in job.masses:
        try:
            box, note = _of_table(job.root, mass, mass.box, image) if mass.box else _of_mask(job.root, mass, image)
        except (ImageError, OSError) as error:
            problems.append(_problem(mass.mass_id, mass.mask_path, error))
            continue
        if note:
            problems.append(problem(mass.mass_id, NOTE, mass.mask_path, note))
        if box.within(image.shape):
            boxes[mass.mass_id] = box
            continue
        place = f"box_x {box.x}, box_y {box.y}, box_w {box.w}, box_h {box.h}"
        reason = f"its box ({place}) reaches outside of its image of {image.shape[1]} x {image.shape[0]} pixels"
        problems.append(_problem(mass.mass_id, job.image_path, reason))
    return boxes, problems


def _of_table(root: Path, mass: Mass, box: Box, image: np.ndarray) -> tuple[Box, str]:
    """The table's box, and a note where its mask, which it can do without, is of no use.

    MaskError when the mask lies beside the box: one of the two is of something else.
    """
    if not mass.mask_path:
        return box, ""
    try:
        mask, _ = read_mask(_inside(root, mass.mask_path), image)
    except (ImageError, OSError) as error:
        return box, f"{error}: the box of the table counts, its outline is not known"
    if box.within(image.shape) and not box.of(mask).any():
        raise MaskError("no pixel of its mask lies in its box: correct one of them, or leave one blank")
    return box, ""


def _of_mask(root: Path, mass: Mass, image: np.ndarray) -> tuple[Box, str]:
    """Box, and the note of `masks.read_mask`, or that the mask has parts beside the largest."""
    mask, note = _read_mask(root, mass, image)
    *_, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = parts[1:, cv2.CC_STAT_AREA].max() / np.count_nonzero(mask)
    apart = "" if largest >= ONE_PART else f"the mask is in parts, the largest {largest:.0%} of it: the box holds all"
    return box_of_mask(mask), note or apart


def _read_mask(root: Path, mass: Mass, image: np.ndarray) -> tuple[np.ndarray, str]:
    mask_path, crop_path = (_inside(root, name) if name else None for name in (mass.mask_path, mass.crop_path))
    return read_mask(mask_path, image, crop_path)
