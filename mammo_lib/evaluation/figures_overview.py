"""One picture of the paper's questions: every pair of trained networks, beside the differences that were printed.

Takes the table that stages/answers.py makes, gives a matplotlib figure in the style of figures.py. Estimates nothing.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mammo_lib.config import Evaluation
from mammo_lib.evaluation.comparisons import AS_PRINTED, CBAM, LENGTH, OVER_IMAGENET, OVER_SCRATCH, SIZE, SPLIT
from mammo_lib.evaluation.figures import BLUE, DOUBLE, GREY, LIGHT, RED, at_least_one, new_figure, styled

PANELS = {  # title -> questions, by their names in the table
    "Does CBAM help? With CBAM minus without": (CBAM,),
    "Do patches help whole mammograms? With minus without": (OVER_IMAGENET, OVER_SCRATCH),
    "Does longer training move these? Longer minus shorter": (LENGTH,),
    "Does the split move the AUC? Random minus by patient": (SPLIT,),
    "What does a smaller image cost? Larger minus smaller": (SIZE,),
}
SIGNS: dict[Any, dict[str, Any]] = {  # networks above chance -> marker
    2: {"color": BLUE, "marker": "s"},
    1: {"color": BLUE, "marker": "s", "fillstyle": "left", "markerfacecoloralt": "white"},
    0: {"color": GREY, "marker": "s", "markerfacecolor": "white"},
    AS_PRINTED: {"color": RED, "marker": "D", "linestyle": "none"},
}
MEAN = {"marker": "o"}  # of several seeds, instead of their squares
LEGEND = {
    2: "ours, one training seed",
    1: "one of the two not shown to be above chance",
    0: "neither shown to be above chance",
    AS_PRINTED: "printed, one network",
}
SPREAD = 0.26  # of a line's height, from one training seed to the next
LINE, ROOM = 0.155, 0.3  # inches: a line's height, and what a panel needs besides


@styled
def overview(frame: pd.DataFrame, data: str) -> Figure:
    """Differences in AUC with their intervals, a line a profile and network, a square a training seed.

    frame: columns question, arm, line, profile, seed, auc_first, auc_second, difference, low, high, above_chance; a row
    of ours without a seed is a mean. A line without any difference stays in the figure, marked "not available". Right:
    AUCs of the two, from the least to the highest of the seeds. ValueError for a question that has no panel.
    """
    at_least_one(frame)
    unknown = sorted(set(frame["question"]) - {name for names in PANELS.values() for name in names})
    if unknown:
        raise ValueError(f"overview: no panel shows the question {unknown[0]!r}: enter it in PANELS")
    lines = {title: list(_lines(frame[frame["question"].isin(names)])) for title, names in PANELS.items()}
    lines = {title: found for title, found in lines.items() if found}
    heights = [sum(_heights(found)) for found in lines.values()]
    figure = new_figure(DOUBLE, LINE * sum(heights) + ROOM * len(heights) + 0.6, data)
    grid = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, (title, found) in zip(grid[:, 0], lines.items(), strict=True):
        _draw(axes, found)
        axes.set_title(title, loc="left", fontweight="bold")
    grid[-1, 0].set_xlabel(f"difference in AUC, {Evaluation().confidence:.0%} interval over patients")
    signs = [(LEGEND[kind], sign) for kind, sign in SIGNS.items()] + [("mean of the seeds above it", SIGNS[2] | MEAN)]
    handles = [Line2D([], [], markersize=3.5, label=label, **sign) for label, sign in signs]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1)
    return figure


def _lines(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame | None]]:
    """Label and rows of every line from above; the heading of an arm has no rows."""
    for heading, arm in rows.groupby("arm", sort=False):
        yield str(heading), None
        for label, line in arm.groupby("line", sort=False):
            yield str(label), line


def _heights(lines: list[tuple[str, pd.DataFrame | None]]) -> list[float]:
    """Of each line: 1, or more where its seeds need it."""
    return [1.0 if rows is None or _is_printed(rows) else max(1.0, SPREAD * (len(rows) + 1)) for _, rows in lines]


def _is_printed(rows: pd.DataFrame) -> bool:
    return bool((rows["profile"] == AS_PRINTED).all())


def _draw(axes: Axes, lines: list[tuple[str, pd.DataFrame | None]]) -> None:
    heights = np.array(_heights(lines))
    below = heights[::-1].cumsum()[::-1] - heights  # of a line: how much there is below it
    places = below + heights / 2
    axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
    for place, (_, rows) in zip(places, lines, strict=True):
        if rows is not None:
            axes.axhline(place, color=LIGHT, linewidth=0.3, zorder=0)
            _draw_line(axes, float(place), rows)
    axes.set_yticks(places, [label for label, _ in lines])
    for text, (_, rows) in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontstyle("italic" if rows is None else "normal")
    right = axes.secondary_yaxis("right")
    texts = ["" if rows is None else _aucs(rows) for _, rows in lines]
    right.set_yticks(places, ["AUCs of the two" if any(texts) else "", *texts[1:]])  # the first line is a heading
    for side, spine in ((axes, "left"), (right, "right")):
        side.tick_params(axis="y", length=0)
        side.spines[spine].set_visible(False)
    axes.set_ylim(-0.2, heights.sum() + 0.2)


def _draw_line(axes: Axes, place: float, rows: pd.DataFrame) -> None:
    """A marker a row: printed ones side by side, seeds one below the other."""
    rows = rows[rows["difference"].notna()]
    printed = _is_printed(rows)
    offsets = np.zeros(len(rows)) if printed else SPREAD * ((len(rows) - 1) / 2 - np.arange(len(rows)))
    for height, row in zip(place + offsets, rows.to_dict("records"), strict=True):
        sign = SIGNS[AS_PRINTED if printed else row["above_chance"]]
        if not printed and pd.isna(row["seed"]):
            sign = sign | MEAN
        axes.plot([row["low"], row["high"]], [height, height], color=sign["color"], linewidth=0.8)
        axes.plot(row["difference"], height, markersize=3 if printed else 2.6, **sign)


def _aucs(rows: pd.DataFrame) -> str:
    if rows["difference"].isna().all():
        return "not available"
    if _is_printed(rows) or rows["auc_first"].isna().all():
        return ""
    return ", ".join(_span(rows[name].dropna()) for name in ("auc_first", "auc_second"))


def _span(values: pd.Series) -> str:
    least, most = f"{values.min():.2f}", f"{values.max():.2f}"
    return least if least == most else f"{least}–{most}"
