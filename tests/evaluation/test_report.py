"""The page: escaped, self-contained, its figures the files' own bytes, its tables sortable in a real browser."""

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib.evaluation import report

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


class Page(HTMLParser):
    """Cells of every table, addresses, and text, as a browser would read them."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.links, self.images, self.ids, self.text, self.open = [], [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed in its place

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "figures" / "roc.png"
    path.parent.mkdir()
    path.write_bytes(PIXEL)
    return path


def write(tmp_path, *sections, **entries):
    path = tmp_path / "results" / "report.html"
    settings = {"title": "A title", "data_sentence": "Data: phantoms.", "sections": sections} | entries
    report.write_report(path, report.Report(**settings))
    return path, Page(path)


def test_the_first_line_says_what_data_this_is(tmp_path):
    sentence, warning = report.first_line("phantom", "phantoms made here")
    assert warning.startswith("Phantoms are not patients")
    _, page = write(tmp_path, data_sentence=sentence, warning=warning)
    body = "".join(page.text).split("A title", 1)[1].split()  # after <title>
    assert " ".join(body).startswith(f"{warning} Data: phantoms made here.")
    assert report.first_line("cbis_ddsm", "CBIS-DDSM") == ("Data: CBIS-DDSM.", "")


def test_a_table_shows_its_values_and_no_nan(tmp_path):
    frame = pd.DataFrame(
        {
            "network": ["VGG16", "a <b> & c"],
            "AUC": [0.12345, np.nan],
            "difference": [-0.02, 1.0],
            "cases": [361, 12],
            "inside": [True, False],
            "share": [0.256, 1.0],
            "p": [0.00012, np.float32(0.5)],
            "mixed": pd.Series(["text", np.float32("nan")], dtype=object),
        }
    )
    table = report.Table("Table 1", frame, note="Unit: image.", formats={"share": "{:.0%}", "p": "{:.1e}"})
    _, page = write(tmp_path, report.Section("Results", tables=[table]))
    assert page.rows == [
        ["network", "AUC", "difference", "cases", "inside", "share", "p", "mixed"],
        ["VGG16", "0.123", "−0.020", "361", "yes", "26%", "1.2e−04", "text"],
        ["a <b> & c", "–", "1.000", "12", "no", "100%", "5.0e−01", "–"],
    ]
    assert "Unit: image." in "".join(page.text)


def test_a_number_with_its_interval_sorts_by_the_number_and_breaks_before_its_bracket(tmp_path):
    aucs = ["0.861 [0.832, 0.890]", "-0.020 [-0.100, +0.060]", "0.5 [unknown]", "0.76* (+0.1)", "<0.001"]
    table = report.Table("T", pd.DataFrame({"AUC": aucs}))
    path, page = write(tmp_path, report.Section("Results", tables=[table]))
    assert page.rows[1:] == [
        ["0.861 [0.832,\u00a00.890]"],
        ["−0.020 [−0.100,\u00a0+0.060]"],
        ["0.5 [unknown]"],
        ["0.76* (+0.1)"],
        ["<0.001"],
    ]
    assert re.findall(r'data-key="(.*?)" class="(.*?)"', path.read_text(encoding="utf-8")) == [
        ("0.861", "pair"),
        ("-0.020", "pair"),
        ("0.5 [unknown]", "short"),
        ("0.76", "pair"),
        ("0.001", "short"),
    ]


def test_a_table_can_be_folded_though_short(tmp_path):
    table = report.Table("Checks", pd.DataFrame({"n": [1]}), folded=True)
    path, _ = write(tmp_path, report.Section("Data", tables=[table]))
    assert "<summary>Checks (1 rows)" in path.read_text(encoding="utf-8")


def test_an_empty_table_says_none(tmp_path):
    table = report.Table("Problems", pd.DataFrame(columns=["id", "reason"]))
    _, page = write(tmp_path, report.Section("Problems", tables=[table]))
    assert page.rows == [["id", "reason"], ["none"]]


def test_nothing_given_is_taken_for_html(tmp_path):
    script = "<script>alert(1)</script>"
    table = report.Table(script, pd.DataFrame({script: [script]}), note=script)
    section = report.Section(script, prose=[script], tables=[table])
    path, _ = write(tmp_path, section, title=script, warning=script, subtitle=script, footer=script)
    assert script not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("pixels", "shown"), [(2126, "63.8rem"), (1039, "31.2rem")])  # 180 and 88 mm at 300 dpi
def test_a_figure_of_one_column_is_shown_at_half_the_width_of_one_of_two(tmp_path, figure, pixels, shown):
    cv2.imwrite(str(figure), np.zeros((3, pixels), np.uint8))
    _, page = write(tmp_path, report.Section("Figures", figures=[report.Picture("ROC curves", figure)]))
    assert page.images[0]["style"] == f"width: {shown}"


def test_the_page_stands_alone(tmp_path, figure):
    section = report.Section("Figures", figures=[report.Picture("ROC curves", figure)])
    path, page = write(tmp_path, section)
    (image,) = page.images
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PIXEL
    assert image["alt"] == "ROC curves"
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "@import" not in text
    assert "url(" not in text


def test_navigation_leads_to_every_section(tmp_path):
    _, page = write(tmp_path, report.Section("Table 1: patches"), report.Section("How to cite"))
    assert page.links == ["#table-1-patches", "#how-to-cite"]
    assert page.ids == ["table-1-patches", "how-to-cite"]


def test_links_are_relative_to_the_page(tmp_path):
    notebook = tmp_path / "runs" / "01 data.ipynb"
    notebook.parent.mkdir()
    notebook.write_text("{}")
    links = [report.Link("notebook", notebook), report.Link("paper", "https://doi.org/10.3788/LOP202158.0410007")]
    path, page = write(tmp_path, report.Section("Notebooks", links=links))
    assert page.links[1:] == ["../runs/01%20data.ipynb", "https://doi.org/10.3788/LOP202158.0410007"]
    assert (path.parent / page.links[1].replace("%20", " ")).resolve() == notebook


def test_long_tables_fold_away(tmp_path):
    many = report.Table("Every image", pd.DataFrame({"n": range(report.LONG + 1)}))
    path, page = write(tmp_path, report.Section("Images", tables=[many]))
    assert "<details><summary>Every image (41 rows)" in path.read_text(encoding="utf-8")
    assert len(page.rows) == report.LONG + 2


@pytest.mark.parametrize(
    ("section", "kind", "sentence"),
    [
        (lambda p: report.Section("A", figures=[report.Picture("x", p / "no.png")]), FileNotFoundError, "no.png"),
        (lambda p: report.Section("A", figures=[report.Picture("x", p / "a.pdf")]), ValueError, "is not a PNG"),
        (lambda p: report.Section("A", links=[report.Link("x", p / "no.ipynb")]), FileNotFoundError, "no.ipynb"),
        (lambda p: report.Section("A", links=[report.Link("x", "javascript:alert(1)")]), ValueError, "javascript"),
        (
            lambda p: report.Section("A", tables=[report.Table("T", pd.DataFrame({"a": [1]}), formats={"b": "{}"})]),
            ValueError,
            "no column 'b'",
        ),
    ],
)
def test_what_cannot_be_shown_stops_the_page(tmp_path, section, kind, sentence):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(kind, match=re.escape(sentence)):
        write(tmp_path, section(tmp_path))
    assert not list(tmp_path.glob("results/*"))


def test_two_sections_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'results'"):
        write(tmp_path, report.Section("Results"), report.Section("results!"))


def test_sorting_in_a_real_browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: the table's sorting is not tried in a browser")
    frame = pd.DataFrame({"name": ["b", "c", "a", "d"], "AUC": [0.5, np.nan, 10.0, -0.25]})
    path, _ = write(tmp_path, report.Section("Results", tables=[report.Table("T", frame)]))
    clicks = """<script>
      const shown = () => [...document.querySelectorAll("tbody tr")].map(r => r.cells[0].innerText).join("");
      const found = [], heads = document.querySelectorAll("th button");
      for (const column of [1, 1, 0, 0]) { heads[column].click(); found.push(shown()); }
      document.title = found.join(" ");
    </script></body>"""
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", clicks), encoding="utf-8")
    quiet = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    command = [chromium, *quiet.split(), "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'browser'}"]
    page = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60)
    assert "<title>dbac abdc abcd dcba</title>" in page.stdout
