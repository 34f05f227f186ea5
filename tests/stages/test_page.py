"""The page of a run whose cells are made up: complete whatever is there, nothing dangling, its facts the files' own."""

import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from mammo_lib import stages
from mammo_lib.evaluation import captions, checklist
from mammo_lib.stages import exhibits, explanation, facts, page, pictures

if TYPE_CHECKING:
    from mammo_lib.evaluation.export import Table

SECTIONS = [
    "In short",
    "Data",
    "Table 1: patches",
    "Table 2: whole mammograms",
    "Does CBAM help, does patch transfer help",
    "Does training learn",
    "Where the network looks",
    "Split protocols",
    "What the printed numbers imply",
    "Systems the paper cites",
    "Checklist",
    "Runs",
    "How to cite",
]


@pytest.fixture(scope="module")
def text(run: stages.Experiment) -> str:
    return page.report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evaluated(run: stages.Experiment) -> "dict[str, Table]":
    return stages.evaluate(run)


@pytest.fixture
def made(evaluated: "dict[str, Table]") -> "dict[str, Table]":
    """The tables, to read or to exchange."""
    return dict(evaluated)


def test_every_section_is_there_in_order_though_steps_are_missing(text: str) -> None:
    assert [unescape(title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", text)] == SECTIONS
    looks = text.partition('<h2 id="where-the-network-looks">')[2].partition("<h2")[0]
    assert "Not made yet" in looks
    assert not re.search(r"\bnan\b", unescape(re.sub(r"<[^>]*>", " ", text.partition("<main>")[2])).lower())


def test_every_link_leads_to_a_file_and_every_table_to_its_csv(text: str, run: stages.Experiment) -> None:
    links = [link for link in re.findall(r'href="([^"#]+)"', text) if not link.startswith("https:")]
    assert all((run.report.parent / link).is_file() for link in links)
    names = {Path(link).name for link in links}
    assert {"table1.csv", "table1.tex", "table2.csv", "questions.csv", "spread_P.csv", "cited.csv", "rows.csv"} <= names
    assert "checklist.csv" in names


def test_ours_printed_and_difference_are_beside_each_other(text: str, run: stages.Experiment) -> None:
    row = (
        pd.read_csv(run.results / "table2.csv").query("network == 'ResNet50+CBAM' and initial == 'Patch data'").iloc[0]
    )
    shown = f"{row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}]"
    cells = [
        unescape(cell).replace("\u00a0", " ").replace("−", "-") for cell in re.findall(r"<td[^>]*>(.*?)</td>", text)
    ]
    place = cells.index(shown)
    assert re.fullmatch(rf"0\.8081\*? \({row.auc_difference:+.3f}\)", cells[place + 1])


def test_facts_count_what_the_files_hold(run: stages.Experiment, made: "dict[str, Table]") -> None:
    known = facts.facts(run, made)
    masses = pd.read_csv(run.results / "masses.csv")
    test = masses[masses.part == "test"]
    counted = f"test: {test.patient_id.nunique()} patients, {test.image_id.nunique()} images, {len(test)} masses"
    assert f"{counted} ({test.label.sum()} malignant)" in known["parts"]
    assert known["leakage"].startswith("Test cases whose patient is in training: P: 0 of ")
    assert "200 bootstrap resamples" in known["uncertainty"]
    assert "explanation" not in known, "nothing was explained"
    assert "software" not in known, "the environment was not described"


def test_facts_tell_of_networks_that_have_results_only(run: stages.Experiment, made: "dict[str, Table]") -> None:
    """Two networks are made up, from random and from patch weights; then all of their predictions are taken away."""
    known = facts.facts(run, made)
    assert known["model"].startswith("ResNet50, ResNet50+CBAM; ")
    assert known["initialisation"] == "P: random. G: random, Patch data."
    assert known["robustness"].startswith("Also: other initial weights, networks without CBAM")
    for name in ("table1", "table2"):
        frame = made[name].frame
        made[name] = replace(made[name], frame=frame.assign(auc=frame["auc"].where(frame["block"] == "baseline")))
    nothing = facts.facts(run, made)
    assert not {"model", "initialisation", "training", "final_model", "predictions"} & set(nothing)
    assert "initial" not in nothing["robustness"]
    assert checklist.fill(nothing).set_index(["guideline", "item"]).loc[("CLAIM 2024", "22"), "state"] == checklist.OPEN


def test_each_question_has_a_sentence_with_its_extremes(run: stages.Experiment, made: "dict[str, Table]") -> None:
    cbam, *others = facts.answers(run, made)
    rows = made["questions"].frame.query("question == 'CBAM' and difference.notna()")
    least = rows.loc[rows["difference"].idxmin()]
    assert f"{len(rows)} differences in AUC, {(rows['low'] > 0).sum()} with an interval above 0" in cbam
    assert least["difference"] < 0
    value = f"−{-least['difference']:.3f}"
    assert f"Least: {least['first']} minus {least['second']}, by {least['unit']}: {value}" in cbam
    told = " ".join(others)
    assert "over random weights" in told
    assert "over ImageNet" not in told, "nothing was trained from ImageNet"
    assert "As good as the radiologist's BI-RADS grade?" in told
    assert others[-1].startswith("Seed 0. Intervals are over patients")
    leaking = facts.answers(replace(run, protocol="as_written"), made)
    assert len(leaking) == len(others)
    assert "radiologist" not in " ".join(leaking)
    nothing = made["questions"].frame.assign(difference=float("nan"))
    silent = {"questions": replace(made["questions"], frame=nothing)}
    assert facts.answers(run, silent) == []


def test_a_main_network_without_a_result_is_named(run: stages.Experiment, made: "dict[str, Table]") -> None:
    known = facts.facts(run, made)
    assert "spread" not in known, "one fold, one seed"
    assert page._tested(run, known)[-1] == known["performance"]
    without = {name: told for name, told in known.items() if name != "performance"}
    told = page._tested(run, without)[-1]
    assert told == "ResNet50+CBAM from Patch data has no result on whole mammograms in this run."


def test_a_stored_table_is_shown_in_a_notebook_with_its_caption_and_decimals() -> None:
    frame = pd.DataFrame({"table": ["Table 1", "Table 1"], "chance": [0.00211, None], "all_cut": [3, 0]})
    page = exhibits.captioned("hypotheses", frame).to_html()
    assert "Named test sets and the rows they explain." in page
    told = exhibits.captioned("outcomes", pd.DataFrame({"message": ["expected <class 'x'>"]})).to_html()
    assert "expected &lt;class &#39;x&#39;&gt;" in told
    assert re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page) == [
        *("table", "chance", "all cut"),
        *("Table 1", "0.0021", "3"),
        *("Table 1", "", "0"),
    ]


def test_one_difference_is_not_called_least_and_most() -> None:
    values = {"first": "a", "second": "b", "unit": "patch", "difference": 0.25, "low": 0.125, "high": 0.5}
    assert (
        facts._differences(pd.DataFrame([values])) == "Difference in AUC, a minus b, by patch: +0.250 [+0.125, +0.500]."
    )


def test_facts_and_figure_1_name_cbam_only_where_it_is(run: stages.Experiment, made: "dict[str, Table]") -> None:
    assert "one CBAM behind" in facts.facts(run, made)["model"]
    for name in ("table1", "table2"):
        frame = made[name].frame
        made[name] = replace(made[name], frame=frame[~frame["network"].str.endswith("+CBAM")])
    without = replace(run, profile=replace(run.profile, networks=("resnet50",), global_initial=("imagenet",)))
    found = facts.facts(without, made)
    assert "CBAM" not in found["model"] + found["method"]
    steps = dict(pictures.work_flow(without.profile))
    assert (steps["patch network"], steps["global network"]) == ("1 network", "the same, from: ImageNet")
    assert dict(pictures.work_flow(run.profile))["patch network"] == "6 networks, with and without CBAM"


def test_facts_tell_of_a_warm_up(run: stages.Experiment, made: "dict[str, Table]") -> None:
    warm_up = replace(run.profile.patch_training, learning_rate=3e-5, max_epochs=3)
    warm = replace(run, profile=replace(run.profile, warm_up=warm_up))
    told = "(from ImageNet, first with the trunk frozen: adam, learning rate 3e-05, batch 8, at most 3 epochs)"
    assert told in facts.facts(warm, made)["training"]
    assert "frozen" not in facts.facts(run, made)["training"]


@pytest.mark.usefixtures("text")
def test_the_checklist_is_answered_from_the_facts_and_open_where_there_are_none(run: stages.Experiment) -> None:
    filled = pd.read_csv(run.results / "checklist.csv", keep_default_na=False).set_index(["guideline", "item"])
    assert "0 of" in filled.loc[("CLAIM 2024", "20"), "answer"]
    assert filled.loc[("CLAIM 2024", "31"), "state"].startswith("open")
    assert filled.loc[("TRIPOD+AI", "17"), "state"].startswith("open")


def test_a_figure_is_shown_with_its_caption(run: stages.Experiment, text: str) -> None:
    told = exhibits.NOT_DRAWN.format("tiny", "official", 0)
    assert unescape(text).count(told) == 4, "the data, both tables and the questions have figures; none is drawn"
    drawn = {path.stem for path in stages.draw_evaluation(run)}
    after = page.report(run).read_text(encoding="utf-8")
    assert unescape(after).count(told) == 1, "those of the data are drawn by another step"
    shown = [unescape(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", after)]
    asked = captions.questions(pd.read_csv(run.results / "questions.csv")["question"].unique())
    assert {(captions.FIGURES | asked)[name] for name in drawn} == set(shown)
    assert len(shown) == len(drawn)
    assert all(caption.endswith(".") and "_" not in caption for caption in shown)


def test_localisation_is_drawn_again_without_maps_or_images(run: stages.Experiment) -> None:
    rows = [("Grad-CAM", name, "all", 0.3, 0.2, 0.4, run.seed) for name in ("energy", "pointing", "iou")]
    columns = ["method", "measure", "group", "mean", "low", "high", "seed"]
    path, cases = run.results / "localisation.csv", run.results / "localisation_cases.csv"
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    predicted = pd.read_csv(run.results / "cells/G/resnet50_cbam/patch/fold0-seed0/predictions.csv")
    test = predicted[predicted["part"] == "test"]
    assert not explanation.is_measured(run), "of which cases is not known"
    try:
        for missing in (1, 0):  # of one case nothing was measured
            test.iloc[missing:].to_csv(cases, index=False)
            assert explanation.is_measured(run) == (not missing)
        drawn = {path.name for path in stages.draw_everything(run)}
    finally:
        path.unlink()
        cases.unlink()
    assert {"localisation.png", "localisation.pdf"} <= drawn


def test_a_clone_without_images_tells_what_was_set_aside_and_draws_what_needs_none(
    run: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that the repository holds of a run is in results/."""
    shutil.copytree(run.results, tmp_path / "results" / "tiny" / "official")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    problem = {"stage": "read", "id": "01", "file": "1.png", "reason": "no image"}
    pd.DataFrame([problem]).to_csv(run.results / "problems.csv", index=False)
    drawn = {path.stem for path in stages.draw_everything(run)}
    told = capsys.readouterr().out
    assert f"Fig. 2 and 3, as nothing is prepared in {run.places.prepared}" in told
    assert f"Grad-CAM's images, as {run.runs} has no heat maps" in told
    assert "fig1_work_flow" in drawn
    assert "fig2_views" not in drawn
    data = page.report(run).read_text(encoding="utf-8").partition('<h2 id="data">')[2].partition("<h2")[0]
    assert "Set aside with the reason: 1;" in data
    assert "no image" in data
    assert "Fig. 1 of the paper" in data


def test_figures_come_from_the_predictions_and_not_from_tables_of_before(run: stages.Experiment) -> None:
    stale, table = run.results / "protocols.csv", run.results / "questions.csv"
    table.unlink(missing_ok=True)
    stale.write_text("of a protocol that is gone\n")
    drawn = {path.stem for path in stages.draw_everything(run)}
    assert not stale.exists()
    assert "question_1" in drawn


def test_a_notebook_shows_each_question_with_its_own_sentence(
    run: stages.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that asks two of the questions numbers these two."""
    asked, seen = list(captions.QUESTIONS)[1:3], []
    table = run.results / "questions.csv"
    kept = table.read_bytes() if table.exists() else None
    pd.DataFrame({"question": asked}).to_csv(table, index=False)
    monkeypatch.setattr("IPython.display.Image", lambda path: path)
    monkeypatch.setattr("IPython.display.display", lambda *shown: seen.append(shown))
    try:
        stages.show(run, [Path("question_1.png"), Path("question_1.pdf"), Path("question_2.png")])
    finally:
        table.unlink() if kept is None else table.write_bytes(kept)
    for (path, sentence), name, question in zip(seen, ("question_1", "question_2"), asked, strict=True):
        assert path.stem == name
        assert captions.QUESTIONS[question] in sentence.data


def test_settings_that_were_tried_and_the_gates_are_shown(run: stages.Experiment, text: str) -> None:
    assert page.NOT_TRIED in unescape(text)
    pd.DataFrame({"candidate": ["slow"], "learning_rate": [1e-5], "batch_size": [4], "validation_auc": [0.5]}).to_csv(
        run.results / "candidates.csv", index=False
    )
    alone = exhibits.Exhibits(run, {}, {}, {}).section("", stored=page.TRIED, otherwise=page.NOT_TRIED)
    assert (len(alone.tables), alone.prose) == (1, []), "the candidates alone are enough"
    row = {"stage": "P", "network": "vgg16_cbam", "seed": 1, "when": "kept epoch", "channel_gate": 0.5}
    pd.DataFrame([row | {"spatial_gate": 7e-8}]).to_csv(run.results / "gates.csv", index=False)
    pd.DataFrame({"step": [1], "loss": [0.7], "spatial_gate": [0.45]}).to_csv(
        run.results / "gates_first_steps.csv", index=False
    )
    told = unescape(page.report(run).read_text(encoding="utf-8"))
    assert captions.TABLES["candidates"].caption in told
    assert "1e-05" in told
    assert page.NOT_TRIED not in told
    assert captions.TABLES["gates"].caption in told
    assert captions.TABLES["gates_first_steps"].caption in told
    assert "7e-08" in told


def test_every_source_of_data_has_its_facts() -> None:
    from mammo_lib.config import PROFILES
    from mammo_lib.stages.sources import SOURCES

    assert {profile.source for profile in PROFILES.values()} == set(SOURCES)
    assert set().union(*(source.facts for source in SOURCES.values())) <= checklist.asked()


def test_what_differs_in_the_archive_is_named() -> None:
    """As the reduced copy's: 1592 mass images, where the paper counts 1590."""
    rows = [("tables", "4", "4", "as expected"), ("mass images", "1590", "1592", "differs"), ("note", "", "1", "noted")]
    told = facts._checks(pd.DataFrame(rows, columns=["name", "expected", "found", "verdict"]))
    assert told.endswith(": 3; as expected or only noted: 2. Not: mass images (1590, found 1592).")
    assert "Not:" not in facts._checks(pd.DataFrame(rows[:1], columns=["name", "expected", "found", "verdict"]))


def test_ids_of_digits_stay_what_they_are(run: stages.Experiment, tmp_path: Path) -> None:
    problems = tmp_path / "problems.csv"
    pd.DataFrame({"stage": "cases", "id": ["1", "01"], "reason": "no image"}).to_csv(problems, index=False)
    assert facts._set_aside(problems).startswith("Set aside with the reason: 2;")
    path = run.results / "integrity.csv"
    before = path.read_text() if path.exists() else None
    row = {"name": "masses set aside", "expected": 0, "found": 1, "verdict": "differs", "ids": "0003", "note": ""}
    pd.DataFrame([row, row | {"ids": ""}]).to_csv(path, index=False)
    try:
        table = next(iter(exhibits.Exhibits(run, {}, {}, {})._stored("integrity", folded=False)))
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert table.frame["ids"].tolist() == ["0003", ""]


def test_official_is_said_in_the_words_of_the_source(run: stages.Experiment) -> None:
    def told(experiment: stages.Experiment) -> list[str]:
        machine = stages.describe_environment(experiment).set_index("what")["value"]
        return [machine["protocol"], facts.facts(experiment, stages.evaluate(experiment))["protocol"]]

    assert all("phantoms" in text and "CBIS-DDSM" not in text for text in told(run))
    reduced = replace(run, profile=replace(run.profile, source="reduced"))
    assert all("CBIS-DDSM's own test patients" in text for text in told(reduced))
    (run.results / "environment.csv").unlink()


def test_a_check_that_could_not_be_made_leaves_the_others_told(run: stages.Experiment) -> None:
    """As of a streamed archive, whose originals are gone when it is looked at."""
    path = run.results / "integrity.csv"
    rows = [("files", "", "not looked for", "noted"), ("mass images", "1590", "1592", "differs")]
    before = path.read_text() if path.exists() else None
    pd.DataFrame(rows, columns=["name", "expected", "found", "verdict"]).to_csv(path, index=False)
    try:
        told = facts.facts(run, stages.evaluate(run))["checks"]
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert told.endswith("Not: mass images (1590, found 1592).")
