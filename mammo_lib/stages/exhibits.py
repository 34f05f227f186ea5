"""What a run left behind, made ready for the page: its facts, tables, files and figures, each called by its name.

A name whose file is not there gives nothing: a step that has not been run leaves its place empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mammo_lib.config import MASS_MAP
from mammo_lib.stages.experiment import IDS, Experiment, extra_folder

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from mammo_lib.evaluation import export
    from mammo_lib.evaluation.report import Link, Picture, Section, Table

NOT_MADE = "Not made yet: run its notebook, then the report again."
NOT_DRAWN = (
    "Its figures are not drawn: run python -m mammo_lib figures --profile {} --protocol {} --seed {}, then report."
)


@dataclass(frozen=True)
class Exhibits:
    """known: facts by name; made: tables that `evaluate` returns; captions: of figures, by the names of their files."""

    experiment: Experiment
    known: Mapping[str, str]
    made: "Mapping[str, export.Table]"
    captions: Mapping[str, str]

    def section(
        self,
        title: str,
        prose: Sequence[str] = (),
        facts: Sequence[str] = (),
        made: Sequence[str] = (),
        tables: "Sequence[Table]" = (),
        stored: Sequence[str] = (),
        folded: bool = False,
        figures: Sequence[str] = (),
        drawable: bool = True,
        files: Sequence[str] = (),
        links: "Sequence[Link]" = (),
        otherwise: str = NOT_MADE,
    ) -> "Section":
        """A section from names, in this order; the files of `made` and `stored` tables are linked by themselves.

        drawable: whether there is what the figures are drawn from; the section then tells that they are not drawn yet.
        otherwise: what a section tells that has nothing to show.
        """
        from mammo_lib.evaluation.report import Section

        told = [*prose, *(self.known[name] for name in facts if name in self.known)]
        shown = [
            *(printed(self.made[name]) for name in made if name in self.made),
            *tables,
            *(table for name in stored for table in self._stored(name, folded)),
        ]
        pictures = [picture for name in figures for picture in self._pictures(name)]
        linked = [*(link for name in (*made, *stored, *files) for link in self._files(name)), *links]
        if not (told or shown or pictures or linked):
            told = [otherwise]
        elif figures and drawable and not pictures:
            run = self.experiment
            told = [*told, NOT_DRAWN.format(run.profile.name, run.protocol, run.seed)]
        return Section(title, told, shown, pictures, linked)

    def _stored(self, name: str, folded: bool) -> "list[Table]":
        """A table as it was written, with headings in words and blank cells where a text is missing."""
        from mammo_lib.evaluation.captions import TABLES
        from mammo_lib.evaluation.report import Table

        tables, told = [], TABLES[name]
        for path in self._found(f"{name}.csv"):
            frame = pd.read_csv(path, dtype=IDS | {"ids": str})
            frame = frame.assign(**frame.select_dtypes(["object", "string"]).fillna(""))
            frame.columns = frame.columns.str.replace("_", " ")
            tables.append(Table(told.caption, frame, told.note, formats=told.formats, folded=folded))
        return tables

    def _pictures(self, name: str) -> "list[Picture]":
        from mammo_lib.evaluation.report import Picture

        folders = (self.experiment.figures, self.experiment.places.figures)
        found = [folder / f"{name}.png" for folder in folders if (folder / f"{name}.png").exists()]
        return [Picture(self.captions[name], path) for path in found[:1]]

    def _files(self, name: str) -> "list[Link]":
        from mammo_lib.evaluation.report import Link

        return [Link(path.name, path) for kind in ("csv", "tex") for path in self._found(f"{name}.{kind}")]

    def _found(self, name: str) -> list[Path]:
        """The file of this name in the first of the folders with results that has it, or nothing."""
        places = self.experiment.places
        results = self.experiment.results, extra_folder(self.experiment, MASS_MAP)
        folders = *results, places.root / "results" / "published"
        return [folder / name for folder in folders if (folder / name).exists()][:1]


def captioned(name: str, frame: pd.DataFrame) -> "Styler":
    """A stored table for a notebook: under its caption, with headings in words and the report's decimals.

    name: that of its file, without the ending; KeyError for a table that has no caption.
    """
    from mammo_lib.evaluation.captions import TABLES

    told = TABLES[name]
    shown = frame.rename(columns=lambda column: column.replace("_", " ")).astype(object)
    forms = dict.fromkeys(shown, "{:.3f}") | dict(told.formats or {})

    def number(form: str) -> Callable[[object], str]:
        return lambda value: form.format(value) if isinstance(value, float) else str(value)

    styled = shown.style.format({column: number(forms[column]) for column in shown}, na_rep="", escape="html")
    styled.set_table_styles(
        [
            {"selector": "caption, th, td", "props": "text-align: left"},  # JupyterLab has it right
            {"selector": "td", "props": "max-width: 30em; overflow-wrap: anywhere"},  # a long path is broken
        ]
    )
    return styled.set_caption(f"{told.caption} {told.note}".strip()).hide(axis="index")


def printed(table: "export.Table") -> "Table":
    """A table as people read it: one line of headings, and no column that has nothing to say."""
    from mammo_lib.evaluation.report import Table

    shown = _narrow(table.shown) if table.shown.columns.nlevels == 2 else table.shown
    shown = shown.set_axis([str(name).replace("_", " ") for name in shown], axis=1)
    spoken = [name for name in shown if shown[name].ne("").any()]
    return Table(table.caption, shown[spoken], note=" ".join(table.notes))


def _narrow(shown: pd.DataFrame) -> pd.DataFrame:
    """Two lines of headings to one, difference behind the printed value: three columns a metric overflow a page."""
    flat = {}
    for metric, kind in shown.columns.to_frame().itertuples(index=False, name=None):
        if kind == "Printed":
            difference = shown[metric, "Difference"]
            cells = shown[metric, kind] + difference.map(lambda value: f" ({value})" if value else "")
            flat[f"{metric}, printed (difference)"] = cells
        elif kind != "Difference":
            flat[f"{metric}, ours" if metric else kind] = shown[metric, kind]
    return pd.DataFrame(flat)


def notebooks(experiment: Experiment) -> "list[Link]":
    """Links to the executed notebooks, in their order."""
    from mammo_lib.evaluation.report import Link

    copies = sorted((experiment.runs / "notebooks").glob("0*.ipynb"))
    return [Link(f"executed notebook {copy.stem}", copy) for copy in copies]
