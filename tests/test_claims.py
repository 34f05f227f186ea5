"""What README, RESULTS and the notebooks claim: every number of ours comes from a file in results/, and is still right.

README.md and RESULTS.md hold two kinds of claims.
- A table between `<!-- begin results/x.csv -->` and `<!-- end -->`, which `python -m mammo_lib.readme` writes.
- A number in prose, or one with its interval, and right behind it a mark: `0.79 [0.73, 0.85]<!--5-->`. The mark's line
  in results/claims.csv says where it is from: the file, its rows, and the values. Rows: a condition on columns as
  pandas' query takes it (blank: every row). Values: a column or an expression of columns for each number, between
  semicolons. The numbers must be these values of every such row, with their signs and at the decimals shown.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import mistune
import pandas as pd
import pytest

from mammo_lib import config, paths, readme
from mammo_lib.evaluation import audit, hypotheses, statistics
from mammo_lib.evaluation.captions import FIGURES
from mammo_lib.stages import answers, mapping

ROOT = Path(__file__).parent.parent
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in readme.DOCUMENTS}
BOTH = "\n".join(DOCUMENTS.values())
NUMBER = r"[−+]?\d+(?:\.\d+)?"
MARK = re.compile(r"<!--(\d+)-->")
CLAIM = re.compile(rf"({NUMBER}(?:\s+\[{NUMBER},\s+{NUMBER}\])?)[ %*]*{MARK.pattern}")
CLAIMS = pd.read_csv(ROOT / "results" / "claims.csv", index_col="mark", keep_default_na=False)
SHARE = re.compile(r"(?<![\w.])0\.\d+")  # of 1
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def holds(claim: str, path: Path, rows: str, values: str) -> bool:
    """Whether the numbers of a claim are the values of each of the chosen rows, rounded to the decimals shown."""
    numbers, expressions = re.findall(NUMBER, claim), values.split(";")
    if len(numbers) != len(expressions):
        return False
    frame = pd.read_csv(path)
    chosen = frame.query(rows) if rows.strip() else frame
    found = zip(*(chosen.eval(expression.strip()) for expression in expressions), strict=True)
    return len(chosen) > 0 and all(all(map(shown_as, row, numbers)) for row in found)


def shown_as(value: float, number: str) -> bool:
    """Whether `number`, with its sign, is `value` at the decimals of `number`."""
    decimals = len(number.partition(".")[2])
    return f"{value:z.{decimals}f}" == number.removeprefix("+").replace("−", "-")  # z: a zero has no sign


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


def _folds(profile: str, stage: str, network: str, initial: str) -> pd.DataFrame:
    """Test cases of all five folds by id, seed 0."""
    cells = ROOT / "results" / profile / "grouped_cv" / "cells" / stage / network / initial
    parts = [pd.read_csv(cells / f"fold{fold}-seed0" / "predictions.csv").assign(fold=fold) for fold in range(5)]
    return pd.concat(parts).query("part == 'test'").set_index("id").sort_index()


def _gap(first: pd.DataFrame, second: pd.DataFrame, within: bool = True) -> statistics.Interval:
    """AUC of `first` minus that of `second` on the same cases, by pairs of one fold or by all."""
    one, other = (
        statistics.weighted_auc(cases["label"], cases["probability"], cases["fold"] if within else None)
        for cases in (first, second)
    )
    rule = config.Evaluation()
    drawn = statistics.bootstrap(statistics.difference(one, other), first["patient_id"], rule.resamples, 0)
    return statistics.percentile(drawn, rule.confidence)


def test_what_is_said_of_the_folds_in_words() -> None:
    """README and RESULTS say without numbers what two folds, or one, do to a difference over all patients."""
    plain, gated = (
        {init: _folds(profile, "G", network, init) for init in ("imagenet", "imagenet_patch")}
        for profile, network in (
            ("reduced-cpu-imagenet", "vgg16"),
            ("reduced-cpu-imagenet-normalised", "vgg16_cbam"),
        )
    )
    learnt = plain["imagenet"]["fold"].isin([0, 1, 3])  # in the other two VGG16 from ImageNet alone hardly learnt
    for cells, share in ((plain, (0.4, 0.5)), (gated, (0.7, 0.8))):  # "less than half", "three quarters"
        whole, rest = (
            _gap(*(cells[init][kept] for init in ("imagenet_patch", "imagenet"))) for kept in (learnt | True, learnt)
        )
        assert share[0] < rest.estimate / whole.estimate < share[1]
        assert rest.low > 0
    cbam = {
        init: [_gap(gated[init].query(f"fold == {n}"), plain[init].query(f"fold == {n}")).estimate for n in range(5)]
        for init in plain
    }
    assert min(cbam["imagenet_patch"]) < sum(cbam["imagenet_patch"]) / 2 < 0  # "more than half from one fold"
    assert abs(_gap(gated["imagenet"][learnt], plain["imagenet"][learnt]).estimate) < 0.005  # "no difference is seen"


@pytest.mark.parametrize(
    ("profile", "network", "behind"),
    [("reduced-cpu-imagenet", "vgg16", False), ("reduced-cpu-imagenet-normalised", "vgg16_cbam", True)],
)
def test_what_is_said_of_pairs_of_different_folds(profile: str, network: str, behind: bool) -> None:
    """By mass, minus the radiologist: a hundredth lower, VGG16 with zero at the edge and VGG16+CBAM behind."""
    patches = _folds(profile, "P", network, "imagenet")
    columns = {"label": "first", "patient_id": "first", "probability": "mean", "fold": "first"}
    masses = patches.groupby("mass_id").agg(columns)
    table = pd.read_csv(ROOT / "results" / profile / "grouped_cv" / "masses.csv").drop_duplicates("mass_id")
    grades = table.set_index("mass_id")["assessment"].replace(0, 3.5)  # between 3 and 4
    read = masses.assign(probability=grades)
    within, pooled = (_gap(masses, read, within) for within in (True, False))
    assert 0.005 < within.estimate - pooled.estimate < 0.015
    assert within.high > 0
    assert pooled.high < 0 if behind else 0 < pooled.high < 0.003


TRAINED: dict[str, list[str]] = {}  # profile -> the protocols that have trainings
for folder in sorted((ROOT / "results").glob("*/*/cells")):
    TRAINED.setdefault(folder.parent.parent.name, []).append(folder.parent.name)


@pytest.mark.parametrize("profile", [name for name, protocols in TRAINED.items() if len(protocols) > 1])
def test_every_protocol_with_trainings_is_met_by_the_others(profile: str) -> None:
    """Its tables of protocols lie with each of them, and new predictions of one change those of all."""
    first, *others = (
        pd.read_csv(ROOT / "results" / profile / name / "protocols.csv").dropna(subset="difference", ignore_index=True)
        for name in TRAINED[profile]
    )
    assert {*first["first"], *first["second"]} == set(TRAINED[profile])
    for other in others:  # else: python -m mammo_lib evaluate, with each of these protocols
        pd.testing.assert_frame_equal(other, first)


CHARTS = (  # how the captions begin, of today or older, of all pictures in which there is no mammogram
    "The work from the archive to the explained decision",
    "ROC curves on the test ",
    "Decisions on the test ",
    "Calibration on the test ",
    "Training on ",
    "Does ",
    "How much does the split protocol move the AUC?",
    "Grad-CAM and its controls against the lesion: mean over test images",
)


def test_no_committed_report_shows_a_mammogram_of_the_reduced_copy() -> None:
    """Its pictures may be looked at, not published."""
    mammograms = ("fig2_views", "fig3_patch_and_global", "fig7_gradcam", "gradcam_contact_sheet")
    assert not [name for name in mammograms if FIGURES[name].startswith(CHARTS)]
    reports = sorted((ROOT / "results").glob("reduced*/report.html"))
    assert reports
    for report in reports:
        page = report.read_text(encoding="utf-8")
        assert not [name for name in mammograms if FIGURES[name] in page], report
        captions = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert len(captions) == page.count("<img") == page.count("data:image") > 0, report
        assert not [caption for caption in captions if not caption.startswith(CHARTS)], report


def test_every_block_can_be_read() -> None:
    assert BOTH.count("<!-- begin ") == BOTH.count("<!-- end -->") == len(readme.BLOCK.findall(BOTH))


@pytest.mark.parametrize(("claim", "mark"), sorted(set(CLAIM.findall(BOTH))))
def test_every_marked_number_is_in_its_file(claim: str, mark: str) -> None:
    name, rows, values = CLAIMS.loc[int(mark), ["file", "rows", "values"]]
    assert holds(claim, ROOT / name, rows, values), f"{claim} is not {values} where {rows} in {name}"


def test_every_mark_stands_behind_a_number_and_has_one_line() -> None:
    marks = [int(mark) for mark in MARK.findall(BOTH)]
    assert len(marks) == len(CLAIM.findall(BOTH))
    assert sorted(set(marks)) == sorted(CLAIMS.index)


def test_no_share_stands_without_its_file() -> None:
    assert not SHARE.findall(CLAIM.sub("", prose(BOTH)))


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
        "| VGG16 | 22 | 0.812 [0.700, 0.900] | 0.8395 |  |",
        "| A/B |  |  | 0.8503 | weights not available |",
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


@pytest.mark.parametrize(
    ("claim", "values", "right"),
    [
        ("0.81", "auc", True),
        ("0.82", "auc", False),
        ("−0.81", "auc", False),
        ("−0.81", "-auc", True),
        ("+0.81", "-auc", False),
        ("0.0", "-auc / 100", True),
        ("0.81 [0.70, 0.90]", "auc ; auc_low ; auc_high", True),
        ("0.81 [0.71, 0.90]", "auc ; auc_low ; auc_high", False),
        ("0.81 [0.70, 0.90]", "auc", False),
        ("0.81", "auc ; auc_low ; auc_high", False),
    ],
)
def test_a_number_that_is_behind_is_noticed(stored: Path, claim: str, values: str, right: bool) -> None:
    assert holds(claim, stored, 'network == "VGG16"', values) is right


def test_the_numbers_of_a_claim_are_those_of_every_row(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("auc,low,high\n0.8,0.7,0.9\n0.6,0.5,0.7\n0.6,0.5,0.7\n")
    assert holds("0.60 [0.50, 0.70]", path, "auc < 0.7", "auc ; low ; high")
    assert not holds("0.60 [0.50, 0.90]", path, "auc < 0.7", "auc ; low ; high")
    assert not holds("0.60 [0.50, 0.70]", path, "", "auc ; low ; high")
    assert not holds("0.60 [0.50, 0.70]", path, "auc < 0.5", "auc ; low ; high")  # no row


def test_claims_are_found_and_shares_without_a_mark_too() -> None:
    assert CLAIM.findall("of **22**<!--7--> images") == [("22", "7")]
    assert CLAIM.findall("AUC +0.81\n[−0.70, 0.9]<!--8-->, 5 %<!--9-->") == [("+0.81\n[−0.70, 0.9]", "8"), ("5", "9")]
    assert SHARE.findall(CLAIM.sub("", prose("AUC 0.81 and `0.5` and 0.7<!--7-->, 0.8 [0.7, 0.9]<!--8-->"))) == ["0.81"]


@pytest.mark.parametrize(("table", "stage"), [("Table 1", "P"), ("Table 2", "G")])
def test_no_size_explains_more_by_one_rule_than_those_that_readme_names(table: str, stage: str) -> None:
    shown = pd.read_csv(ROOT / "results" / "published" / "test_sets.csv").query(f"table == '{table}'")
    for name, convention in (("all_rounded", "rounding"), ("all_cut", "truncation")):
        best = audit.best_test_sets(hypotheses.printed_rows(stage), convention=convention)
        assert best["explained"].max() == shown[name].max()
    assert "No other size explains more, by either rule." in " ".join(BOTH.split())


def test_what_notebook_06_says_that_it_found() -> None:
    text = (ROOT / "notebooks" / "06_published_numbers.ipynb").read_text(encoding="utf-8")
    named = (
        pd.read_csv(ROOT / "results" / "published" / "hypotheses.csv").set_index(["table", "hypothesis"]).sort_index()
    )
    masses = named.loc[("Table 1", "official test set, masses")]
    assert (masses["malignant"], masses["benign"], masses["explained"], masses["rows"]) == (147, 231, 3, 6)
    assert "147 malignant and 231 benign cases, the official CBIS-DDSM test masses, explain three of six rows" in text
    best = pd.read_csv(ROOT / "results" / "published" / "test_sets.csv").query("table == 'Table 2'").iloc[0]
    assert (best["malignant"], best["benign"], best["explained"], best["rows"]) == (139, 209, 8, 12)
    assert "139 and 209, or a multiple of them, explain eight of twelve rows" in text
    patches = named.loc[("Table 1", "official test set, 8 patches a mass")]
    head = pd.read_csv(ROOT / "results" / "published" / "test_sets.csv").query("table == 'Table 1'").iloc[0]
    assert (patches["explained"], head["explained"], head["malignant"], head["benign"]) == (4, 4, 294, 462)
    assert "some of their multiples four: the smallest, 294 and 462, heads the table of test sets, and eight" in text
