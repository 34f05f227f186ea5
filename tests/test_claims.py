"""What README, RESULTS and the notebooks claim: every number of ours comes from a file in results/, and is still right.

README.md and RESULTS.md hold two kinds of claims.
- A table between `<!-- begin results/x.csv -->` and `<!-- end -->`, which `python -m mammo_lib.readme` writes.
- A number in prose with a comment right behind it that says where it is from:
  `0.03<!-- results/published/auc.csv ; table == "Table 1" ; (high - low) / 2 -->`, that is file, rows, value. Rows: a
  condition on columns as pandas' query takes it (blank: every row); value: a column or an expression of columns. The
  number must be that value in one of these rows, with its sign and at the decimals shown. (No "|": in a table it would
  end the cell.)
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import mistune
import pandas as pd
import pytest

from mammo_lib import config, paths, readme
from mammo_lib.evaluation.captions import FIGURES
from mammo_lib.stages import answers, mapping

ROOT = Path(__file__).parent.parent
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in readme.DOCUMENTS}
BOTH = "\n".join(DOCUMENTS.values())
CLAIM = re.compile(r"([−+]?\d+(?:\.\d+)?)[ %*]*<!-- (results/\S+\.csv) ;(.*?);(.*?)-->")
SHARE = re.compile(r"(?<![\w.])0\.\d+(?![\d.]*[ %*]*<!-- results/)")  # of 1, and not marked
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def holds(number: str, path: Path, row: str, value: str) -> bool:
    """Whether `number`, with its sign, is `value` in one of the rows of the file, rounded to its decimals."""
    frame = pd.read_csv(path)
    chosen = frame.query(row) if row.strip() else frame
    decimals = len(number.partition(".")[2])
    signed = number.removeprefix("+").replace("−", "-")
    return any(f"{found:z.{decimals}f}" == signed for found in chosen.eval(value.strip()))  # z: a zero has no sign


def prose(text: str) -> str:
    """A document without generated tables, code and addresses."""
    for pattern in (readme.BLOCK.pattern, r"```.*?```", r"`[^`]*`", r"https?://\S+|doi \S+"):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text


@pytest.mark.parametrize(("name", "shown"), readme.BLOCK.findall(BOTH))
def test_every_table_is_what_its_file_says(name: str, shown: str) -> None:
    if not shown.strip() and not (ROOT / name).exists():
        pytest.skip(f"{name} is not made yet, and nothing of it is shown")
    assert shown.strip() == readme.readme_table(ROOT / name).strip(), "run python -m mammo_lib.readme"


def test_the_probe_uses_the_reading_that_cross_validation_chose() -> None:
    table = pd.read_csv(ROOT / "results" / "reduced" / "official" / "probe" / "readings.csv")
    assert table.loc[table["auc"].idxmax(), "reading"] == config.Probe().reading


def test_the_map_uses_the_reading_that_did_best_on_validation() -> None:
    table = pd.read_csv(ROOT / "results" / "reduced" / "official" / "mass_map" / "seed0" / "readings.csv")
    assert mapping.READINGS[table.loc[table["validation_auc"].idxmax(), "reading"]] == mapping.USED["G"]


def test_the_overview_is_not_behind_the_predictions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MAMMO_CBAM_HOME", raising=False)
    profiles = [profile for profile in config.PROFILES.values() if profile.source in answers.SAME_PATIENTS]
    paths.write_table(answers.compared(profiles), tmp_path / "overview.csv")
    made, stored = (pd.read_csv(folder / "overview.csv") for folder in (tmp_path, ROOT / "results"))
    pd.testing.assert_frame_equal(made, stored)  # else: python -m mammo_lib overview


@pytest.mark.parametrize("report", sorted((ROOT / "results").glob("reduced*/report.html")), ids=str)
def test_no_committed_report_shows_a_mammogram_of_the_reduced_copy(report: Path) -> None:
    """Its pictures may be looked at, not published."""
    pictures = ("fig2_views", "fig3_patch_and_global", "fig7_gradcam", "gradcam_contact_sheet")
    page = report.read_text(encoding="utf-8")
    assert not [name for name in pictures if FIGURES[name] in page]


def test_every_block_can_be_read() -> None:
    assert BOTH.count("<!-- begin ") == BOTH.count("<!-- end -->") == len(readme.BLOCK.findall(BOTH))


@pytest.mark.parametrize("claim", CLAIM.findall(BOTH), ids=lambda claim: claim[0])
def test_every_marked_number_is_in_its_file(claim: tuple[str, str, str, str]) -> None:
    number, name, row, value = claim
    assert holds(number, ROOT / name, row, value), f"{number} is not {value.strip()} where {row.strip()} in {name}"


def test_every_mark_can_be_read() -> None:
    assert BOTH.count("<!-- results/") == len(CLAIM.findall(BOTH))


def test_no_share_stands_without_its_file() -> None:
    assert not SHARE.findall(prose(BOTH))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_table_is_one_to_a_reader_of_markdown(name: str) -> None:
    """A row of more cells than the headings is cut on GitHub, and here makes a paragraph of the whole table."""
    page = mistune.create_markdown(plugins=["table"])(DOCUMENTS[name])
    assert page.count("<table>") == len(re.findall(r"^\|( --- \|)+$", DOCUMENTS[name], re.MULTILINE)) > 0


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    """Headings as GitHub names them: small letters, hyphens for blanks, no other signs."""
    anchors = {
        document: {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}
        for document, text in DOCUMENTS.items()
    }
    for target, _, anchor in (link.partition("#") for link in LINK.findall((ROOT / name).read_text(encoding="utf-8"))):
        assert (ROOT / target).exists(), target
        if anchor:
            assert anchor in anchors[target or name], f"{target or name} has no heading {anchor}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_of_notebooks_holds_no_result(path: Path) -> None:
    """Decimal fractions in prose are settings of the paper (config.py) or numbers of its sections, never results."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    fractions = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", re.sub(r"`[^`]*`", "", text)))
    sections = {found for found in fractions if re.fullmatch(r"[1-4]\.\d", found)}
    assert not {found for found in fractions - sections if float(found) not in settings()}


