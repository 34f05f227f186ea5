"""Pictures of mammograms and heat maps, and the style and the saving that every figure shares.

Takes arrays, gives matplotlib figures. Knows no network and no stage; reads no file and writes only through `save`.
The curves (ROC, calibration, learning, forest) are in figures_curves.py, the picture of all comparisons in
figures_overview.py, the explorer's pictures in figures_case.py; no other module uses matplotlib.

Style (ours): journal column widths; 7 point type, nothing below 5.5; the colours of Okabe and Ito, which colour-blind
readers tell apart, and always a second sign (dash, marker, fill) so that grey print loses nothing; text stays text in
PDF. Figures are made without pyplot: no global state, no window, no leak. Every figure says which data it shows.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke

from mammo_lib.config import CLASSES
from mammo_lib.paths import atomic_write

SINGLE = 88 / 25.4  # inches: one journal column
DOUBLE = 180 / 25.4  # inches: both columns
DPI = 300  # of the PNG, and of pixels inside the PDF

BLACK, GREY, LIGHT = "#000000", "#666666", "#d0d0d0"
BLUE, GREEN, RED, SKY, PURPLE = "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"  # Okabe, Ito
LESION = "#ff0000"  # the red box of Fig. 7
HEAT = "inferno"  # dark to light in grey print as well
SIGNS = (
    "Left: global image; red: lesion box, and the lesion's contour where the archive has its mask. Right: Grad-CAM of "
    "the malignant score, with the breast's outline and the box"
)
SHEET_COLUMNS = 8  # pictures side by side in a contact sheet
CONTACT_SIGNS = (
    "Red: lesion box. Blue: where Grad-CAM reaches half its maximum; none where a map has no positive evidence. "
    "Number: p(malignant)"
)

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "image.cmap": "gray",
    "pdf.fonttype": 42,  # TrueType: text can be searched and edited
}

Arguments = ParamSpec("Arguments")
Boxes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class View:
    """A picture with its lesions. image: uint8 (H, W); boxes: [x, y, w, h] in its pixels; mask: bool (H, W) or None.

    crop: a box likewise, of what is cut out of the picture, or None.
    """

    image: np.ndarray
    title: str
    boxes: Boxes = ()
    mask: np.ndarray | None = None
    crop: Sequence[float] | None = None


@dataclass(frozen=True)
class Sample:
    """One explained decision. image: uint8 (S, S); heat: float (S, S) in 0..1; label: 0 benign, 1 malignant.

    boxes: lesions, [x, y, w, h] in pixels of the image; mask: bool (S, S), or None where only boxes are known.
    """

    image: np.ndarray
    heat: np.ndarray
    boxes: Boxes
    probability: float
    label: int
    mask: np.ndarray | None = None


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw in STYLE, then lay the figure out once and for all.

    matplotlib's constrained layout starts from where the last drawing left it: without this, the second of two files
    of one figure would differ from the first.
    """

    @wraps(draw)
    def styled_draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with rc_context(STYLE):
            figure = draw(*args, **kwargs)
            for _ in range(2):  # the first pass does not know yet where equal aspects move the titles
                figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    return styled_draw


