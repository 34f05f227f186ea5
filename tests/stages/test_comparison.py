"""From stored predictions to tables: which runs are read, which are refused, and what other data sets lack."""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from mammo_lib import config, paths, stages
from mammo_lib.config import INITIAL_LABELS, MASS_MAP, PROBE
from mammo_lib.evaluation import comparisons, figures, figures_curves
from mammo_lib.stages import comparison, page
from mammo_lib.stages.experiment import extra_file, extra_folder
from mammo_lib.training import records
from mammo_lib.training.experiments import Cell

if TYPE_CHECKING:
    from mammo_lib.evaluation.export import Table

    Made = dict[str, Table]


@pytest.fixture(scope="module")
def made_second(every_protocol: dict[str, stages.Experiment]) -> "Made":
    """The tables of the official protocol's second seed; to be read, not changed, as those below."""
    return stages.evaluate(replace(every_protocol["official"], seed=1))


@pytest.fixture(scope="module")
def made_official(every_protocol: dict[str, stages.Experiment], made_second: "Made") -> "Made":
    """Those of its first: made after the second's, as both are written to one folder."""
    assert "questions" in made_second
    return stages.evaluate(every_protocol["official"])


@pytest.fixture(scope="module")
def made_grouped(every_protocol: dict[str, stages.Experiment]) -> "Made":
    return stages.evaluate(every_protocol["grouped_cv"])


