"""Figures of a single case, as the explorer shows and exports them: what networks make of one image, and where on the
ROC curve a threshold lies.

Takes arrays, gives matplotlib figures in the style of figures.py. Knows no network and no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammo_lib.evaluation import metrics
from mammo_lib.evaluation.figures import (
    BLACK,
    DOUBLE,
    LESION,
    RED,
    SKY,
    Boxes,
    View,
    at_least_one,
    colour_bar,
    draw_box,
    draw_map,
    draw_view,
    new_figure,
    of_maximum,
    outlined_contour,
    styled,
    without_axes,
)
from mammo_lib.evaluation.figures_curves import Curve, roc_curves

SIGNS = (
    "Red: lesion box. Blue line: where Grad-CAM reaches half its maximum. White: breast outline and lesion box. Each "
    "Grad-CAM is scaled to its own maximum; the gate is CBAM's spatial gate as it is"
)
CROP_SIGN = "Dashed: the crop that becomes the global image"


@dataclass(frozen=True)
class Explained:
    """What one network makes of one image.

    network: its name in words. image: uint8 (S, S). boxes: lesions, [x, y, w, h] in its pixels. probability: of
    malignancy. heat: Grad-CAM, float (S, S) in 0..1. gate: CBAM's spatial gate, likewise, or None without CBAM.
    """

    network: str
    image: np.ndarray
    boxes: Boxes
    probability: float
    heat: np.ndarray
    gate: np.ndarray | None


@styled
def explained_case(rows: Sequence[Explained], title: str, data: str, whole: View | None = None) -> Figure:
    """One image and what each network makes of it, a row a network: image, Grad-CAM, spatial gate.

    whole: the mammogram that the image was cut from, with its crop; drawn before the first row's image.
    ValueError without rows.
    """
    at_least_one(rows)
    columns = (whole is not None) + 2 + any(row.gate is not None for row in rows)
    side = (DOUBLE - 0.5) / columns
    signs = SIGNS if whole is None else f"{SIGNS}. {CROP_SIGN}"
    figure = new_figure(DOUBLE, 0.42 + len(rows) * (side + 0.45), f"{data}. {signs}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=7, fontweight="bold")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        without_axes(axes)
    for line, row in zip(grid, rows, strict=True):
        _draw_row(line[int(whole is not None) :], row)
    if whole is not None:
        draw_view(grid[0, 0], whole)
        grid[0, 0].set_title(whole.title, loc="left")
    maps = grid[0, int(whole is not None) + 1].images[0]
    colour_bar(figure, maps, grid, "Grad-CAM / gate")
    return figure


def _draw_row(line: Sequence[Axes], row: Explained) -> None:
    line[0].imshow(row.image, vmin=0, vmax=255, interpolation="antialiased")
    if row.heat.max() > 0:
        outlined_contour(line[0], row.heat, 0.5 * row.heat.max(), SKY)
    _outline(line[0], row.boxes, LESION)
    name = row.network.replace(", ", "\n")
    line[0].set_title(f"{name}\np(malignant) = {row.probability:.3f}", loc="left", linespacing=1.25)
    _draw_map(line[1], row, of_maximum(row.heat))
    line[1].set_title("Grad-CAM" if row.heat.max() > 0 else "Grad-CAM:\nno positive evidence", loc="left")
    if row.gate is not None:
        _draw_map(line[2], row, row.gate)
        line[2].set_title(f"spatial gate\n({row.gate.min():.2f} to {row.gate.max():.2f})", loc="left")
    elif len(line) > 2:
        line[2].text(0.5, 0.5, "no CBAM, no gate", ha="center", va="center", transform=line[2].transAxes)


def _draw_map(axes: Axes, row: Explained, values: np.ndarray) -> None:
    draw_map(axes, values, row.image)
    _outline(axes, row.boxes, "white")


def _outline(axes: Axes, boxes: Boxes, colour: str) -> None:
    for box in boxes:
        draw_box(axes, box, colour, width=1.1)


def operating_point(curve: Curve, threshold: float, data: str) -> Figure:
    """The ROC curve with a dot where `threshold` lies: malignant at or above it. metrics.Undefined for one class."""
    counts = metrics.counts(curve.label, curve.probability, threshold)
    false, true = 1 - counts.specificity, counts.sensitivity
    figure = roc_curves([curve], f"{data}. Dot: threshold {threshold:.3f}")
    figure.axes[0].plot(false, true, "o", color=RED, markeredgecolor=BLACK, markeredgewidth=0.5, markersize=5, zorder=4)
    return figure