def new_figure(width: float, height: float, data: str) -> Figure:
    """An empty figure, sizes in inches, that says below which data it shows."""
    sentence = textwrap.fill(f"Data: {data}", width=int(width * 24))  # about 24 characters an inch at 5.5 points
    foot = 0.085 * (sentence.count("\n") + 1) + 0.03
    engine = ConstrainedLayoutEngine(rect=(0, foot / height, 1, 1 - foot / height))
    figure = Figure(figsize=(width, height), dpi=DPI, layout=engine)
    FigureCanvasAgg(figure)
    figure.text(0.01, 0.02 / height, sentence, fontsize=5.5, color=GREY, va="bottom", linespacing=1.1)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.pdf and `name`.png below `folder`, whole or not at all; the same figure gives the same bytes."""
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    paths = []
    with rc_context(STYLE):  # the font type of a PDF is read when it is written
        for kind, entries in metadata.items():
            path = folder / f"{name}.{kind}"
            with atomic_write(path) as part:
                figure.savefig(part, format=kind, dpi=DPI, metadata=entries)
            paths.append(path)
    return paths


@styled
def four_views(views: Sequence[View], data: str) -> Figure:
    """Fig. 2: the views of one patient side by side (L-CC, L-MLO, R-CC, R-MLO), lesions outlined in red."""
    figure = new_figure(DOUBLE, 0.32 + 1.7 * _tallest(views) * 4 / max(4, len(views)), data)
    for axes, view, letter in zip(_row(figure, len(views)), views, "abcdefgh", strict=False):
        draw_view(axes, view)
        axes.set_title(f"({letter}) {view.title}")
    return figure


@styled
def patch_and_global(patch: View, whole: View, global_image: View, data: str) -> Figure:
    """Fig. 3: (a) a patch of set P, (b) the whole mammogram that it was cut from, (c) the global image of set G."""
    views = (patch, whole, global_image)
    signs = "Red: lesion box. Dashed: where the patch was cut"
    figure = new_figure(DOUBLE, 0.45 + 2.2 * min(_tallest(views), 1.35), f"{data}. {signs}")
    for axes, view, letter in zip(_row(figure, 3), views, "abc", strict=True):
        draw_view(axes, view)
        axes.set_anchor("N")  # their titles in one line
        axes.set_title(f"({letter}) {view.title}")
    return figure


@styled
def gradcam_samples(samples: Sequence[Sample], data: str, network: str, rule: str) -> Figure:
    """Fig. 7: each sample's global image, lesion in red, and the heat map beside it; benign row, malignant row.

    network: whose decisions they are. rule: how the samples were chosen, printed below. ValueError without samples.
    """
    rows = [[sample for sample in samples if sample.label == label] for label in range(len(CLASSES))]
    rows = [row for row in rows if row]
    at_least_one(rows)
    most = max(len(row) for row in rows)
    height = 0.35 + len(rows) * (0.3 + 6.5 / (2 * most))
    figure = new_figure(DOUBLE, height, f"{data}. Network: {network}. Cases: {rule}. {SIGNS}")
    grid = figure.subplots(len(rows), 2 * most, squeeze=False)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            without_axes(axes)
        for column, sample in enumerate(row):
            left, right = line[2 * column], line[2 * column + 1]
            draw_view(left, View(sample.image, "", sample.boxes, sample.mask))
            _draw_heat(right, sample)
            left.set_title(_caption(sample, next(letters)), loc="left", linespacing=1.25)
    colour_bar(figure, grid[0, 1].images[0], grid, "Grad-CAM, share of each map's maximum")
    return figure


def _caption(sample: Sample, letter: str) -> str:
    return f"({letter})\n{CLASSES[sample.label]}, p(malignant) = {sample.probability:.2f}"


@styled
def contact_sheet(groups: Mapping[str, Sequence[Sample]], data: str) -> Figure:
    """Every given sample small, group by group under its heading: red lesion box, half height of the map as a line.

    groups: heading -> samples; an empty group keeps its heading. Below each picture stands p(malignant).
    """
    at_least_one(groups)
    lines = [-(-len(samples) // SHEET_COLUMNS) for samples in groups.values()]  # rounded up
    heights = [count * (DOUBLE / SHEET_COLUMNS + 0.08) + 0.22 for count in lines]
    figure = new_figure(DOUBLE, 0.25 + sum(heights), f"{data}. {CONTACT_SIGNS}")
    parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, count, (heading, samples) in zip(parts, lines, groups.items(), strict=True):
        part.suptitle(f"{heading} ({len(samples)})", x=0.01, ha="left", fontsize=7, fontweight="bold")
        if not count:
            continue
        for axes in part.subplots(count, SHEET_COLUMNS, squeeze=False).flat:
            without_axes(axes)
        for axes, sample in zip(part.axes, samples, strict=False):
            draw_view(axes, View(sample.image, "", sample.boxes))
            if sample.heat.max() > 0:
                outlined_contour(axes, sample.heat, 0.5 * sample.heat.max(), SKY)
            axes.set_title(f"{sample.probability:.2f}", fontsize=6, y=-0.14, va="bottom", pad=0)
    return figure


def outlined_contour(axes: Axes, values: np.ndarray, level: float, colour: str) -> None:
    """Where values (S, S) reach `level`, as a line."""
    contour = axes.contour(values, levels=[level], colors=[colour], linewidths=0.7)
    contour.set_path_effects([withStroke(linewidth=1.3, foreground="black")])  # for grey print


def draw_view(axes: Axes, view: View) -> None:
    """The image, the outline of its mask, its boxes; dashed, what is cut out of it."""
    axes.imshow(view.image, vmin=0, vmax=255, interpolation="antialiased")
    without_axes(axes)
    if view.mask is not None and view.mask.any():
        outlined_contour(axes, view.mask, 0.5, LESION)
    for box in view.boxes:
        draw_box(axes, box, LESION)
    if view.crop is not None:
        draw_box(axes, view.crop, SKY, dash="--")


def draw_box(axes: Axes, box: Sequence[float], colour: str, width: float = 0.7, dash: str = "-") -> None:
    """A box [x, y, w, h] in pixels of the picture, as a line `width` points wide."""
    x, y, w, h = box
    corner = (x - 0.5, y - 0.5)  # pixel 0 is at -0.5
    outline = Rectangle(corner, w, h, fill=False, edgecolor=colour, linewidth=width, linestyle=dash)
    outline.set_path_effects([withStroke(linewidth=width + 0.6, foreground="black")])  # for grey print
    axes.add_patch(outline)


def _draw_heat(axes: Axes, sample: Sample) -> None:
    """The map alone, so that the colour bar holds; the breast's outline and the lesion box are for orientation."""
    draw_map(axes, of_maximum(sample.heat), sample.image)
    for box in sample.boxes:
        draw_box(axes, box, "white")
    if sample.heat.max() == 0:
        axes.text(0.5, 0.02, "no positive evidence", ha="center", va="bottom", color="white", transform=axes.transAxes)


