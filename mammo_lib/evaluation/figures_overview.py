"""One picture of every comparison that was made, beside what the paper printed: the answers of the README.

Takes the table that stages/answers.py makes, gives a matplotlib figure in the style of figures.py. Estimates nothing.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mammo_lib.evaluation.figures import BLUE, DOUBLE, GREY, LIGHT, RED, at_least_one, new_figure, styled

PANELS = {  # questions of a panel -> its title
    ("CBAM",): "Does CBAM help? With CBAM minus without",
    ("patch over ImageNet", "patch over scratch"): "Does patch transfer help? By way of patches minus without them",
    ("random split",): "Does the split move the AUC? Random minus by patient",
}
ARMS = {"ImageNet": "from ImageNet alone", "random": "from random weights"}
PATCHES, WHOLE, BY_WAY = "patches", "whole mammograms", "by way of patches"
SPREAD = 0.26  # of a line's height, from one training seed to the next
LINE, ROOM = 0.155, 0.3  # inches: a line's height, and what a panel needs besides


@styled
def overview(frame: pd.DataFrame, data: str) -> Figure:
    """Differences in AUC with their intervals, a line a profile and network, a square a training seed.

    frame: columns question, stage, profile, pixels, network, initial, other, auc_first, auc_second, difference, low,
    high, learnt. Without low and high a row is a printed difference. Hollow: neither network is above chance (learnt
    is 0). Right: AUCs of the two, the mean over seeds.
    """
    at_least_one(frame)
    panels = {title: frame[frame["question"].isin(asked)] for asked, title in PANELS.items()}
    lines = {title: list(_lines(rows)) for title, rows in panels.items() if len(rows)}
    counts = [len(found) for found in lines.values()]
    figure = new_figure(DOUBLE, LINE * sum(counts) + ROOM * len(counts) + 0.5, data)
    grid = figure.subplots(len(counts), 1, squeeze=False, sharex=True, height_ratios=counts)
    for axes, (title, found) in zip(grid[:, 0], lines.items(), strict=True):
        _draw(axes, found)
        axes.set_title(title, loc="left", fontweight="bold")
    grid[-1, 0].set_xlabel("difference in AUC, interval over patients")
    signs = {
        "one training seed": {"color": BLUE, "marker": "s"},
        "neither network above chance": {"color": GREY, "marker": "s", "markerfacecolor": "white"},
        "printed, one of the paper's networks": {"color": RED, "marker": "D", "linestyle": "none"},
    }
    handles = [Line2D([], [], markersize=3.5, label=label, **sign) for label, sign in signs.items()]  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _lines(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame | None]]:
    """Label and rows of every line from above; a heading has no rows. What was printed shares one line a group."""
    for heading, group in rows.groupby(rows.apply(_heading, axis=1), sort=False):
        yield str(heading), None
        for label, line in group.groupby(group.apply(_label, axis=1), sort=False):
            yield str(label), line


def _heading(row: pd.Series) -> str:
    if row["question"].startswith("patch over"):
        return f"{WHOLE}, over {ARMS[row['other']].removeprefix('from ')}"
    if row["stage"] == "P":
        return PATCHES
    return f"{WHOLE}, {ARMS.get(row['initial'], BY_WAY)}" if row["question"] == "CBAM" else WHOLE


def _label(row: pd.Series) -> str:
    if np.isnan(row["low"]):
        return f"the paper, {row['pixels']} pixels"
    network = row["other"] if row["question"] == "CBAM" else row["network"]
    return f"{network}, {row['pixels']} pixels ({row['profile']})"


def _draw(axes: Axes, lines: list[tuple[str, pd.DataFrame | None]]) -> None:
    places = np.arange(len(lines))[::-1]
    axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
    texts = [_aucs(rows) for _, rows in lines]
    if any(texts):
        texts[0] = "AUCs"  # beside a heading
    for place, (_, rows) in zip(places, lines, strict=True):
        if rows is None:
            continue
        printed = rows["low"].isna().all()
        offsets = np.zeros(len(rows)) if printed else SPREAD * ((len(rows) - 1) / 2 - np.arange(len(rows)))
        axes.axhline(place, color=LIGHT, linewidth=0.3, zorder=0)
        for height, row in zip(place + offsets, rows.to_dict("records"), strict=True):
            colour, face = (GREY, "white") if row["learnt"] == 0 else (BLUE, BLUE)
            if printed:
                axes.plot(row["difference"], height, "D", color=RED, markersize=3)
                continue
            axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=0.8)
            axes.plot(row["difference"], height, "s", color=colour, markerfacecolor=face, markersize=2.6)
    axes.set_yticks(places, [label for label, _ in lines])
    for tick, (_, rows) in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontstyle("italic" if rows is None else "normal")
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, texts)
    for side in (axes, right):
        side.tick_params(axis="y", length=0)
        side.spines["left" if side is axes else "right"].set_visible(False)
    axes.set_ylim(-0.7, len(lines) - 0.3)


def _aucs(rows: pd.DataFrame | None) -> str:
    if rows is None or rows["low"].isna().all() or rows["auc_first"].isna().all():
        return ""
    return f"{rows['auc_first'].mean():.2f}, {rows['auc_second'].mean():.2f}"
