"""A linear probe: logistic regressions on descriptions of cells that were made without any training on mammograms.

Knows arrays only: how cells were described is not its business. A description is float (h, w, C), its boxes are
x, y, w, h in cells (fractions allowed). Nothing is drawn at random but the cells that are learnt from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from mammo_lib.config import BACKGROUND, BENIGN, MALIGNANT, Probe

UNUSED = -1
Box = Sequence[float]


@dataclass(frozen=True)
class ImageProbe:
    """Two readings of an image: of all of it, and of the cells that look like a mass."""

    whole: Pipeline
    cells: Pipeline
    settings: Probe

    def log_odds(self, description: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
        """Log odds of malignant by each; `description` (h, w, C), `inside` bool (h, w): the cells with breast."""
        pooled = float(self.whole.decision_function(summary(description, inside)[None])[0])
        logits = self.cells.decision_function(neighbourhood(description, inside)[inside])
        return pooled, focused(logits, self.settings.focus)


def summary(description: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean and maximum over the cells that are `inside` (bool, h, w): float32 (2 C,); zeros where there is none."""
    cells = description[inside].astype(np.float32)
    if not len(cells):
        return np.zeros(2 * description.shape[-1], np.float32)
    return np.concatenate([cells.mean(0), cells.max(0)])


def box_cells(shape: tuple[int, ...], box: Box) -> np.ndarray:
    """The cells that a box touches, bool (h, w); at least one, also of a box at the border."""
    x, y, w, h = box
    touched = np.zeros(shape[:2], bool)
    top, left = min(int(max(y, 0)), shape[0] - 1), min(int(max(x, 0)), shape[1] - 1)
    touched[top : max(int(np.ceil(y + h)), top + 1), left : max(int(np.ceil(x + w)), left + 1)] = True
    return touched


def neighbourhood(description: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Each cell with those around it: float32 (h, w, 2 C), mean and maximum over the 3 x 3 cells that are inside."""
    cells = torch.from_numpy(description.astype(np.float32)).permute(2, 0, 1)[None]
    kept = torch.from_numpy(inside.astype(np.float32))[None, None]
    share = functional.avg_pool2d(kept, 3, 1, 1).clamp_min(1 / 9)
    mean = functional.avg_pool2d(cells * kept, 3, 1, 1) / share
    largest = functional.max_pool2d(cells * kept, 3, 1, 1)  # descriptions are not negative
    around: np.ndarray = torch.cat([mean, largest], dim=1)[0].permute(1, 2, 0).numpy()
    return around


def cell_labels(inside: np.ndarray, boxes: Sequence[Box], labels: Sequence[int], core: float) -> np.ndarray:
    """int8 (h, w): benign or malignant in the core of a box, background outside of all, unused between and off breast.

    `core`: share of a box's sides, around its centre.
    """
    found = np.where(inside, BACKGROUND, UNUSED).astype(np.int8)
    for box in boxes:
        found[box_cells(inside.shape, box)] = UNUSED
    for (x, y, w, h), label in zip(boxes, labels, strict=True):
        middle = (x + w * (1 - core) / 2, y + h * (1 - core) / 2, core * w, core * h)
        found[box_cells(inside.shape, middle)] = MALIGNANT if label else BENIGN
    return found


def sample(labels: np.ndarray, settings: Probe, generator: np.random.Generator) -> np.ndarray:
    """Cells of one image to learn from: int (n, 2), row and column, at most so many in masses and so many outside."""
    masses, background = np.argwhere(labels > BACKGROUND), np.argwhere(labels == BACKGROUND)
    return np.concatenate(
        [
            cells[generator.permutation(len(cells))[:most]]
            for cells, most in ((masses, settings.mass_cells), (background, settings.background_cells))
        ]
    )


def classifier(strength: float, balanced: bool = False) -> Pipeline:
    """Logistic regression on standardised columns; `strength`: scikit-learn's C."""
    weights = "balanced" if balanced else None
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, class_weight=weights))


def focused(logits: np.ndarray, focus: float) -> float:
    """Logits, float (n, 3) -> mean of malignant minus benign, each cell weighted by its P(mass) ** `focus`."""
    weights = (1 - softmax(logits, axis=1)[:, BACKGROUND]) ** focus
    return float(weights @ (logits[:, MALIGNANT] - logits[:, BENIGN]) / max(weights.sum(), np.finfo(float).tiny))


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Mean of the readings' log odds, float (n, readings), as a probability (n,)."""
    result: np.ndarray = expit(np.asarray(log_odds).mean(axis=1))
    return result