def settings() -> set[float]:
    """Every number of the paper's profile, and of the architecture of its settings."""

    def numbers(tree: object) -> set[float]:
        if isinstance(tree, dict):
            tree = list(tree.values())
        if isinstance(tree, list | tuple):
            return set().union(*(numbers(part) for part in tree))
        return {float(tree)} if isinstance(tree, int | float) else set()

    return numbers(asdict(config.get_profile("paper")))


# The checks themselves can fail.


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A table as `evaluate` stores it: one row with values, one without."""
    path = tmp_path / "results" / "table.csv"
    path.parent.mkdir()
    path.write_text(
        "block,network,cases,auc,auc_low,auc_high,auc_printed,sd,note\n"
        "network,VGG16,22,0.81249,0.7,0.9,0.8395,,\n"
        "network,A|B,,,,,0.8503,,weights not available\n"
        "network,InceptionV3,,,,,0.8403,,not run\n"
        "network,ResNet50,,,,,0.8348,,as_written: not run\n"
    )
    return path


def test_a_table_in_markdown(stored: Path) -> None:
    assert readme.readme_table(stored).splitlines() == [
        "| network | cases | AUC | printed AUC | note |",
        "| --- | --- | --- | --- | --- |",
        "| VGG16 | 22 | 0.812 [0.700, 0.900] | 0.840 |  |",
        "| A/B |  |  | 0.850 | weights not available |",
    ]


def test_a_difference_takes_its_interval(tmp_path: Path) -> None:
    path = tmp_path / "protocols.csv"
    path.write_text("first,second,difference,low,high,p\nas_written,official,-0.1491,-0.2066,0.0916,0.001\n")
    assert readme.readme_table(path).splitlines() == [
        "| first | second | difference | p |",
        "| --- | --- | --- | --- |",
        "| as_written | official | -0.149 [-0.207, 0.092] | 0.001 |",
    ]


def test_blocks_are_written_and_stay_as_they_are(stored: Path, tmp_path: Path) -> None:
    text = "before\n<!-- begin results/table.csv -->\nold\n<!-- end -->\nafter\n"
    once = readme.refreshed(text, tmp_path)
    assert "0.812 [0.700, 0.900]" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert readme.refreshed(once, tmp_path) == once


def test_both_documents_are_written_or_the_one_that_cannot_be_is_named(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    for name in readme.DOCUMENTS:
        (tmp_path / name).write_text("<!-- begin results/table.csv -->\n<!-- end -->\n")
    assert readme.main() == 0
    assert all("0.812 [0.700, 0.900]" in (tmp_path / name).read_text() for name in readme.DOCUMENTS)
    stored.unlink()
    assert readme.main() == 1
    assert capsys.readouterr().err.startswith("error: README.md: ")


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("<!-- begin results/none.csv -->\n<!-- end -->", FileNotFoundError, "none.csv: README or RESULTS shows"),
        ("<!-- begin results/table.csv -->\n", ValueError, "1 tables are begun, 0 can be read"),
        ("<!-- begin table.csv -->\n<!-- end -->", ValueError, "1 tables are begun, 0 can be read"),
    ],
)
def test_what_cannot_be_refreshed_is_refused(tmp_path: Path, text: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        readme.refreshed(text, tmp_path)


def test_a_number_that_is_behind_is_noticed(stored: Path) -> None:
    assert holds("0.81", stored, 'network == "VGG16"', "auc")
    assert not holds("0.82", stored, 'network == "VGG16"', "auc")
    assert not holds("−0.81", stored, 'network == "VGG16"', "auc")
    assert holds("−0.81", stored, 'network == "VGG16"', "-auc")
    assert not holds("+0.81", stored, 'network == "VGG16"', "-auc")
    assert holds("0.0", stored, 'network == "VGG16"', "-auc / 100")
    assert holds("0.100", stored, "", "(auc_high - auc_low) / 2")
    assert CLAIM.findall('of **22**<!-- results/x.csv ; network == "VGG16" ; cases --> images')[0][:2] == (
        "22",
        "results/x.csv",
    )
    assert SHARE.findall(prose("AUC 0.81 and `0.5` and 0.7<!-- results/x.csv ; ; auc -->")) == ["0.81"]


def test_what_notebook_06_says_that_it_found() -> None:
    text = (ROOT / "notebooks" / "06_published_numbers.ipynb").read_text(encoding="utf-8")
    named = pd.read_csv(ROOT / "results" / "published" / "hypotheses.csv").set_index(["table", "hypothesis"])
    masses = named.loc[("Table 1", "official test set, masses")]
    assert (masses["malignant"], masses["benign"], masses["explained"], masses["rows"]) == (147, 231, 3, 6)
    assert "147 malignant and 231 benign cases, the official CBIS-DDSM test masses, explain three of six rows" in text
    best = pd.read_csv(ROOT / "results" / "published" / "test_sets.csv").query("table == 'Table 2'").iloc[0]
    assert (best["malignant"], best["benign"], best["explained"], best["rows"]) == (139, 209, 8, 12)
    assert "139 and 209 explain eight of twelve rows" in text
