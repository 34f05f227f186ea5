"""Figures of numbers: ROC, confusion, learning, calibration, paired differences, localisation.

Takes predictions, histories and tables that were computed elsewhere, gives matplotlib figures in the style of
figures.py. Knows no network and no stage, reads no file, and estimates no interval: bands and limits are passed in.

Backbones share a colour and a panel; without CBAM is grey and dashed, with CBAM coloured and solid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_curve

from mammo_lib.config import CBAM_SUFFIX, CLASSES, EXTRA_LABELS, INITIAL_LABELS, ROW_LABELS
from mammo_lib.evaluation.figures import (
    BLACK,
    BLUE,
    DOUBLE,
    GREEN,
    GREY,
    LIGHT,
    PURPLE,
    RED,
    SINGLE,
    at_least_one,
    new_figure,
    styled,
)

INITIAL_STYLES = {
    "scratch": (GREY, ":"),
    "imagenet": (BLUE, "--"),
    "patch": (RED, "-"),
    "imagenet_patch": (PURPLE, "-"),
}
PER_ROW = 6  # networks side by side: as many as the paper has
FIFTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)
LOSS_LIMIT = 3  # ours, nats: chance is 0.69; one diverged first epoch would flatten every other curve
BINS = 10  # ours: calibration points, of equal numbers of cases


@dataclass(frozen=True)
class Curve:
    """A network's test scores. label: int (n,), 1 = malignant; probability: float (n,) in 0..1.

    text: what the legend adds, such as "AUC 0.81 (0.76 to 0.86)"; band: false positive rate, and lower and upper limit
    of the true positive rate there, three arrays of one length, or None.
    """

    network: str
    label: np.ndarray
    probability: np.ndarray
    text: str = ""
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


@styled
def roc_curves(curves: Sequence[Curve], data: str) -> Figure:
    """ROC curves, a panel per backbone, with the interval bands that are given."""
    figure, panels = _backbone_panels(curves, data, height=2.55)
    for axes, members in panels:
        for curve in members:
            colour, dash = _style(curve.network)
            if curve.band is not None:
                grid, low, high = curve.band
                axes.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
            false, true, _ = roc_curve(curve.label, curve.probability, drop_intermediate=False)
            axes.plot(false, true, color=colour, linestyle=dash, label=_legend(curve))
        axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.7, zorder=0)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="1 − specificity")
        axes.legend(loc="lower right", handlelength=1.8, borderaxespad=0.1, labelspacing=0.7)
    panels[0][0].set_ylabel("sensitivity")
    return figure


@styled
def calibration(curves: Sequence[Curve], data: str) -> Figure:
    """Observed share of malignant cases against the mean score, in bins of equal numbers of cases; scores below."""
    figure, panels = _backbone_panels(curves, data, height=3.3, histogram=True)
    for axes, members in panels:
        below = axes.figure.axes[axes.figure.axes.index(axes) + len(panels)]
        for curve in members:
            colour, dash = _style(curve.network)
            observed, mean = calibration_curve(curve.label, curve.probability, n_bins=BINS, strategy="quantile")
            marker, face = ("o", colour) if dash == "-" else ("s", "white")
            points = {"marker": marker, "markersize": 3.2, "markerfacecolor": face}
            axes.plot(mean, observed, color=colour, linestyle=dash, label=_legend(curve), **points)  # type: ignore[arg-type]
            below.hist(curve.probability, bins=20, range=(0, 1), histtype="step", color=colour, linestyle=dash)
        axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.7, zorder=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=FIFTHS, yticks=FIFTHS, xticklabels=[])
        # above the panel: lines may run anywhere in it
        named = {"title": axes.get_title(), "title_fontsize": axes.title.get_fontsize(), "alignment": "left"}
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.8, borderaxespad=0.1, **named)
        axes.set_title("")
        below.set(xlim=(-0.02, 1.02), xticks=FIFTHS, xlabel="score")
    panels[0][0].set_ylabel("observed share malignant")
    figure.axes[len(panels)].set_ylabel("cases")
    return figure


@styled
def confusion_matrices(curves: Sequence[Curve], threshold: float, data: str) -> Figure:
    """Counts at the threshold (malignant at or above it), shaded by the share of the true class."""
    at_least_one(curves)
    columns = min(len(curves), PER_ROW)
    rows = -(-len(curves) // columns)
    rule = f"{data}. Decision: malignant at a score of {threshold:.3f} or more"
    figure = new_figure(DOUBLE if columns > 2 else SINGLE, 0.3 + 1.4 * rows, rule)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, curve in zip(grid.flat, curves, strict=False):
        counts = confusion_matrix(curve.label, curve.probability >= threshold, labels=[0, 1])
        _draw_counts(axes, counts)
        axes.set_title(ROW_LABELS.get(curve.network, curve.network), fontsize=6.5)
    for axes in grid[:, 0]:
        axes.set_yticks([0.5, 1.5], CLASSES, rotation=90, va="center")
        axes.set_ylabel("truth")
    for axes in grid.flat[max(0, len(curves) - columns) : len(curves)]:  # nothing is below them
        axes.set_xlabel("decision")
    return figure


def _draw_counts(axes: Axes, counts: np.ndarray) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    told = [
        [f"{count}\n{part:.0%}" for count, part in zip(*rows, strict=True)] for rows in zip(counts, share, strict=True)
    ]
    shades = {"cmap": "Greys", "vmin": 0, "vmax": 1.7}  # end at a middle grey, on which black text stays readable
    written = {"annot": told, "fmt": "", "annot_kws": {"color": BLACK, "fontsize": 7}}
    seaborn.heatmap(
        share, **shades, **written, cbar=False, square=True, xticklabels=CLASSES, yticklabels=False, ax=axes
    )
    axes.tick_params(length=0)


@styled
def learning_curves(histories: Mapping[str, Mapping[str, pd.DataFrame]], data: str) -> Figure:
    """Loss and accuracy over epochs, a column per network; line by initial weights, training thin, validation thick.

    histories: network -> initial weights -> table with epoch, train_loss, validation_loss, train_accuracy,
    validation_accuracy. A dot marks the epoch of the best validation accuracy (ties by loss).
    """
    at_least_one(histories)
    width = DOUBLE if len(histories) > 2 else SINGLE
    blocks, columns = -(-len(histories) // PER_ROW), min(len(histories), PER_ROW)
    figure = new_figure(width, 0.5 + 2.4 * blocks, data)
    grid = figure.subplots(2 * blocks, columns, squeeze=False, sharey="row")
    pairs = grid.reshape(blocks, 2, columns).transpose(0, 2, 1).reshape(-1, 2)  # loss and accuracy of each network
    for axes in pairs[len(histories) :].flat:
        axes.set_axis_off()
    for column, (network, runs) in zip(pairs, histories.items(), strict=False):
        column[0].sharex(column[1])
        column[0].tick_params(labelbottom=False)
        for initial, history in runs.items():
            colour, dash = INITIAL_STYLES.get(initial, (PURPLE, "-."))
            best = history.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True]).iloc[0]
            for axes, measure in zip(column, ("loss", "accuracy"), strict=True):
                axes.plot(history["epoch"], history[f"train_{measure}"], color=colour, linewidth=0.5, linestyle=dash)
                label = INITIAL_LABELS.get(initial, initial)
                axes.plot(history["epoch"], history[f"validation_{measure}"], color=colour, linestyle=dash, label=label)
                axes.plot(best["epoch"], best[f"validation_{measure}"], "o", color=colour, markersize=3)
        column[0].set_title(ROW_LABELS.get(network, network), fontsize=6.5)
        column[1].set_xlabel("epoch")
        column[1].xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for loss, accuracy in pairs[::columns]:  # the first of each row
        if loss.get_ylim()[1] > LOSS_LIMIT:
            loss.set(ylim=(0, LOSS_LIMIT))
        loss.set_ylabel(f"cross entropy\n(up to {LOSS_LIMIT})")
        accuracy.set_ylabel("accuracy")
    title = "thin: training, thick: validation, dot: epoch kept; initial weights:"
    handles = {line.get_label(): line for axes in pairs[:, 0] for line in axes.lines if line.get_label()[0] != "_"}
    legend = figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, title=title)
    legend.set_alignment("left")
    return figure


@styled
def forest(frame: pd.DataFrame, data: str, measure: str = "difference in AUC", decimals: int = 3) -> Figure:
    """Paired differences with intervals, a line per row, numbers at the right; the zero line is no difference.

    frame: columns label, difference, low, high, p, which is printed as given: say in `measure` or the caption whether
    it is corrected. A row whose difference is missing stays in the figure, marked "not available".
    """
    at_least_one(frame)
    lines = 1 + frame["label"].str.count("\n").max()
    figure = new_figure(DOUBLE, 0.62 + (0.07 + 0.12 * lines) * len(frame), data)
    axes = figure.subplots()
    places = np.arange(len(frame))[::-1]
    known = frame["difference"].notna().to_numpy()
    shown = frame[known]
    axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
    axes.hlines(places[known], shown["low"], shown["high"], color=BLACK, linewidth=1.1)
    axes.plot(shown["difference"], places[known], "s", color=BLACK, markersize=4)
    axes.set_yticks(places, frame["label"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(ylim=(-0.6, len(frame) - 0.4), xlabel=measure)
    axes.xaxis.set_major_locator(MaxNLocator(4))  # more do not fit beside long labels
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [_forest_text(row, decimals) for row in frame.to_dict("records")])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    return figure


def _forest_text(row: Mapping[Any, float], decimals: int) -> str:
    if not np.isfinite(row["difference"]):
        return "not available"
    difference, low, high = (f"{row[name]:+z.{decimals}f}".replace("-", "−") for name in ("difference", "low", "high"))
    p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.3f}"
    interval = f"{difference} ({low} to {high})" if np.isfinite(row["low"]) else difference
    return interval if not np.isfinite(row["p"]) else f"{interval}  {p}"


@styled
def localisation(summary: pd.DataFrame, measures: Mapping[str, str], data: str) -> Figure:
    """Mean and interval of each localisation measure for each method, a panel per measure.

    summary: columns method, measure, mean, low, high (one row each). measures: column value -> axis title.
    """
    at_least_one(summary)
    methods = list(dict.fromkeys(summary["method"]))
    figure = new_figure(DOUBLE, 0.6 + 0.17 * len(methods), data)
    places = np.arange(len(methods))[::-1]
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        rows = summary[summary["measure"] == measure].set_index("method").reindex(methods)
        axes.hlines(places, rows["low"], rows["high"], color=BLACK, linewidth=1.1)
        axes.plot(rows["mean"], places, "o", color=GREEN, markeredgecolor=BLACK, markeredgewidth=0.5, markersize=4)
        axes.set(xlabel=title, ylim=(-0.6, len(methods) - 0.4), xlim=(0, None))
        axes.grid(axis="x", color=LIGHT, linewidth=0.4)
        axes.set_axisbelow(True)
    panels[0].set_yticks(places, methods)
    return figure


def _backbone_panels(
    curves: Sequence[Curve], data: str, height: float, histogram: bool = False
) -> tuple[Figure, list[tuple[Axes, list[Curve]]]]:
    """A figure with one panel per backbone (and one below each for its histogram), with the curves of each."""
    at_least_one(curves)
    backbones: dict[str, list[Curve]] = {}
    for curve in curves:
        backbones.setdefault(curve.network.removesuffix(CBAM_SUFFIX), []).append(curve)
    figure = new_figure(DOUBLE if len(backbones) > 1 else SINGLE, height, data)
    ratios = [4, 1] if histogram else [1]
    grid = figure.subplots(len(ratios), len(backbones), squeeze=False, height_ratios=ratios, sharey="row")
    for axes, backbone in zip(grid[0], backbones, strict=True):
        axes.set_title(ROW_LABELS.get(backbone, backbone))
    return figure, list(zip(grid[0], backbones.values(), strict=True))


def _style(network: str) -> tuple[str, str]:
    return (BLUE, "-") if network.endswith(CBAM_SUFFIX) else (GREY, "--")


def _legend(curve: Curve) -> str:
    kind = "with CBAM" if curve.network.endswith(CBAM_SUFFIX) else "without CBAM"
    if curve.network in EXTRA_LABELS:  # which have no kind with CBAM
        return curve.text or ROW_LABELS[curve.network]
    return f"{kind}\n{curve.text}" if curve.text else kind
