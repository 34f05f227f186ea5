"""Does a map point at the lesion? Measured on every image, beside controls that have seen no network.

Takes maps, images, boxes and decisions as arrays and tables. Knows no network and no file; only the bootstrap over
patients is imported. Unit: the image. The lesion of an image is the union of the boxes of all its masses: every one
counts, none is chosen. Boxes are [x, y, w, h] in pixels of the global image, origin top left.

Measures, each in 0..1, greater is better:
  energy    share of the map's sum that lies inside the lesion (Wang et al. 2020, energy-based pointing game)
  pointing  1 when the map's greatest value lies inside the lesion, else 0, no tolerance (Zhang et al. 2018); when
            several pixels share the greatest value, the share of them inside
  iou       intersection over union of the lesion and of the pixels at or above half the map's greatest value
  best_iou  the same at the threshold that suits this image best: an upper bound that knows the answer, not a result
A map that is zero everywhere points nowhere: it scores 0 on all four and is counted as `empty`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mammo_lib.evaluation import statistics

Boxes = Sequence[Sequence[float]]

THRESHOLD = 0.5  # ours: share of the map's own greatest value
THRESHOLDS = np.arange(1, 20) / 20  # ours: 0.05 to 0.95, searched for best_iou
MEASURES = ("energy", "pointing", "iou", "best_iou")
GROUPS = ("all", "benign, correct", "benign, wrong", "malignant, correct", "malignant, wrong")


def lesion_mask(boxes: Boxes, size: int) -> np.ndarray:
    """bool (size, size): pixels whose centre lies in any of the boxes, and the pixel at each box's centre.

    ValueError when there is no box, or one without area or with its centre outside the image.
    """
    if not len(boxes):
        raise ValueError("an image without a lesion box cannot be localised: leave it out and list it")
    mask = np.zeros((size, size), bool)
    centres = np.arange(size) + 0.5
    for x, y, w, h in boxes:
        row, column = int(y + h / 2), int(x + w / 2)
        if w <= 0 or h <= 0 or not (0 <= row < size and 0 <= column < size):
            raise ValueError(f"lesion box {[x, y, w, h]} has no area or lies outside the {size} x {size} image")
        mask |= np.outer((centres >= y) & (centres < y + h), (centres >= x) & (centres < x + w))
        mask[row, column] = True
    return mask


def measure(heat: np.ndarray, lesion: np.ndarray) -> dict[str, float]:
    """The four measures, the threshold of best_iou, and `empty` (0 or 1), for one map.

    heat: float (S, S), at least 0; lesion: bool (S, S). ValueError for a negative or undefined value.
    """
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError("a map must hold finite values of at least 0")
    greatest = float(heat.max())
    if greatest == 0:
        return dict.fromkeys((*MEASURES, "best_threshold"), 0.0) | {"empty": 1.0}
    heat = heat.astype(np.float64)
    ious = _ious(heat / greatest, lesion)
    best = int(ious.argmax())
    return {
        "energy": float(heat[lesion].sum() / heat.sum()),
        "pointing": float(lesion[heat == greatest].mean()),
        "iou": float(ious[np.flatnonzero(THRESHOLDS == THRESHOLD)[0]]),
        "best_iou": float(ious[best]),
        "best_threshold": float(THRESHOLDS[best]),
        "empty": 0.0,
    }


def _ious(heat: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """IoU of `lesion` and `heat >= t`, for every t of THRESHOLDS, in one pass over the pixels."""
    passed = np.searchsorted(THRESHOLDS, heat, side="right")  # how many thresholds each pixel reaches
    levels = len(THRESHOLDS) + 1
    above = np.bincount(passed.ravel(), minlength=levels)[::-1].cumsum()[::-1][1:]
    common = np.bincount(passed[lesion], minlength=levels)[::-1].cumsum()[::-1][1:]
    return common / (above + lesion.sum() - common)


def uniform_breast(image: np.ndarray) -> np.ndarray:
    """1 on the breast (pixels above 0), 0 outside: its energy is the lesion's share of the breast's area, chance."""
    return (image > 0).astype(np.float32)


def centre_prior(image: np.ndarray) -> np.ndarray:
    """A Gaussian with the breast's own centre and its own standard deviations along x and y; no lesion is looked at."""
    rows, columns = np.nonzero(image)
    if not len(rows):
        return np.zeros(image.shape, np.float32)
    down, right = (_bell(places, size) for places, size in zip((rows, columns), image.shape, strict=True))
    return np.outer(down, right).astype(np.float32)


def _bell(places: np.ndarray, size: int) -> np.ndarray:
    spread = max(float(places.std()), 1.0)
    return np.exp(-0.5 * ((np.arange(size) - places.mean()) / spread) ** 2)


def brightness(image: np.ndarray) -> np.ndarray:
    """The grey values themselves, 0..1: a mass is often the brightest thing there."""
    return image.astype(np.float32) / 255


CONTROLS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "breast, uniform": uniform_breast,
    "breast centre": centre_prior,
    "pixel brightness": brightness,
}


