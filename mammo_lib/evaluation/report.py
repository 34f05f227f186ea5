"""One self-contained HTML page from sections of prose, tables, figures and links: what one sends to a co-author.

Knows how a page looks, and no result: it gets finished sentences, DataFrames and PNG files. The page works from a
file, offline and in print: figures, style and the few lines of script are inside it; only links lead elsewhere.
Everything is escaped; no input is taken for HTML.
"""

import base64
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mammo_lib.paths import write_text

MISSING = "–"  # shown where a table has no value
PNG = b"\x89PNG\r\n\x1a\n"
PAIR = re.compile(r"([-+]?[\d.]+)\*? [\[(][-+\d., ]+[\])]")  # `0.861 [0.832, 0.890]`, `0.7619* (-0.079)`
SHORT = 28  # ours: characters of a text that is not broken into lines
WIDE = 10  # ours: columns from which a table is set smaller
PIXEL = 0.03  # ours, rem: a figure of two journal columns at 300 dpi fills the page, one of a column half of it
LONG = 40  # ours: rows from which a table is folded away until asked for (and always unfolded in print)


@dataclass(frozen=True)
class Table:
    """`frame`'s columns and rows as they are (the index is not shown); `note` says unit, interval and method.

    formats: of columns that need others than three decimals (column -> "{:.1e}", "{:.0%}").
    folded: shown when asked for, and in print; a table of more than LONG rows always is.
    """

    caption: str
    frame: pd.DataFrame
    note: str = ""
    formats: Mapping[str, str] | None = None
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG file, embedded; its caption is also what readers hear who cannot see it."""

    caption: str
    path: Path


@dataclass(frozen=True)
class Link:
    """A file beside the page (an executed notebook, a CSV file), linked relative to it, or a web address."""

    text: str
    target: Path | str


@dataclass(frozen=True)
class Section:
    """Shown in this order: prose (one string a paragraph), tables, figures, links."""

    title: str
    prose: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()
    links: Sequence[Link] = ()


@dataclass(frozen=True)
class Report:
    """The page. `data_sentence` is its first line; `warning`, where there is one, stands beside it in red."""

    title: str
    data_sentence: str
    sections: Sequence[Section]
    warning: str = ""
    subtitle: str = ""
    footer: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell: what is read, what it sorts by (blank: last), and how it is set."""

    text: str
    key: str
    style: str  # "number", "pair" (broken before its bracket at most), "short" (kept on one line) or "text"


def first_line(source: str, data: str) -> tuple[str, str]:
    """(data sentence, warning) of a page from a profile's `source` and `data`: phantoms are not patients."""
    sentence = f"Data: {data}."
    if source == "phantom":
        return sentence, "Phantoms are not patients: no number on this page says anything about mammography."
    return sentence, ""


def write_report(path: Path, report: Report) -> None:
    """Write the page to `path`, whole or not at all.

    ValueError: two sections of one title, or a figure that is not a PNG. FileNotFoundError: a figure or linked file
    that is not there.
    """
    anchors = [_anchor(section.title) for section in report.sections]
    twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
    if twice:
        raise ValueError(f"report {path}: several sections are called {twice[0]!r}; give each a title of its own")
    environment = Environment(
        loader=PackageLoader("mammo_lib.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cells": _cells, "embedded": _embedded, "width": _width, "anchor": _anchor}
    environment.filters["href"] = lambda link: _href(link, path.parent)
    template = environment.get_template("report.html.jinja")
    write_text(path, template.render(report=report, long=LONG, wide=WIDE))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _embedded(picture: Picture) -> str:
    """The file as a data address."""
    if not picture.path.is_file():
        raise FileNotFoundError(f"figure {picture.path} is not there: draw the figures before the report")
    content = picture.path.read_bytes()
    if not content.startswith(PNG):
        raise ValueError(f"figure {picture.path} is not a PNG file: give the report the PNG, not the PDF")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _width(picture: Picture) -> float:
    """Shown width in rem, of the PNG's width in pixels (bytes 16 to 19 of its header)."""
    with open(picture.path, "rb") as file:
        return PIXEL * int.from_bytes(file.read(20)[16:], "big")


def _href(link: Link, folder: Path) -> str:
    """A relative address from `folder`; a web address as it is, if it is one."""
    if isinstance(link.target, str):
        if not link.target.startswith(("https://", "http://")):
            raise ValueError(f"link {link.text!r} leads to {link.target!r}: give a Path or an http(s) address")
        return link.target
    if not link.target.exists():
        raise FileNotFoundError(f"link {link.text!r} leads to {link.target}, which is not there")
    return quote(Path(os.path.relpath(link.target, folder)).as_posix())


def _cells(table: Table) -> list[list[Cell]]:
    formats = dict(table.formats or {})
    names = [str(column) for column in table.frame.columns]
    unknown = sorted(set(formats) - set(names))
    if unknown:
        raise ValueError(f"table {table.caption!r} has no column {unknown[0]!r} to format")
    rows = table.frame.itertuples(index=False, name=None)
    return [
        [_cell(value, formats.get(name, "{:.3f}"), name in formats) for name, value in zip(names, row, strict=True)]
        for row in rows
    ]


def _cell(value: Any, form: str, forced: bool) -> Cell:
    """Truth values as yes or no, whole numbers whole, other numbers by `form`, missing as a dash, the rest as text.

    A number with its interval or difference sorts by the number, and "<0.001" by 0.001.
    """
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return Cell(MISSING, "", "number" if isinstance(value, numbers.Real) else "short")
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", "1" if value else "0", "short")
    if isinstance(value, numbers.Integral) and not forced:
        return Cell(str(value), str(value), "number")
    if isinstance(value, numbers.Real):
        return Cell(form.format(value).replace("-", "−"), repr(float(value)), "number")
    text = str(value)
    if pair := PAIR.fullmatch(text):
        return Cell(text.replace(", ", ",\u00a0").replace("-", "−"), pair[1], "pair")
    return Cell(text, text.removeprefix("<"), "short" if len(text) <= SHORT else "text")
