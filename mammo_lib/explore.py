"""The explorer of 07_explore: choices, a list of cases, a slider and pictures, in JupyterLab or as a page (Voila).

Widgets only: what they show comes from stages/exploration.py, and whatever it refuses becomes a sentence on the page.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from mammo_lib.config import CLASSES, PROTOCOLS
from mammo_lib.stages import exploration, own_image
from mammo_lib.stages.experiment import Experiment

if TYPE_CHECKING:
    from mammo_lib.evaluation.figures import Figure
    from mammo_lib.evaluation.figures_case import Explained
    from mammo_lib.evaluation.metrics import Counts
    from mammo_lib.training.experiments import Cell

PICTURES = ("case", "siblings", "roc", "confusion", "own")
TEXTS = ("network", "list", "case", "threshold", "own", "export")
MESSAGES = ("choice", "list", "case", "threshold", "own", "export")
NO_SECOND = "(none)"
UPLOAD_NOTE = (  # a larger message is cut off by the server before any Python of ours could answer
    "If nothing happens, the file is larger than the 10 MB that the server takes from a browser: give its path, or "
    "start the server with <code>--ServerApp.tornado_settings='{\"websocket_max_message_size\": 300000000}'</code> "
    "(Voila: <code>--Voila.tornado_settings=</code> and the same)."
)
HEADING = "  p(mal.) loss truth     id"  # above the columns of `_line`
STYLE = (
    "<style>.mammo-cases select, .mammo-head {font: 13px monospace; white-space: pre} .mammo-head {padding-left: 4px}"
    ".mammo-alert {color: #a00000; font-weight: bold}</style>"
)
WIDE = {"width": "31em"}
Step = Callable[[], None]


class Explorer:
    """The blocks of the page, in its order: `choice`, `cases`, `threshold`, `own_file`, `exports`.

    `opened` holds the networks looked at (none, one, or two side by side), `figures` what is shown now.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.opened: list[exploration.TrainedCell] = []
        self.own: own_image.OwnImage | None = None
        self.figures: dict[str, tuple[str, Figure]] = {}  # place on the page -> name of its file, figure
        self._busy = False
        self._make_widgets()
        self._lay_out()
        self._connect()

    def _make_widgets(self) -> None:
        self._protocol = _dropdown("protocol", list(PROTOCOLS), self.experiment.protocol)
        self._first, self._second = _dropdown("network"), _dropdown("compare with")
        self._part = _dropdown("part", list(exploration.PREDICTED_PARTS))
        self._order = _dropdown("order", list(exploration.ORDERS))
        self._shown = _dropdown("show", list(exploration.SHOWN))
        self._list = widgets.Select(rows=10, layout=WIDE)
        self._list.add_class("mammo-cases")
        self._second.add_class("mammo-second")
        threshold = self.experiment.profile.evaluation.threshold
        self._threshold = widgets.FloatSlider(
            threshold, min=0, max=1, step=0.005, readout_format=".3f", description="threshold", layout=WIDE
        )
        self._threshold.continuous_update = False  # figures follow when the slider is let go
        self._upload = widgets.FileUpload(description="Open a file")
        self._path = widgets.Text(placeholder="or its path on this machine, then Enter", layout=WIDE)
        self._path.continuous_update = False
        self._path.add_class("mammo-path")
        self._export = widgets.Button(description="Export as PNG and PDF", layout={"width": "15em"})
        self._pictures = {name: _picture(name) for name in PICTURES}
        self._texts = {name: _text(f"{name}-text") for name in TEXTS}
        self._messages = {name: _text(f"{name}-message") for name in MESSAGES}

    def _lay_out(self) -> None:
        text, message, picture = self._texts, self._messages, self._pictures
        chosen = [self._protocol, self._first, self._second, self._part]
        self.choice = widgets.VBox([widgets.HTML(STYLE), text["network"], *chosen, message["choice"]])
        listed = widgets.VBox([self._order, self._shown, text["list"], self._list, message["list"]])
        seen = widgets.VBox([message["case"], text["case"], picture["case"], picture["siblings"]])
        self.cases = _row(listed, seen)
        curves = _row(picture["roc"], picture["confusion"])
        self.threshold = widgets.VBox([self._threshold, message["threshold"], text["threshold"], curves])
        opener = [_row(self._upload, self._path), widgets.HTML(UPLOAD_NOTE)]
        self.own_file = widgets.VBox([*opener, message["own"], text["own"], picture["own"]])
        self.exports = widgets.VBox([self._export, message["export"], text["export"]])

    def _connect(self) -> None:
        """Each choice runs the steps that depend on it, in their order; then all of them, once."""
        of_cases = (self._list_cases, self._show_threshold, self._show_case)
        of_cells = (self._open_cells, *of_cases, self._show_own)
        depends: list[tuple[widgets.Widget, tuple[Step, ...]]] = [
            (self._protocol, (self._list_cells, *of_cells)),
            (self._first, of_cells),
            (self._second, of_cells),
            (self._part, of_cases),
            (self._order, of_cases),
            (self._shown, of_cases),
            (self._threshold, (*of_cases, self._show_own)),
            (self._list, (self._show_case,)),
            (self._upload, (self._read_upload, self._show_own)),
            (self._path, (self._read_path, self._show_own)),
        ]
        for widget, steps in depends:
            widget.observe(lambda _, steps=steps: self._run(*steps), "value")
        self._export.on_click(lambda _: self._run(self._write))
        self._run(self._list_cells, *of_cells)

    def _run(self, *steps: Step) -> None:
        if self._busy:  # a step has filled a list or emptied a field: no choice of the user's
            return
        self._busy = True
        try:
            for step in steps:
                step()
        finally:
            self._busy = False

    # ------------------------------------------------------------------------- steps

    def _list_cells(self) -> None:
        self.experiment = replace(self.experiment, protocol=self._protocol.value)
        self._first.options = self._second.options = ()
        with self._sentence("choice"):
            options = [(_cell_label(cell), cell) for cell in exploration.trained_cells(self.experiment)]
            self._first.options, self._first.value = options, options[0][1]

    def _open_cells(self) -> None:
        before, first, second = (
            {trained.cell: trained for trained in self.opened},
            self._first.value,
            self._second.value,
        )
        self.opened = []
        if first is not None:
            alike = [(label, cell) for label, cell in self._first.options if _same_cases(cell, first) and cell != first]
            chosen = [first, *(cell for _, cell in alike if cell == second)]
            self._second.options = [(NO_SECOND, NO_SECOND), *alike]
            self._second.value = chosen[-1] if len(chosen) > 1 else NO_SECOND
            with self._sentence("choice"):
                self.opened = [before.get(cell) or exploration.open_cell(self.experiment, cell) for cell in chosen]
        self._texts["network"].value = _banner([exploration.describe(trained) for trained in self.opened])

    def _list_cases(self) -> None:
        wanted, self._list.options, self._texts["list"].value = self._list.value, (), ""
        with self._sentence("list"):
            if self.opened:
                how = self._part.value, self._threshold.value, self._order.value, self._shown.value
                table = exploration.case_list(self.opened[0], *how)
                ids = table["id"].tolist()
                self._list.options = [(_line(case), case["id"]) for case in table.to_dict("records")]
                self._list.value = wanted if wanted in ids else next(iter(ids), None)
                self._texts["list"].value = f'{len(ids)} cases<div class="mammo-head">{HEADING}</div>'

    def _show_threshold(self) -> None:
        with self._sentence("threshold", "roc", "confusion"):
            if not self.opened:
                return self._hide("threshold", "roc", "confusion")
            part, threshold = self._part.value, self._threshold.value
            figures = exploration.draw_threshold(self.opened[0], part, threshold)
            text = _counts_text(exploration.counts(self.opened[0], part, threshold))
            named = {name: (f"{name}_{part}_{threshold:.3f}", figure) for name, figure in figures.items()}
            self._show("threshold", text, named)

    def _show_case(self) -> None:
        with self._sentence("case", "siblings"):
            case_id = self._list.value
            if not self.opened or case_id is None:
                return self._hide("case", "siblings")
            figures = {"case": (f"case_{case_id}", exploration.draw_case(self.opened, case_id))}
            others = exploration.draw_siblings(self.opened[0], case_id)
            if others is None:
                self._hide("siblings")
            else:
                figures["siblings"] = (f"siblings_{case_id}", others)
            explained = [exploration.explain_case(trained, case_id) for trained in self.opened]
            self._show("case", _scores_text(case_id, explained, self._threshold.value), figures)

    def _read_upload(self) -> None:
        self.own, files = None, self._upload.value
        with self._sentence("own"):
            for file in files:
                settings = self.experiment.profile.globals
                self.own = own_image.read_uploaded(file["name"], bytes(file["content"]), settings)
        self._upload.value = ()  # so that the same file can be chosen again

    def _read_path(self) -> None:
        self.own, given = None, self._path.value.strip()
        with self._sentence("own"):
            if given:
                self.own = own_image.read_own(Path(given).expanduser(), self.experiment.profile.globals)

    def _show_own(self) -> None:
        if self.own is None:  # nothing given yet, or refused with a sentence that must stay
            return self._hide("own")
        with self._sentence("own"):
            figure = exploration.draw_own(self.opened, self.own)
            explained = [exploration.explain_own(trained, self.own) for trained in self.opened]
            text = _scores_text(self.own.name, explained, self._threshold.value)
            self._show("own", text, {"own": (f"own_{self.own.name}", figure)})

    def _write(self) -> None:
        self._texts["export"].value = ""
        with self._sentence("export"):
            folder = self.experiment.places.figures / "explore"
            written = exploration.export(dict(self.figures.values()), folder)
            self._texts["export"].value = "".join(f"<div>{escape(str(path))}</div>" for path in written)

    # ------------------------------------------------------------------------- what the page shows

    def _show(self, place: str, text: str, figures: "Mapping[str, tuple[str, Figure]]") -> None:
        """Put pictures on the page, and at `place` what is said of them; figures: place -> name of the file, figure."""
        drawn = {at: exploration.png(figure) for at, (_, figure) in figures.items()}
        self._texts[place].value = text  # after the slow part: no text stands beside the picture before it
        for at, png in drawn.items():
            self._pictures[at].value, self._pictures[at].layout.display = png, None
        self.figures.update(figures)

    def _hide(self, *places: str) -> None:
        """Take pictures and what is said of them away."""
        for place in places:
            self.figures.pop(place, None)
            if place in self._pictures:
                self._pictures[place].layout.display = "none"
            if place in self._texts:
                self._texts[place].value = ""

    @contextmanager
    def _sentence(self, place: str, *others: str) -> Iterator[None]:
        """Whatever the library foresees becomes a sentence at `place`; what stood there and at `others` goes."""
        message = self._messages[place]
        message.value = "<i>working …</i>"
        try:
            yield
            message.value = ""
        except (ValueError, OSError, RuntimeError) as error:
            message.value = f'<div class="mammo-alert" role="alert">{escape(str(error))}</div>'
            self._hide(place, *others)


