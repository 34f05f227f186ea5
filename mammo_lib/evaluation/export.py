"""What a table is, and how it is written for people: LaTeX (booktabs) and HTML.

Knows frames and strings only; no metric, no data set. Caption and notes travel with the table in LaTeX and HTML.
"""

import re
from dataclasses import dataclass
from html import escape

import pandas as pd

_LATEX = (
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: "\\" + character for character in "&%$#_{}"}
    | {"<": r"\textless{}"}
)
PREAMBLE = r"% \usepackage{booktabs,multirow,graphicx,rotating}"
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"  # never enlarges
LEAST_P = 0.001  # shown as it is
SIGNED = "{:+z.3f}"  # of differences; what rounds to nothing is never -0.000
UPRIGHT = 8  # ours: columns of a table that stands upright


@dataclass(frozen=True)
class Table:
    """`frame`: the numbers, for programs. `shown`: the same rows as printed strings, for people."""

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...]
    shown: pd.DataFrame

    def __repr__(self) -> str:
        """What a terminal shows."""
        return "\n".join((self.caption, self.shown.to_string(index=False), *self.notes))

    def _repr_html_(self) -> str:
        """What a notebook shows: no cell is cut off, as by pandas, and text begins on the left, unlike JupyterLab's."""
        return re.sub(r"<(t[dh])\b", r'<\1 style="text-align: left"', to_html(self))


def text(column: pd.Series, form: str) -> pd.Series:
    """Each value through `form`; "" for a missing one."""
    return pd.Series(["" if pd.isna(value) else form.format(value) for value in column], index=column.index, dtype=str)


def p_values(column: pd.Series) -> pd.Series:
    """Each p to three decimals, but none as 0; "" for a missing one."""
    return text(column, "{:.3f}").mask((column < LEAST_P).fillna(False), f"<{LEAST_P}")


def with_interval(value: pd.Series, low: pd.Series, high: pd.Series, form: str = "{:z.3f}") -> pd.Series:
    """Each row as `0.861 [0.832, 0.890]`; without brackets where there is no interval, "" where there is no value."""
    bounds = " [" + text(low, form) + ", " + text(high, form) + "]"
    return text(value, form) + bounds.where(low.notna() & high.notna(), "")


def plain(frame: pd.DataFrame, form: str = "{:z.3f}") -> pd.DataFrame:
    """The frame as strings: floats through `form`, everything else as it is, missing values empty."""
    return pd.DataFrame(
        {name: text(column, form if pd.api.types.is_float_dtype(column) else "{}") for name, column in frame.items()}
    )


def to_latex(table: Table, label: str = "") -> str:
    """A `table` with caption and notes, for the packages that its first line names; text escaped.

    A table of more than UPRIGHT columns lies on its side, and one that is still too wide is made smaller.
    """
    tabular = table.shown.map(escape_latex).rename(columns=escape_latex)
    body = tabular.to_latex(index=False, escape=False, multicolumn_format="c").strip()
    kind = "sidewaystable" if len(table.shown.columns) > UPRIGHT else "table"
    notes = "\n".join(f"\\par\\footnotesize {escape_latex(note)}" for note in table.notes)
    lines = [PREAMBLE, f"\\begin{{{kind}}}", f"\\caption{{{escape_latex(table.caption)}}}"]
    lines += [f"\\label{{{label}}}"] if label else []
    return "\n".join([*lines, SHRINK + "{%", body, "}", notes, f"\\end{{{kind}}}"]) + "\n"


def escape_latex(value: str) -> str:
    return "".join(_LATEX.get(character, character) for character in value)


def to_html(table: Table) -> str:
    """A `figure` with the table, its caption and its notes; text escaped, no style and no script."""
    body = table.shown.to_html(index=False, border=0, escape=True, justify="left", classes="numbers")
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<figure class="table">\n<figcaption>{escape(table.caption)}</figcaption>\n{body}\n'
        f'<ul class="notes">{notes}</ul>\n</figure>\n'
    )