def test_the_spread_takes_every_seed_and_the_tables_their_own(
    every_protocol: dict[str, stages.Experiment], made_official: "Made"
) -> None:
    spread = made_official["spread_G"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert (spread["seeds"], spread["runs"]) == (2, 2)
    folder = every_protocol["official"].results / "cells" / "G" / "resnet50" / "patch"
    tests = [pd.read_csv(folder / f"fold0-seed{seed}" / "predictions.csv").query("part == 'test'") for seed in (0, 1)]
    aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
    assert (spread["least"], spread["most"]) == pytest.approx((min(aucs), max(aucs)))
    table = made_official["table2"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert table["auc"] == pytest.approx(aucs[0])


def test_the_questions_are_asked_of_every_seed(
    made_official: "Made", made_second: "Made", made_grouped: "Made"
) -> None:
    frame = made_official["questions_seeds"].frame
    keys = ["question", "stage", "first", "second"]
    for seed, made in ((0, made_official), (1, made_second)):
        asked = made["questions"].frame
        wanted = asked[asked["difference"].notna()].set_index(keys)["difference"].astype(float)
        found = frame[frame["seed"] == seed].set_index(keys)["difference"].astype(float)
        assert len(wanted) >= 3
        pd.testing.assert_series_equal(found, wanted)
    means = frame.groupby(keys, sort=False)[["difference", "mean_difference"]].mean()
    assert np.allclose(means["difference"].astype(float), means["mean_difference"].astype(float))
    deviations = frame.groupby(keys, sort=False)["difference"].apply(
        lambda two: abs(two.iloc[0] - two.iloc[1]) / 2**0.5
    )
    assert np.allclose(deviations.astype(float), frame.groupby(keys, sort=False)["sd_seeds"].first().astype(float))
    widths = frame.assign(one=frame["high"] - frame["low"], mean=frame["mean_high"] - frame["mean_low"])
    assert (widths["mean"] > 0).all()
    assert (widths.groupby(keys)["mean"].first() < widths.groupby(keys)["one"].max()).all()  # two trainings, not one
    assert "questions_seeds" not in made_grouped


@pytest.mark.parametrize(("score", "legend"), [(1.0, "AUC 1.00"), (0.3, "AUC 0.")])
def test_the_legend_of_a_curve_has_no_interval_of_one_point(
    every_protocol: dict[str, stages.Experiment], score: float, legend: str
) -> None:
    official, key = every_protocol["official"], ("P", "resnet50", "scratch")
    frame = stages.predictions(official)[key]
    noise = np.random.default_rng(0).random(len(frame)) * 0.9
    curve = comparison._curve(official, key, frame.assign(probability=(noise + score * frame["label"]) / 2))
    assert curve.text.startswith(legend)
    assert ("to" in curve.text) == (score < 1)


def test_protocols_are_compared_drawn_and_shown(
    every_protocol: dict[str, stages.Experiment], made_official: "Made"
) -> None:
    """The optimism of one cell, counted here from the files of two protocols; its figure; its place on the page."""
    official = every_protocol["official"]
    made = made_official["protocols"].frame
    assert len(made) == 3 * 2 * 3  # three pairs of protocols, two networks, P and G from patch weights and at random
    row = made.query("network == 'ResNet50+CBAM' and initial == 'Patch data' and first == 'as_written'").iloc[0]
    aucs = []
    for name in ("as_written", "official"):
        folder = every_protocol[name].results / "cells" / "G" / "resnet50_cbam" / "patch" / "fold0-seed0"
        test = pd.read_csv(folder / "predictions.csv").query("part == 'test'")
        aucs.append(roc_auc_score(test["label"], test["probability"]))
    assert row["second"] == "official"
    assert row["difference"] == pytest.approx(aucs[0] - aucs[1])
    drawn = stages.draw_evaluation(official)
    assert official.figures / "protocols.png" in drawn
    written = page.report(official)
    assert written == official.results.parent / "report.html"
    assert every_protocol["grouped_cv"].report == written.with_name("report_grouped_cv.html"), "none replaces another"
    shown = written.read_text(encoding="utf-8").partition('<h2 id="split-protocols">')[2]
    shown = shown.partition("<h2")[0]
    assert "AUC points" in shown
    assert "<img" in shown
    assert "Only one protocol" not in shown


@pytest.mark.usefixtures("made_official")
def test_protocols_that_were_not_run_are_not_drawn(
    every_protocol: dict[str, stages.Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    official = every_protocol["official"]
    path, drawn = official.results / "protocols.csv", []
    kept, inside = path.read_bytes(), figures_curves.forest
    monkeypatch.setattr(comparison, "predictions", lambda _: {})  # the curves are drawn elsewhere
    monkeypatch.setattr(
        figures_curves, "forest", lambda frame, *rest, **more: drawn.append(frame) or inside(frame, *rest, **more)
    )
    table = pd.read_csv(path)
    lost = (table["stage"] == "P") & (table["first"] == "grouped_cv")
    table.loc[lost, ["difference", "low", "high", "p"]] = None
    try:
        table.assign(note=lost.map({True: "grouped_cv: not run", False: None})).to_csv(path, index=False)
        stages.draw_evaluation(official)
        assert len(drawn[-1]) == 2 * 3 * 2 - lost.sum()  # two networks, three pairs, P and the arm of G that is shown
        assert not drawn[-1]["label"].str.startswith("P, ResNet50: grouped_cv").any()
        table.assign(note="grouped_cv: not run").to_csv(path, index=False)
        assert official.figures / "protocols.png" not in stages.draw_evaluation(official)
        assert not (official.figures / "protocols.png").exists(), "of what is no longer there"
    finally:
        path.write_bytes(kept)


def test_a_forest_plot_of_a_question_prints_p_after_holm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment, drawn = stages.Experiment.of("tiny", "official", 0), list[Figure]()
    experiment.results.mkdir(parents=True)
    row = {"question": comparisons.CBAM, "stage": "P", "first": "a", "second": "b", "difference": 0.1}
    row |= {"low": 0.02, "high": 0.2, "p": 0.011, "p_holm": 0.044, "p_delong": 0.022, "p_delong_holm": 0.033}
    pd.DataFrame([row]).to_csv(experiment.results / "questions.csv", index=False)
    monkeypatch.setattr(figures, "save", lambda figure, *_: drawn.append(figure) or [])
    comparison._draw_questions(experiment, "Data: made up")
    (axes,) = drawn[0].axes
    (right,) = axes.child_axes
    assert [text.get_text() for text in right.get_yticklabels()] == ["+0.100 (+0.020 to +0.200)  p = 0.044"]
    assert axes.get_xlabel() == "CBAM: difference in AUC (p after Holm)"


def test_folds_stay_apart_and_have_their_own_thresholds(
    every_protocol: dict[str, stages.Experiment], made_grouped: "Made"
) -> None:
    """Youden's threshold of each fold is found here by trying every score of its validation cases."""
    frame = stages.predictions(every_protocol["grouped_cv"])["G", "resnet50", "patch"]
    assert sorted(frame["fold"].unique()) == [0, 1, 2, 3, 4]
    assert not frame.query("part == 'test'")["id"].duplicated().any()
    points = made_grouped["operating_points_G"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert points["cases"] == frame.query("part == 'test'").shape[0]
    thresholds, called = [], []
    for _, fold in frame.groupby("fold"):
        validation, test = (fold[fold["part"] == part] for part in ("validation", "test"))
        scores, (benign, malignant) = validation["probability"], validation["label"].value_counts().sort_index()
        balance = {
            at: ((scores >= at) & (validation["label"] == 1)).sum() * benign
            + ((scores < at) & (validation["label"] == 0)).sum() * malignant
            for at in sorted(scores)
        }
        thresholds.append(max(balance, key=lambda at: balance[at]))  # of equals the first, which is the lowest
        called.append(test.assign(called=test["probability"] >= thresholds[-1]))
    decided = pd.concat(called)
    assert len(set(thresholds)) > 1
    assert points["youden_threshold"] == pytest.approx(np.mean(thresholds))
    assert points["youden_sensitivity"] == pytest.approx(decided.loc[decided["label"] == 1, "called"].mean())
    assert points["youden_specificity"] == pytest.approx(1 - decided.loc[decided["label"] == 0, "called"].mean())
    assert points["youden_accuracy"] == pytest.approx((decided["called"] == decided["label"]).mean())
    prevalence = made_grouped["table2"].frame.query("network == 'Prevalence'").iloc[0]
    assert prevalence["auc"] == 0.5  # one score a fold: no fold is ranked against another


def test_a_cell_of_another_protocol_is_refused_with_its_rows(every_protocol: dict[str, stages.Experiment]) -> None:
    official, name = every_protocol["official"], Cell("official", "G", "resnet50", "patch").name
    kept = official.results / "cells" / name / "predictions.csv"
    foreign = every_protocol["as_written"].results / "cells" / name / "predictions.csv"
    before = kept.read_text(encoding="utf-8")
    shutil.copyfile(foreign, kept)
    try:
        with pytest.raises(ValueError, match=r"predictions\.csv: .*(P_\d+_\w+).*predict the cell again"):
            stages.evaluate(official)
    finally:
        kept.write_text(before, encoding="utf-8")


@pytest.fixture
def mias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stages.Experiment:
    """Results as mini-MIAS leaves them: no assessment, no margins, no official split, one view a breast."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    profile = replace(config.get_profile("mias"), evaluation=config.Evaluation(resamples=200))
    experiment, rng = stages.Experiment(profile, "grouped_cv", 0), np.random.default_rng(0)
    images = pd.DataFrame({"image_id": [f"mdb{number:03d}" for number in range(1, 41)]})
    images["patient_id"] = [f"mias{number // 2:03d}" for number in range(2, 42)]
    images = images.assign(side=["LEFT", "RIGHT"] * 20, label=np.repeat(rng.permutation(np.tile([0, 1], 10)), 2))
    folds = [_fold_of(images, fold, rng) for fold in range(5)]
    whole = pd.concat(folds).assign(mass_id=lambda frame: frame["image_id"] + "_1")
    experiment.results.mkdir(parents=True)
    blank = dict.fromkeys(("assessment", "margins"), "")
    whole.assign(shape="CIRC", **blank).to_csv(experiment.results / "masses.csv", index=False)
    predicted = whole[whole["part"] != "train"]
    cases = {"G": predicted.assign(id=predicted["image_id"]).drop(columns="mass_id")}
    cases["P"] = pd.concat([predicted.assign(id=predicted["mass_id"] + f"#{number}") for number in range(2)])
    for stage, frame in cases.items():
        frame.to_csv(experiment.results / f"expected_{stage}.csv", index=False)
    for cell in stages.cells(experiment):
        if cell.network == "resnet50" and cell.initial != "imagenet":
            frame = cases[cell.stage].query(f"fold == {cell.fold}").drop(columns="fold")
            path = experiment.results / "cells" / cell.name / "predictions.csv"
            path.parent.mkdir(parents=True)
            frame = frame.assign(mass_id=frame.get("mass_id", ""), probability=rng.random(len(frame)))
            frame.to_csv(path, index=False)
    columns = ["cell", "state", "message"]
    pd.DataFrame(columns=columns).to_csv(experiment.results / "outcomes.csv", index=False)
    return experiment


def _fold_of(images: pd.DataFrame, fold: int, rng: np.random.Generator) -> pd.DataFrame:
    """Four patients are tested, two of each class; six of the others are validation."""
    patients = images.drop_duplicates("patient_id").sort_values("label", kind="stable")["patient_id"].to_numpy()
    test = np.r_[patients[:10].reshape(5, 2)[fold], patients[10:].reshape(5, 2)[fold]]
    validation = rng.permutation(np.setdiff1d(patients, test))[:8]
    part = pd.Series("train", index=images.index)
    part = part.mask(images["patient_id"].isin(validation), "validation").mask(images["patient_id"].isin(test), "test")
    return images.assign(fold=fold, part=part)


def test_a_data_set_without_assessments_descriptors_and_official_split(mias: stages.Experiment) -> None:
    made = stages.evaluate(mias)
    table = made["table1"].frame
    assert table.query("block == 'baseline'")["network"].tolist() == ["Prevalence"]
    row = table.query("network == 'ResNet50'").iloc[0]
    assert (row["cases"], row["patients"]) == (80, 20)
    assert 0 <= row["auc_low"] <= row["auc"] <= row["auc_high"] <= 1
    units = made["units_G"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert [units[f"{unit}_cases"] for unit in ("image", "breast", "patient")] == [40, 40, 20]
    assert units["note"] == ""
    assert stages.draw_evaluation(mias)
    text = page.report(mias).read_text(encoding="utf-8")
    assert "mini-MIAS" in text
    assert "BI-RADS assessment alone" not in text


def test_baselines_have_the_masses_whose_patches_are_tested(
    every_protocol: dict[str, stages.Experiment], made_official: "Made"
) -> None:
    """Under as_written the patches are drawn apart from the images; a mass may have patches in every part.

    The radiologist is also met without those whose patient was not called back.
    """
    for name, made in {"as_written": stages.evaluate(every_protocol["as_written"]), "official": made_official}.items():
        masses = pd.read_csv(every_protocol[name].results / "masses.csv")
        frame = made["table1"].frame
        patches = stages.parts(every_protocol[name], "P").query("part == 'test'")
        baselines = frame[frame["block"] == "baseline"]
        assert len(baselines) >= 2
        assert baselines["cases"].eq(patches["mass_id"].nunique()).all()
        assert baselines["malignant"].eq(patches.drop_duplicates("mass_id")["label"].sum()).all()
        assert baselines["patients"].eq(patches["patient_id"].nunique()).all()
        called_back = set(patches["mass_id"]) - set(masses.query("pathology == 'BENIGN_WITHOUT_CALLBACK'")["mass_id"])
        assert 0 < len(called_back) < patches["mass_id"].nunique()
        met = made["birads_P"].frame.query("cases.notna()")
        assert met["called_back_cases"].tolist() == [len(called_back)] * 2  # of two networks
        assert ("added_P" in made) == (name == "official")  # where validation and test share no patient
    beside = made_official["added_P"].frame.query("cases.notna()")
    assert beside["cases"].tolist() == met["cases"].tolist()
    assert beside["birads_alone"].tolist() == pytest.approx(met["auc_birads"].tolist())


def test_a_cell_that_failed_says_so_in_its_row_and_leaves_the_ids_to_its_file(run: stages.Experiment) -> None:
    path = run.results / "outcomes.csv"
    kept = path.read_bytes()
    failed = ("G/vgg16/imagenet/fold0-seed0", "failed", "Diverged: loss is nan (images a, b): look at them")
    pd.DataFrame([failed], columns=["cell", "state", "message"]).to_csv(path, index=False)
    try:
        frame = stages.evaluate(run)["table2"].frame
    finally:
        path.write_bytes(kept)
    row = frame.query("network == 'VGG16' and initial == 'ImageNet'")
    assert row["note"].tolist() == ["failed: Diverged: loss is nan"]
    assert row["auc"].isna().all()


def test_a_cell_of_other_settings_than_the_profiles_is_left_out_and_says_so(run: stages.Experiment) -> None:
    name, longer = "P/resnet50/scratch/fold0-seed0", replace(run.profile.patch_training, max_epochs=9)
    cell = next(cell for cell in stages.cells(run) if cell.name == name)
    of_longer = records.cell_settings(cell, replace(run.profile, patch_training=longer), {"images": "of that time"})
    record = run.results / "cells" / name / "run.json"
    try:
        paths.write_json(record, {"settings": of_longer})
        made = stages.evaluate(run)
        assert ("P", "resnet50", "scratch") not in comparison.predictions(run)
    finally:
        record.unlink()
    row = made["table1"].frame.query("network == 'ResNet50'")
    assert row["note"].tolist() == ["trained with other settings (training.max_epochs: was 9, is 1)"]
    assert row["auc"].isna().all()
    assert ("P", "resnet50", "scratch") in comparison.predictions(run)


def test_the_reason_of_the_first_fold_is_the_one_that_is_told(
    every_protocol: dict[str, stages.Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fold 0 diverged; the others were not tried after that. Of another network no fold was."""
    run, tried = every_protocol["grouped_cv"], "G/vgg16/imagenet"
    told = pd.DataFrame([{"cell": f"{tried}/fold0-seed0", "state": "diverged", "message": "loss is nan"}])
    monkeypatch.setattr(comparison, "outcomes", lambda _: told)
    reasons = comparison.setting_of(run).reasons
    assert reasons["G", "vgg16", "imagenet"] == "diverged: loss is nan"
    assert reasons["G", "vgg16_cbam", "imagenet"] == "not run"


def test_our_own_row_of_other_settings_is_left_out_and_says_so(run: stages.Experiment) -> None:
    """One of the two each time, and not the other."""
    folders = {PROBE: run.results / PROBE, MASS_MAP: extra_folder(run, MASS_MAP) / "fold0"}
    settings = {PROBE: paths.plain(run.profile.probe), MASS_MAP: paths.plain(run.profile.mass_map)}
    try:
        for row in folders:
            path = extra_file(run, row, "P")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.results / "cells/P/resnet50/scratch/fold0-seed0/predictions.csv", path)
        for otherwise in folders:
            notes = dict.fromkeys(folders, "")
            for row, folder in folders.items():
                used = settings[row]
                if row == otherwise:
                    name = next(iter(used))
                    used, notes[row] = used | {name: "of that time"}, f"made with other settings ({name}: was "
                paths.write_json(folder / "run.json", {"settings": {row: used}})
            frame = stages.evaluate(run)["table1"].frame
            for row, note in notes.items():
                found = frame[frame["network"] == config.EXTRA_LABELS[row]].iloc[0]
                assert found["note"].startswith(note)
                assert pd.isna(found["auc"]) == (row == otherwise)
    finally:
        for row in folders:
            shutil.rmtree(run.results / row, ignore_errors=True)


def test_our_own_rows_stand_in_tables_and_spread(every_protocol: dict[str, stages.Experiment]) -> None:
    official = every_protocol["official"]
    for seed, stage, row in product((0, 1), ("P", "G"), (MASS_MAP, PROBE)):
        path = extra_file(replace(official, seed=seed), row, stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        network = {MASS_MAP: "resnet50", PROBE: "resnet50_cbam"}[row]
        cell = official.results / "cells" / stage / network / "scratch"
        shutil.copyfile(cell / f"fold0-seed{seed if row == MASS_MAP else 0}" / "predictions.csv", path)
    try:
        made = stages.evaluate(official)
    finally:
        for row in (MASS_MAP, PROBE):
            shutil.rmtree(official.results / row)
    asked = made["questions"].frame.set_index(["question", "stage", "first"])["difference"]
    for stage, table in (("P", "table1"), ("G", "table2")):
        rows = made[table].frame.set_index(["network", "initial"])["auc"]
        assert rows["Mass map of VGG16 (ours)", "ImageNet"] == rows["ResNet50", "random"]
        assert rows["Linear probe of VGG16 (ours)", "ImageNet"] == rows["ResNet50+CBAM", "random"]
        taught = asked[comparisons.TAUGHT, stage, "Mass map of VGG16 (ours) (ImageNet)"]
        assert taught == -asked[comparisons.CBAM, stage, "ResNet50+CBAM (random)"]
        initial = official.profile.main_initial[stage]
        main = asked[comparisons.OVER_PROBE, stage, f"ResNet50+CBAM ({INITIAL_LABELS[initial]})"]
        assert main == pytest.approx(
            rows["ResNet50+CBAM", INITIAL_LABELS[initial]] - rows["Linear probe of VGG16 (ours)", "ImageNet"]
        )
        spread = made[f"spread_{stage}"].frame.set_index(["network", "initial"])
        assert spread.loc["Mass map of VGG16 (ours)", "ImageNet"].equals(spread.loc["ResNet50", "random"])


def test_calibration_names_its_errors_in_place_of_the_auc() -> None:
    curve = figures_curves.Curve("vgg16", np.array([0, 1]), np.array([0.2, 0.6]), "AUC 1.00")
    assert comparison._with_errors(curve).text == "ECE 0.30, Brier score 0.10"