def _dropdown(name: str, options: Sequence[Any] = (), value: Any = None) -> widgets.Dropdown:
    chosen = options[0] if options and value is None else value
    return widgets.Dropdown(
        options=options, value=chosen, description=name, layout=WIDE, style={"description_width": "7em"}
    )


def _picture(name: str) -> widgets.Image:
    layout = {"max_width": "100%", "object_fit": "contain", "align_self": "flex-start", "display": "none"}
    picture = widgets.Image(format="png", layout=layout)
    picture.add_class(f"mammo-{name}")
    return picture


def _text(name: str) -> widgets.HTML:
    text = widgets.HTML()
    text.add_class(f"mammo-{name}")
    return text


def _row(*children: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(children, layout={"flex_flow": "row wrap"})


def _cell_label(cell: "Cell") -> str:
    return f"{cell.stage}: {exploration.network_label(cell)}" + (f", fold {cell.fold}" if cell.fold else "")


def _same_cases(cell: "Cell", other: "Cell") -> bool:
    return (cell.stage, cell.fold) == (other.stage, other.fold)


def _banner(networks: Sequence[str]) -> str:
    lines = "".join(f"<div>{escape(network)}.</div>" for network in networks)
    return f'<div style="border: 2px solid #a00000; padding: 0.4em"><b>{exploration.NOT_CLINICAL}.</b>{lines}</div>'


def _line(case: Mapping[Any, Any]) -> str:
    sign = " " if case["outcome"] == exploration.CORRECT else "✗"
    return f"{sign} {case['probability']:.3f} {case['loss']:6.3f} {CLASSES[case['label']]:9} {case['id']}"


def _counts_text(counts: "Counts") -> str:
    return (
        f"<b>{counts.false_negative} missed</b> of {counts.malignant} malignant, "
        f"<b>{counts.false_positive} false alarms</b> among {counts.benign} benign; "
        f"sensitivity {counts.sensitivity:.3f}, specificity {counts.specificity:.3f}, accuracy {counts.accuracy:.3f}"
    )


def _scores_text(name: str, explained: "Sequence[Explained]", threshold: float) -> str:
    rows = "".join(
        f"<div>{escape(row.network)}: p(malignant) = {row.probability:.3f}, "
        f"{CLASSES[int(row.probability >= threshold)]} at threshold {threshold:.3f}</div>"
        for row in explained
    )
    return f"<b>{escape(name)}</b>{rows}<div>{exploration.NOT_CLINICAL}.</div>"