def of_maximum(heat: np.ndarray) -> np.ndarray:
    """A heat map as shares of its own maximum; an empty one as it is. grad-cam leaves a faint map below 1."""
    return heat / heat.max() if heat.max() > 0 else heat


def draw_map(axes: Axes, values: np.ndarray, image: np.ndarray) -> None:
    """Values (S, S) in 0..1 on the common scale, and the outline of the breast in the image, where it has one."""
    axes.imshow(values, cmap=HEAT, vmin=0, vmax=1, interpolation="antialiased")
    if image.any() and not image.all():
        axes.contour(image > 0, levels=[0.5], colors=["white"], linewidths=0.4, alpha=0.8)


def colour_bar(figure: Figure, maps: AxesImage, grid: np.ndarray, label: str) -> None:
    """The scale 0..1 of `maps` beside a grid of axes."""
    bar = figure.colorbar(maps, ax=grid, fraction=0.012, pad=0.01, shrink=0.8, aspect=35, ticks=[0, 0.5, 1])
    bar.set_label(label, fontsize=6.5)
    bar.outline.set_visible(False)  # type: ignore[operator]


def without_axes(axes: Axes) -> None:
    """For a picture: no frame and no ticks, whose place would be computed at every drawing although none is seen."""
    axes.set_axis_off()
    axes.set(xticks=(), yticks=())


def at_least_one(things: Sequence[Any] | Mapping[str, Any] | pd.DataFrame) -> None:
    """ValueError when there is nothing to draw: an empty figure would look like a result."""
    if not len(things):
        raise ValueError("a figure needs at least one thing to show, got none")


def _row(figure: Figure, count: int) -> Sequence[Axes]:
    axes: Sequence[Axes] = list(figure.subplots(1, count, squeeze=False).flat)
    return axes


def _tallest(views: Sequence[View]) -> float:
    at_least_one(views)
    return max(view.image.shape[0] / view.image.shape[1] for view in views)


@styled
def work_flow(steps: Sequence[tuple[str, str]], data: str) -> Figure:
    """Fig. 1: the steps from archive to report, left to right; each is (name, what it holds)."""
    at_least_one(steps)
    figure = new_figure(DOUBLE, 1.25, data)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, len(steps)), ylim=(0, 1))
    shape = "round,pad=0,rounding_size=0.05"
    for index, (name, content) in enumerate(steps):
        axes.add_patch(FancyBboxPatch((index + 0.08, 0.1), 0.76, 0.8, shape, facecolor="#f3f3f3", edgecolor=GREY))
        axes.text(index + 0.46, 0.78, name, ha="center", va="center", fontweight="bold")
        axes.text(index + 0.46, 0.4, textwrap.fill(content, 17), ha="center", va="center", fontsize=6, linespacing=1.3)
        if index + 1 < len(steps):
            ends = (index + 0.86, 0.5), (index + 1.06, 0.5)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=7, color=BLACK))
    return figure