def per_image(
    globals_: pd.DataFrame,
    images: np.ndarray,
    probability: np.ndarray,
    maps: Mapping[str, np.ndarray],
    threshold: float,
) -> pd.DataFrame:
    """One row per (image, method): who and what it is, then the measures.

    globals_: N rows with image_id, patient_id, label (1 = malignant) and boxes (JSON). images: uint8 (N, S, S), 0
    outside the breast. probability: (N,) of malignancy; a decision is malignant at or above `threshold`. maps: method
    -> float (N, S, S), at least 0, of any network or gate; CONTROLS are added. ValueError names the image.
    """
    rows = []
    for index, case in enumerate(globals_.to_dict("records")):
        found = {method: heat[index] for method, heat in maps.items()}
        found |= {method: control(images[index]) for method, control in CONTROLS.items()}
        try:
            boxes = json.loads(case["boxes"])
            lesion = lesion_mask(boxes, images.shape[-1])
            measured = {method: measure(heat, lesion) for method, heat in found.items()}
        except ValueError as error:
            raise ValueError(f"image {case['image_id']}: {error}") from error
        about = {key: case[key] for key in ("image_id", "patient_id", "label")} | {
            "probability": float(probability[index]),
            "group": group(case["label"], probability[index], threshold),
            "lesions": len(boxes),
            "lesion_share": float(lesion.mean()),
        }
        rows += [about | {"method": method} | values for method, values in measured.items()]
    return pd.DataFrame(rows)


def group(label: int, probability: float, threshold: float) -> str:
    """One of GROUPS but "all": the truth, and whether the decision (malignant at or above `threshold`) is right."""
    right = (probability >= threshold) == bool(label)
    return f"{('benign', 'malignant')[label]}, {'correct' if right else 'wrong'}"


def summary(
    rows: pd.DataFrame, resamples: int, confidence: float, seed: int, measures: Sequence[str] = MEASURES
) -> pd.DataFrame:
    """Mean of each measure over images, for every method and group of decisions, with an interval over patients.

    rows: from `per_image`, with a column for each of `measures`. One row per (method, group, measure): images,
    patients, empty (maps without any positive evidence), mean, low, high, note. Percentile bootstrap over patients: a
    patient's images move together. Where the interval does not exist (fewer than two patients), low and high are
    missing and `note` says why; a group without images has a row that says so.
    """
    table = []
    for method in rows["method"].unique():
        of_method = rows[rows["method"] == method]
        for name in GROUPS:
            cases = of_method if name == "all" else of_method[of_method["group"] == name]
            about = {
                "method": method,
                "group": name,
                "images": len(cases),
                "patients": cases["patient_id"].nunique(),
                "empty": round(float(cases["empty"].sum()), 1),  # a part of one where random networks are averaged
            }
            for name_of_measure in measures:
                values = cases[name_of_measure].to_numpy(float)
                interval = _mean(values, cases["patient_id"], resamples, confidence, seed)
                table.append(about | {"measure": name_of_measure} | interval)
    return pd.DataFrame(table).drop(columns="p")  # that a mean share is not 0 is no question


def differences(
    rows: pd.DataFrame, method: str, resamples: int, confidence: float, seed: int, measures: Sequence[str] = MEASURES
) -> pd.DataFrame:
    """Each measure of `method` minus that of every other method on the same images: does it beat the controls?

    Columns measure, label (the other method), difference, low, high, p, note: percentile interval and p of the paired
    bootstrap over patients; p is not corrected for the number of comparisons. ValueError: no such method.
    """
    if method not in set(rows["method"]):
        raise ValueError(f"no rows of method {method!r}: there are {', '.join(rows['method'].unique())}")
    others = [other for other in rows["method"].unique() if other != method]
    table = []
    for name in measures:
        wide = rows.pivot(index=["patient_id", "image_id"], columns="method", values=name)
        patients = wide.index.get_level_values("patient_id")
        for other in others:
            gap = (wide[method] - wide[other]).to_numpy()
            found = _mean(gap, patients, resamples, confidence, seed)
            found["difference"] = found.pop("mean")
            table.append({"measure": name, "label": f"{method} − {other}"} | found)
    columns = ["measure", "label", "difference", "low", "high", "p", "note"]
    return pd.DataFrame(table)[columns]


def _mean(
    values: np.ndarray, patients: pd.Series | pd.Index, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Mean with its interval and the p that it is 0; missing, with a note, where the bootstrap is not defined."""
    missing = float("nan")
    if not len(values):
        return {"mean": missing, "low": missing, "high": missing, "p": missing, "note": "no such image"}
    statistic = statistics.weighted_ratio(values, np.ones(len(values)))
    try:
        replicates = statistics.bootstrap(statistic, patients, resamples, seed)
    except statistics.Undefined as reason:
        return {"mean": float(values.mean()), "low": missing, "high": missing, "p": missing, "note": str(reason)}
    interval = statistics.percentile(replicates, confidence)
    p = statistics.bootstrap_p(replicates)
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high, "p": p, "note": ""}


def representative_cases(globals_: pd.DataFrame, probability: np.ndarray, benign: int, malignant: int) -> list[int]:
    """Row numbers of Fig. 7's samples by a fixed rule, not by looks: benign ones first, each by rising probability.

    Each class is sorted by probability (ties by image_id) and cut into `benign` (or `malignant`) groups of equal
    size; the sample is the median case of its group, the lower one of two. So the samples run from low to high
    scores, failures included; a class with fewer cases shows each of them.
    """
    order = np.lexsort((globals_["image_id"].to_numpy(str), np.asarray(probability)))
    label = globals_["label"].to_numpy()
    chosen: list[int] = []
    for value, count in ((0, benign), (1, malignant)):
        cases = order[label[order] == value]
        chosen += [int(group[(len(group) - 1) // 2]) for group in np.array_split(cases, count) if len(group)]
    return chosen
