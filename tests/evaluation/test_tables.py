"""Tables 1 and 2, further scores, comparisons and exports, on made predictions whose numbers are counted here."""

import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import HTMLFormatter
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mammo_lib import config
from mammo_lib.evaluation import comparisons, export, metrics, protocols, radiologist, scores, statistics, tables

PROFILE = replace(config.get_profile("tiny"), evaluation=config.Evaluation(resamples=200))
SETTING = tables.Setting(PROFILE, "official", reasons={("G", "vgg16", "imagenet"): "weights not available"})


def made(stage: str, seed: int, gain: float = 1.0, patients: int = 30) -> pd.DataFrame:
    """Both views of one breast a patient; two patches a mass in stage P; a third of the patients is validation."""
    generator, rows = np.random.default_rng(seed), []
    for number in range(patients):
        patient, label = f"P_{number:05}", number % 2
        for view in ("CC", "MLO"):
            image = f"{patient}_LEFT_{view}"
            for patch in range(2 if stage == "P" else 1):
                name = f"{image}_1#{patch}" if stage == "P" else image
                part = "validation" if number % 3 == 0 else "test"
                score = 1 / (1 + np.exp(-generator.normal() - gain * (label - 0.5)))
                rows.append((name, f"{image}_1" if stage == "P" else "", image, patient, part, label, score))
    columns = ["id", "mass_id", "image_id", "patient_id", "part", "label", "probability"]
    return pd.DataFrame(rows, columns=columns).assign(side="LEFT", fold=0)


def results() -> dict[tables.Key, pd.DataFrame]:
    cells = {("P", network, "scratch"): made("P", seed) for seed, network in enumerate(config.NETWORKS)}
    return cells | {
        ("G", network, initial): made(
            "G", seed + (50 if initial == "patch" else 90), 2.0 if initial == "patch" else 0.5
        )
        for seed, network in enumerate(config.NETWORKS)
        for initial in ("patch", "scratch")
    }


def test_table_1_is_ours_beside_the_printed() -> None:
    frame = tables.published("P", results(), SETTING).frame
    assert frame["network"].tolist() == [config.NETWORK_LABELS[name] for name in config.NETWORKS]
    test = made("P", 5).query("part == 'test'")
    row = frame.set_index("network").loc["ResNet50+CBAM"]
    called = test["probability"] >= 0.5
    assert row["cases"] == len(test) == 80
    assert row["patients"] == 20
    assert row["sensitivity"] == pytest.approx(recall_score(test["label"], called))
    assert row["specificity"] == pytest.approx(recall_score(test["label"], called, pos_label=0))
    assert row["accuracy"] == pytest.approx(accuracy_score(test["label"], called))
    assert row["auc"] == pytest.approx(roc_auc_score(test["label"], test["probability"]))
    assert row["auc_printed"] == 0.8607
    assert row["auc_difference"] == pytest.approx(row["auc"] - 0.8607)
    assert row["auc_printed_inside"] == (row["auc_low"] <= 0.8607 <= row["auc_high"])
    assert 0 <= row["auc_low"] < row["auc"] < row["auc_high"] <= 1


def test_table_2_marks_what_did_not_run_and_shows_scratch_without_a_printed_value() -> None:
    table = tables.published("G", results(), SETTING)
    frame = table.frame.set_index(["network", "initial"])
    assert len(frame) == 18
    missing = frame.loc[("VGG16", "ImageNet")]
    assert missing["note"] == "weights not available"
    assert pd.isna(missing["auc"])
    assert missing["auc_printed"] == 0.7599
    assert frame.loc[("VGG16+CBAM", "ImageNet"), "note"] == tables.MISSING
    control = frame.loc[("ResNet50", "random")]
    assert pd.isna(control["auc_printed"])
    assert pd.notna(control["auc"])
    assert "VGG16 ImageNet: weights not available." in table.notes


SMALL = replace(  # some networks only, and an arm that the paper does not print: P from ImageNet
    PROFILE,
    networks=("vgg16", "resnet50", "resnet50_cbam"),
    patch_initial=("scratch", "imagenet"),
    global_initial=("patch", "imagenet"),
)


def test_an_arm_without_a_printed_row_stands_below_its_network_with_blank_printed_columns() -> None:
    cells = {("P", "resnet50", "scratch"): made("P", 1), ("P", "resnet50", "imagenet"): made("P", 2)}
    table = tables.published("P", cells, replace(SETTING, profile=SMALL))
    assert list(zip(table.frame["network"], table.frame["initial"], strict=True)) == [
        ("VGG16", "random"),
        ("VGG16", "ImageNet"),
        ("ResNet50", "random"),
        ("ResNet50", "ImageNet"),
        ("ResNet50+CBAM", "random"),
        ("ResNet50+CBAM", "ImageNet"),
    ]
    extra = table.frame.iloc[3]
    test = made("P", 2).query("part == 'test'")
    assert extra["auc"] == pytest.approx(roc_auc_score(test["label"], test["probability"]))
    for name in tables.PAPER_METRICS:
        assert pd.isna(extra[f"{name}_printed"])
        assert pd.isna(extra[f"{name}_printed_inside"])
    assert (table.shown.iloc[3].xs("Printed", level=1) == "").all()
    assert table.frame["auc_printed"].notna().tolist() == [True, False] * 3
    assert not any(note.startswith("ResNet50 ImageNet") for note in table.notes)


def test_comparisons_of_some_networks_with_several_initial_weights_of_both_stages() -> None:
    asked = comparisons.planned(SMALL)
    pairs = {(one.question, one.first, one.second) for one in asked}  # VGG16's partner with CBAM is not there
    cbam = {("P", "scratch"), ("P", "imagenet"), ("G", "patch"), ("G", "imagenet")}
    assert pairs == {
        (comparisons.CBAM, (stage, "resnet50_cbam", initial), (stage, "resnet50", initial)) for stage, initial in cbam
    } | {(comparisons.OVER_IMAGENET, ("G", network, "patch"), ("G", network, "imagenet")) for network in SMALL.networks}
    assert len(asked) == len(pairs)


def test_patches_after_imagenet_are_asked_against_imagenet_alone() -> None:
    chained = replace(SMALL, networks=("vgg16",), global_initial=("imagenet", "imagenet_patch"))
    (asked,) = comparisons.planned(chained)
    assert asked == comparisons.Comparison(
        comparisons.OVER_IMAGENET, ("G", "vgg16", "imagenet_patch"), ("G", "vgg16", "imagenet")
    )
    assert asked.family == comparisons.OURS  # the paper prints no such row


def test_a_profile_that_plans_no_comparison_has_an_empty_table() -> None:
    alone = replace(SMALL, networks=("resnet50",), global_initial=("patch",))
    table = comparisons.questions({}, replace(SETTING, profile=alone))
    assert table.frame.empty
    assert table.frame.to_csv(index=False).startswith("question,family,stage,unit,first,second,")


@pytest.mark.parametrize("stage", ["P", "G"])
def test_caption_says_data_protocol_seed_unit_threshold(stage: str) -> None:
    caption = tables.published(stage, results(), SETTING).caption
    unit = {"P": "patch", "G": "image"}[stage]
    assert f"Data: {PROFILE.data}. Protocol: official. Seed: 0. Unit: {unit}." in caption
    assert "threshold: 0.5" in caption


def test_one_class_is_an_empty_cell_with_a_reason() -> None:
    cell = made("G", 1).query("label == 0")
    table = tables.published("G", {("G", "vgg16", "patch"): cell}, SETTING)
    row = table.frame.query("network == 'VGG16' and initial == 'Patch data'").iloc[0]
    assert pd.isna(row["auc"])
    assert pd.isna(row["sensitivity"])
    assert pd.notna(row["specificity"])
    assert "auc: 20 cases, a class it needs is empty" in row["note"]
    for text in (table.frame.to_csv(index=False), export.to_latex(table), export.to_html(table)):
        assert "nan" not in text.lower().replace("malignant", "")


def test_baselines_stand_below_per_mass() -> None:
    masses = made("P", 3).query("part == 'test'").drop_duplicates("mass_id").assign(part="test")
    frame = tables.published("P", results(), SETTING, {"birads": masses}).frame
    last = frame.iloc[-1]
    assert (last["block"], last["unit"], last["cases"]) == ("baseline", "mass", 40)
    assert last["network"] == "Radiologist's BI-RADS assessment alone"
    assert pd.isna(last["auc_printed"])


def test_latex_has_equal_rows_and_escapes() -> None:
    table = tables.published("G", results(), SETTING)
    text = export.to_latex(replace(table, caption="50% of P_1 & more"), "tab:two")
    assert r"\caption{50\% of P\_1 \& more}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:two}"))
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 19
    assert {line.count("&") for line in rows} == {len(table.shown.columns) - 1}
    assert text.count(r"\begin") == text.count(r"\end") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_and_stays_on_the_page(tmp_path: Path) -> None:
    awkward = pd.DataFrame({"a_b": ["50% & more", "~x^2 {y} $z$ #1"], "c": ["\\n", ""]})
    made = [
        tables.published("G", results(), SETTING),
        comparisons.questions(results(), SETTING),
        scores.by_unit("P", results(), SETTING),
        export.Table(awkward, "A caption_of 10%", ("a note & more",), awkward),
    ]
    packages = export.PREAMBLE.removeprefix("% ")
    body = "\n\\clearpage\n".join(export.to_latex(table) for table in made)
    source = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "tables.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout


def test_html_is_well_formed_and_escaped() -> None:
    table = tables.published("P", results(), SETTING)
    text = export.to_html(replace(table, caption="a < b & c", notes=("<script>",)))
    assert "a &lt; b &amp; c" in text
    assert "<script>" not in text
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Parser().feed(text)
    assert not opened
    assert len(pd.read_csv(StringIO(table.frame.to_csv(index=False)))) == 6


def test_a_notebook_shows_a_table_whole() -> None:
    """pandas by itself cuts cells off at 50 characters."""
    note = "seed 1 has no " + "very " * 40 + "long name"
    shown = pd.DataFrame({"first": ["VGG16"], "note": [note]})
    formatter = HTMLFormatter()
    assert note not in formatter(shown)
    seen = formatter(export.Table(shown, "A caption.", ("What is counted.",), shown))
    assert all(text in seen for text in (note, "A caption.", "What is counted."))
    assert all(
        text in repr(export.Table(shown, "A caption.", ("What is counted.",), shown)) for text in (note, "VGG16")
    )


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    low, value, high = (pd.Series([number]) for number in (-0.0312, -0.0001, 0.0004))
    assert list(export.with_interval(value, low, high, export.SIGNED)) == ["+0.000 [-0.031, +0.000]"]


def test_further_scores_count_the_same_cases() -> None:
    frame = scores.scores("G", results(), SETTING).frame
    row = frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    test = made("G", 54, 2.0).query("part == 'test'")
    called, malignant = test["probability"] >= 0.5, test["label"] == 1
    assert [row[name] for name in ("TP", "FN", "TN", "FP")] == [
        (malignant & called).sum(),
        (malignant & ~called).sum(),
        (~malignant & ~called).sum(),
        (~malignant & called).sum(),
    ]
    assert row["brier"] == pytest.approx(brier_score_loss(test["label"], test["probability"]))
    assert row["average_precision"] == pytest.approx(average_precision_score(test["label"], test["probability"]))
    gaps = (test["probability"] - test["label"]).groupby(np.floor(10 * test["probability"])).sum()
    assert row["ece"] == pytest.approx(gaps.abs().sum() / len(test))
    for name in ("brier", "average_precision"):
        assert 0 <= row[f"{name}_low"] < row[name] < row[f"{name}_high"] <= 1
    assert frame["note"].iloc[0] == "weights not available"


def in_two_folds(stage: str) -> pd.DataFrame:
    """Two folds whose second has scores a tenth as high, as two networks may have."""
    second = made(stage, 2).assign(fold=1, probability=lambda frame: frame["probability"] / 10)
    second[["id", "image_id", "patient_id"]] = "x" + second[["id", "image_id", "patient_id"]]
    return pd.concat([made(stage, 1), second], ignore_index=True)


def test_each_fold_has_its_own_validation_threshold_and_ranks_its_own_cases() -> None:
    cell = in_two_folds("G")
    called, aucs, pairs, thresholds = [], [], [], []
    for _, fold in cell.groupby("fold"):
        validation, test = (fold[fold["part"] == part] for part in ("validation", "test"))
        false, true, cuts = roc_curve(validation["label"], validation["probability"])
        thresholds.append(cuts[::-1][np.argmax((true - false)[::-1])])  # of equals the lowest
        called.append(test["probability"] >= thresholds[-1])
        aucs.append(roc_auc_score(test["label"], test["probability"]))
        pairs.append(test["label"].sum() * (1 - test["label"]).sum())
    results, test = {("G", "vgg16", "patch"): cell}, cell[cell["part"] == "test"]
    sensitivity = recall_score(test["label"], pd.concat(called))
    row = tables.published("G", results, SETTING).frame.query("auc.notna()").iloc[0]
    assert row["sensitivity"] == pytest.approx(recall_score(test["label"], test["probability"] >= 0.5))
    assert row["auc"] == pytest.approx(np.average(aucs, weights=pairs))
    assert row["auc"] > roc_auc_score(test["label"], test["probability"]) + 0.1
    chosen = scores.operating_points("G", results, SETTING).frame.query("cases.notna()").iloc[0]
    assert chosen["youden_sensitivity"] == pytest.approx(sensitivity)
    assert chosen["youden_threshold"] == pytest.approx(np.mean(thresholds))
    assert chosen["youden_accuracy"] == pytest.approx(accuracy_score(test["label"], pd.concat(called)))


def test_a_threshold_for_a_specificity_keeps_it_on_validation() -> None:
    cell = made("G", 1, 2.0).assign(part=lambda frame: frame["part"].where(frame["part"] == "test", "validation"))
    row = scores.operating_points("G", {("G", "vgg16", "patch"): cell}, SETTING).frame.query("cases.notna()").iloc[0]
    benign = cell.query("part == 'validation' and label == 0")["probability"]
    assert (benign < row["fixed_threshold"]).mean() >= scores.FIXED_SPECIFICITY
    test = cell.query("part == 'test'")
    assert row["fixed_sensitivity"] == pytest.approx(
        recall_score(test["label"], test["probability"] >= row["fixed_threshold"])
    )
    alone = {("G", "vgg16", "patch"): cell.query("part == 'test'")}
    blank = scores.operating_points("G", alone, SETTING).frame.query("cases.notna()").iloc[0]
    assert pd.isna(blank["youden_sensitivity"])
    assert blank["note"] == "threshold chosen on validation: no validation cases"


def test_every_unit_of_a_stage_is_counted() -> None:
    frame = scores.by_unit("P", results(), SETTING).frame
    row, test = frame.iloc[0], made("P", 0).query("part == 'test'")
    counted = [row[f"{unit}_cases"] for unit in ("patch", "mass", "image", "breast", "patient")]
    assert counted == [80, 40, 40, 20, 20]
    masses = test.groupby("mass_id").agg({"label": "first", "probability": "mean"})
    assert row["mass"] == pytest.approx(roc_auc_score(masses["label"], masses["probability"]))
    people = test.groupby(["patient_id", "image_id"]).agg({"label": "first", "probability": "mean"})
    breasts = people.groupby("patient_id").agg({"label": "first", "probability": "mean"})
    assert row["patient"] == pytest.approx(roc_auc_score(breasts["label"], breasts["probability"]))
    assert row["patient_low"] < row["patient"] < row["patient_high"]
    table = scores.by_unit("G", results(), SETTING)
    assert {"patch", "mass"}.isdisjoint(table.frame)
    assert "Cases: image 40, breast 20, patient 20." in table.notes[1]


def test_four_intervals_hold_the_same_auc() -> None:
    table = scores.intervals("P", results(), SETTING)
    row = table.frame.iloc[0]
    test = made("P", 0).query("part == 'test'")
    assert row["auc"] == pytest.approx(roc_auc_score(test["label"], test["probability"]))
    assert (row["cases"], row["patients"]) == (80, 20)
    for method in ("percentile", "bca", "obuchowski", "delong"):
        assert 0 <= row[f"{method}_low"] < row["auc"] < row[f"{method}_high"] <= 1
    found = statistics.delong_interval(test["label"], test["probability"], patients=test["patient_id"])
    assert (row["obuchowski_low"], row["obuchowski_high"]) == pytest.approx((found.low, found.high))
    assert row["obuchowski_low"] != row["delong_low"]
    assert scores.intervals("G", results(), SETTING).frame["note"].iloc[0] == "weights not available"


def test_an_interval_that_is_not_defined_takes_no_other_with_it() -> None:
    """DeLong's variance needs two cases of each class in every fold; the last of three has one malignant image."""
    folds = [made("G", fold).assign(fold=fold) for fold in range(3)]
    for fold, frame in enumerate(folds):
        frame[["id", "image_id", "patient_id"]] = frame[["id", "image_id", "patient_id"]].radd(f"{fold}-")
    malignant = folds[2].query("label == 1 and part == 'test'").index
    folds[2] = folds[2].drop(malignant[1:])
    key = ("G", "vgg16", "patch")
    row = scores.intervals("G", {key: pd.concat(folds, ignore_index=True)}, SETTING).frame.iloc[1]
    assert (row["network"], row["initial"]) == ("VGG16", "Patch data")
    assert pd.isna(row["delong_low"])
    assert row["note"]
    assert row["percentile_low"] < row["auc"] < row["percentile_high"]
    assert row["bca_low"] < row["auc"] < row["bca_high"]


def test_spread_is_over_seeds_and_over_folds_apart() -> None:
    """Two folds of two seeds each, and a third fold of one: the variance between seeds has (1 + 1 + 0) degrees."""
    kept = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    runs = {("P", "vgg16", "scratch", fold, seed): made("P", 10 * fold + seed) for fold, seed in kept}
    row = scores.spread("P", runs, SETTING).frame.iloc[0]
    tests = [made("P", 10 * fold + seed).query("part == 'test'") for fold, seed in kept]
    aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
    assert [row["runs"], row["folds"], row["seeds"]] == [5, 3, 2]
    halves = [(aucs[0] - aucs[1]) ** 2 / 2, (aucs[2] - aucs[3]) ** 2 / 2]
    assert row["sd_seeds"] == pytest.approx(np.sqrt(sum(halves) / 2))
    means = [(aucs[0] + aucs[1]) / 2, (aucs[2] + aucs[3]) / 2, aucs[4]]
    assert row["sd_folds"] == pytest.approx(np.std(means, ddof=1))
    assert (row["least"], row["most"]) == pytest.approx((min(aucs), max(aucs)))


def test_a_run_without_an_auc_is_named_and_the_others_count() -> None:
    run, key = made("P", 0), ("P", "vgg16", "scratch", 0)
    row = scores.spread("P", {(*key, 1): run.assign(label=1), (*key, 2): run}, SETTING).frame.iloc[0]
    alone = scores.spread("P", {(*key, 2): run}, SETTING).frame.iloc[0]
    assert [row["runs"], row["seeds"], row["mean"]] == [1, 2, alone["mean"]]
    assert row["note"] == "fold 0, seed 1: AUC: 80 cases, all of one class"


def test_one_run_has_no_spread() -> None:
    row = scores.spread("P", {("P", "vgg16", "scratch", 0, 0): made("P", 0)}, SETTING).frame.iloc[0]
    assert pd.isna(row["sd_seeds"])
    assert pd.isna(row["sd_folds"])
    assert row["least"] == row["most"] == row["mean"]


def test_a_seed_that_lacks_a_network_is_named_beside_the_mean_of_the_others() -> None:
    """As when the patch training of a network failed with one seed: nobody then trains it on whole mammograms."""
    of_seeds = {seed: results() for seed in (0, 1, 2)}
    del of_seeds[1]["G", "vgg16_cbam", "patch"]
    frame = comparisons.over_seeds(of_seeds, SETTING).frame
    touched = frame["first"].eq("VGG16+CBAM (Patch data)") | frame["second"].eq("VGG16+CBAM (Patch data)")
    assert set(frame.loc[touched, "seed"]) == {0, 2}
    assert set(frame.loc[touched, "note"]) == {"seed 1 has no VGG16+CBAM (Patch data)"}
    assert set(frame.loc[~touched, "seed"]) == {0, 1, 2}
    assert set(frame.loc[~touched, "note"]) == {""}


def test_trainings_of_other_test_cases_are_not_compared_with_the_longer_ones() -> None:
    (asked,) = (one for one in comparisons.planned(SMALL) if one.first == ("P", "resnet50_cbam", "scratch"))
    one = {("P", network, "scratch"): made("P", seed) for seed, network in enumerate(("resnet50", "resnet50_cbam"))}
    fewer = {key: frame[frame["patient_id"] != "P_00001"] for key, frame in one.items()}
    assert comparisons.change(asked, [one], [one], SETTING)["difference"] == 0
    with pytest.raises(ValueError, match="tiny, short: their test cases differ; split anew"):
        comparisons.change(asked, [one], [fewer], replace(SETTING, profile=replace(SMALL, shorter="short")))


def test_a_table_without_printed_rows_promises_none() -> None:
    """The paper prints no patches from ImageNet."""
    profile = config.get_profile("reduced-imagenet")
    table = tables.published("P", {("P", "vgg16", "imagenet"): made("P", 0)}, tables.Setting(profile, "official"))
    words = " ".join((table.caption, *table.notes))
    assert "the paper prints no such row" in table.caption
    assert not any(promise in words for promise in ("beside the values printed", "ours minus printed", "*"))
    beside = tables.published("P", results(), SETTING)
    assert "ours beside the values printed by Xu et al. 2021" in beside.caption
    assert "* The printed value lies outside our interval; no star where we have none." in " ".join(beside.notes)


def test_questions_are_paired_and_corrected_within_their_family() -> None:
    frame = comparisons.questions(results(), SETTING).frame
    assert frame["question"].value_counts().to_dict() == {
        comparisons.CBAM: 12,
        comparisons.OVER_IMAGENET: 6,
        comparisons.OVER_SCRATCH: 6,
    }
    scratch = frame[frame["question"] == comparisons.OVER_SCRATCH]
    assert scratch["p_holm"].tolist() == pytest.approx(statistics.holm(scratch["p"].astype(float)).tolist())
    one = scratch.iloc[0]
    first, second = (made("G", seed, gain).query("part == 'test'") for seed, gain in ((50, 2.0), (90, 0.5)))
    gap = roc_auc_score(first["label"], first["probability"]) - roc_auc_score(second["label"], second["probability"])
    assert one["difference"] == pytest.approx(gap)
    assert one["low"] < gap < one["high"]
    assert set(scratch["family"]) == {comparisons.OURS}
    cbam = frame[(frame["question"] == comparisons.CBAM) & (frame["family"] == comparisons.PAPERS)]
    assert cbam["stage"].value_counts().to_dict() == {"G": 6, "P": 3}  # ImageNet's three were not run
    made_up = cbam[cbam["p"].notna()]
    assert made_up["p_holm"].tolist() == pytest.approx(statistics.holm(made_up["p"].astype(float)).tolist())
    assert len(made_up) == 6
    unrun = frame[frame["question"] == comparisons.OVER_IMAGENET]
    assert unrun["p_holm"].isna().all()
    assert unrun["note"].iloc[0] == "VGG16 (ImageNet): weights not available"


def test_holm_counts_the_comparisons_of_one_question_and_family() -> None:
    """Each network of a pair says the opposite of the other: every p of the bootstrap is the lowest there is."""
    found = {
        (stage, network, initial): made(stage, seed, 1.5 * (-1) ** (network.endswith("_cbam") + (initial == "patch")))
        for seed, network in enumerate(config.NETWORKS)
        for stage, initial in (("P", "scratch"), ("G", "patch"), ("G", "imagenet"), ("G", "scratch"))
    }
    frame = comparisons.questions(found, SETTING).frame
    lowest, counted = 2 / (PROFILE.evaluation.resamples + 1), {}
    assert frame["p"].tolist() == pytest.approx([lowest] * 24)
    for (question, family), rows in frame.groupby(["question", "family"]):
        counted[question, family] = len(rows)
        assert rows["p_holm"].tolist() == pytest.approx([len(rows) * lowest] * len(rows))
        assert rows["p_delong_holm"].min() == pytest.approx(len(rows) * rows["p_delong"].min(), abs=0)
    assert counted == {
        (comparisons.CBAM, comparisons.PAPERS): 9,
        (comparisons.CBAM, comparisons.OURS): 3,
        (comparisons.OVER_IMAGENET, comparisons.PAPERS): 6,
        (comparisons.OVER_SCRATCH, comparisons.OURS): 6,
    }


def test_intervals_are_of_the_confidence_that_is_asked_for() -> None:
    """At 50 % each is inside of that at 95 %, and shorter."""
    half = replace(SETTING, profile=replace(PROFILE, evaluation=replace(PROFILE.evaluation, confidence=0.5)))
    for make in (partial(tables.published, "P", results()), partial(comparisons.questions, results())):
        wide, narrow = (make(setting).frame for setting in (SETTING, half))
        low, high = ("auc_low", "auc_high") if "auc_low" in wide else ("low", "high")
        known = wide[low].notna()
        assert known.sum() >= 6
        assert (narrow[low] > wide[low])[known].all()
        assert (narrow[high] < wide[high])[known].all()


def test_each_of_the_four_intervals_is_of_the_confidence_that_is_asked_for() -> None:
    half, found = replace(PROFILE.evaluation, confidence=0.5), {("P", "vgg16", "scratch"): made("P", 0)}
    settings = (SETTING, replace(SETTING, profile=replace(PROFILE, evaluation=half)))
    wide, narrow = (scores.intervals("P", found, setting).frame.iloc[0] for setting in settings)
    for method in ("percentile", "bca", "obuchowski", "delong"):
        assert wide[f"{method}_low"] < narrow[f"{method}_low"] < narrow[f"{method}_high"] < wide[f"{method}_high"]


@pytest.mark.parametrize(
    "table", [partial(tables.published, "G"), partial(scores.intervals, "G"), comparisons.questions]
)
def test_another_seed_draws_other_resamples(table) -> None:
    found = {("G", network, "patch"): made("G", seed) for seed, network in enumerate(("vgg16", "vgg16_cbam"))}
    settings = [replace(SETTING, seed=seed) for seed in (0, 0, 1)]
    one, same, other = (
        table(found, setting).frame.filter(regex="(low|high)$").dropna(how="all") for setting in settings
    )
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)


def test_a_case_that_is_there_twice_makes_no_interval_narrower() -> None:
    """Patients are drawn, not cases: with each case twice the AUCs are the same, and so are all intervals."""
    twice = {
        key: pd.concat([cell, cell.assign(id=cell["id"] + "b", image_id=cell["image_id"] + "b")])
        for key, cell in results().items()
    }
    once, doubled = (comparisons.questions(found, SETTING).frame for found in (results(), twice))
    for name in ("difference", "low", "high", "p", "p_delong"):
        assert doubled[name].astype(float).tolist() == pytest.approx(once[name].astype(float).tolist(), nan_ok=True)


@pytest.mark.parametrize("table", [tables.published, scores.scores, scores.operating_points])
def test_a_case_that_is_there_twice_makes_no_interval_of_a_table_narrower(table) -> None:
    once = {("G", "vgg16", "patch"): made("G", 2)}
    cell = once["G", "vgg16", "patch"]
    twins = pd.concat([cell, cell.assign(id=cell["id"] + "b", image_id=cell["image_id"] + "b")], ignore_index=True)
    one, two = (
        table("G", found, SETTING).frame.filter(regex="_(low|high)$").astype(float)
        for found in (once, {("G", "vgg16", "patch"): twins})
    )
    assert one.notna().any(axis=None)
    np.testing.assert_allclose(one, two, atol=1e-12)


def test_questions_rank_the_cases_of_a_fold_among_themselves() -> None:
    found = {("G", "vgg16", initial): in_two_folds("G") for initial in ("patch", "scratch")}
    found["G", "vgg16", "scratch"]["probability"] *= -1
    row = comparisons.questions(found, SETTING).frame.query("difference.notna()").iloc[0]
    test, aucs, pairs = found["G", "vgg16", "patch"].query("part == 'test'"), [], []
    for _, fold in test.groupby("fold"):
        aucs.append(roc_auc_score(fold["label"], fold["probability"]))
        pairs.append(fold["label"].sum() * (1 - fold["label"]).sum())
    expected = 2 * np.average(aucs, weights=pairs) - 1  # the second one says the opposite of each case
    assert row["difference"] == pytest.approx(expected)
    for cell in found.values():  # another scale in one fold changes no rank within it
        cell["probability"] = cell["probability"].where(cell["fold"] == 0, 10 * cell["probability"])
    again = comparisons.questions(found, SETTING).frame.query("difference.notna()").iloc[0]
    for name in ("difference", "low", "high", "p", "p_delong"):
        assert again[name] == pytest.approx(row[name])


def rescaled(cell: pd.DataFrame) -> pd.DataFrame:
    """The first fold's scores on another scale, which changes no rank within a fold."""
    return cell.assign(probability=cell["probability"].where(cell["fold"] == 1, cell["probability"] / 20))


@pytest.mark.parametrize("table", [scores.by_unit, scores.intervals])
def test_units_and_intervals_rank_the_cases_of_a_fold_among_themselves(table) -> None:
    cell, key = in_two_folds("G"), ("G", "vgg16", "patch")
    row, again = (
        table("G", {key: scored}, SETTING).frame.query("note == ''").filter(regex="^(auc|image)$|_(low|high)$").iloc[0]
        for scored in (cell, rescaled(cell))
    )
    tests = [fold for _, fold in cell.query("part == 'test'").groupby("fold")]
    aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
    assert row.iloc[0] == pytest.approx(np.mean(aucs))  # as many pairs in each
    assert row.notna().all()
    assert again.tolist() == pytest.approx(row.tolist())


def test_networks_are_compared_with_the_radiologist_within_a_fold() -> None:
    cell, key = in_two_folds("G"), ("G", "vgg16", "patch")
    birads = cell.query("part == 'test'").assign(mass_id=lambda frame: frame["id"] + "_1")
    birads = birads.assign(id=birads["mass_id"], probability=np.random.default_rng(0).random(len(birads)))
    not_called_back = birads.query("label == 0")["mass_id"].iloc[::5]
    row, again = (
        radiologist.against_birads("G", {key: scored}, SETTING, birads, not_called_back).frame.iloc[1]
        for scored in (cell, rescaled(cell))
    )
    test, aucs = cell.query("part == 'test'").assign(other=birads["probability"]), []
    for _, fold in test.groupby("fold"):
        aucs.append([roc_auc_score(fold["label"], fold[name]) for name in ("probability", "other")])
    ours, theirs = np.mean(aucs, axis=0)  # as many pairs in each
    assert (row["auc"], row["auc_birads"]) == pytest.approx((ours, theirs))
    ends = ("difference", "low", "high")
    for name in (*ends, "p", "p_delong", *(f"called_back_{end}" for end in ends)):
        assert again[name] == pytest.approx(row[name])


def test_protocols_resample_shared_patients_together() -> None:
    cells = {("G", "vgg16", "patch"): made("G", 1)}
    same = protocols.protocols({"official": cells, "as_written": cells}, SETTING).frame.iloc[0]
    assert (same["first"], same["second"]) == ("as_written", "official")
    assert same["difference"] == 0
    assert same[["low", "high"]].isna().all(), "a protocol does not differ from itself, in any resample"
    assert same["p"] == 1
    assert same["note"] == f"{tables.POINT}; same cases: {tables.POINT}"
    assert (same["patients"], same["shared_patients"]) == (20, 20)
    other = {("G", "vgg16", "patch"): made("G", 1).assign(patient_id=lambda frame: "Q" + frame["patient_id"])}
    apart = protocols.protocols({"official": cells, "as_written": other}, SETTING).frame.iloc[0]
    assert apart["low"] < 0 < apart["high"]
    assert (apart["patients"], apart["shared_patients"]) == (40, 0)
    assert apart["shared_cases"] == 40  # of other patients, as far as the ids say
    none = {key: frame.assign(id="Q" + frame["id"], image_id="Q" + frame["image_id"]) for key, frame in other.items()}
    lone = protocols.protocols({"official": cells, "as_written": none}, SETTING).frame.iloc[0]
    assert (lone["shared_cases"], lone["note"]) == (0, "same cases: there are none")
    assert (lone["low"], lone["high"]) == (apart["low"], apart["high"])


def test_protocols_are_compared_on_the_cases_that_both_tested_too() -> None:
    """One protocol tests the other's cases and easier ones: on the same cases both are as good."""
    key, strict = ("G", "vgg16", "patch"), made("G", 1)
    easy = strict.assign(
        patient_id="E" + strict["patient_id"], id="E" + strict["id"], image_id="E" + strict["image_id"]
    )
    loose = pd.concat([strict, easy.assign(probability=easy["label"] / 2 + 0.25)], ignore_index=True)
    table = protocols.protocols({"official": {key: strict}, "as_written": {key: loose}}, SETTING)
    row = table.frame.iloc[0]
    assert row["difference"] > 0.05
    assert row["shared_cases"] == 40
    assert row["shared_difference"] == 0
    assert row[["shared_difference_low", "shared_difference_high"]].isna().all()
    better = loose.assign(probability=(loose["probability"] + 0.3 * loose["label"]) / 1.3)
    row = protocols.protocols({"official": {key: strict}, "as_written": {key: better}}, SETTING).frame.iloc[0]
    tests = [frame.query("part == 'test'").set_index("id") for frame in (better, strict)]
    same = [test.loc[tests[1].index] for test in tests]
    gap = roc_auc_score(same[0]["label"], same[0]["probability"]) - roc_auc_score(
        same[1]["label"], same[1]["probability"]
    )
    assert row["shared_difference"] == pytest.approx(gap)
    assert row["shared_difference_low"] < gap < row["shared_difference_high"]


def test_the_same_cases_are_compared_over_the_same_pairs() -> None:
    """A network tested in two folds ranks pairs of one fold; of the other protocol's, the same pairs count."""
    key, whole, folds = ("G", "vgg16", "patch"), made("G", 2, 3.0), in_two_folds("G")
    table = protocols.protocols({"as_written": {key: whole}, "grouped_cv": {key: folds}}, SETTING)
    tests = [frame.query("part == 'test'").set_index("id") for frame in (whole, folds)]
    same = tests[1].loc[tests[1].index.isin(tests[0].index)]
    first = tests[0].loc[same.index]
    gap = metrics.auc(same.label, first.probability, same.fold) - metrics.auc(same.label, same.probability, same.fold)
    assert table.frame.loc[0, "shared_cases"] == len(same)
    assert table.frame.loc[0, "shared_difference"] == pytest.approx(gap)


def test_networks_are_compared_with_the_radiologist_by_mass_and_by_image() -> None:
    """BI-RADS has one score a mass: the network's patches are averaged first; an image takes its highest mass."""
    patches = made("P", 3, 2.0)
    test = patches.query("part == 'test'")
    masses = test.drop_duplicates("mass_id")
    place = {True: 0.8, False: 0.4}
    birads = masses.assign(id=masses["mass_id"], probability=(masses["label"] == 1).map(place), fold=0)
    birads.iloc[::3, birads.columns.get_loc("probability")] = 0.4
    found = {("P", "vgg16", "scratch"): patches}
    frame = radiologist.against_birads("P", found, SETTING, birads).frame
    assert frame["note"].tolist() == [""] + ["not run"] * 5
    row, mean = frame.iloc[0], test.groupby("mass_id")[["label", "probability"]].mean()
    ours = roc_auc_score(mean["label"], mean["probability"])
    theirs = roc_auc_score(birads["label"], birads["probability"])
    assert (row["unit"], row["network"], row["cases"], row["patients"]) == ("mass", "VGG16", 40, 20)
    assert row["auc"] == pytest.approx(ours)
    assert row["auc_birads"] == pytest.approx(theirs)
    assert row["difference"] == pytest.approx(ours - theirs)
    assert row["low"] < row["difference"] < row["high"]
    second = birads[birads["label"] == 0].iloc[::2]  # a second, benign mass in some images, that looks worse
    second = second.assign(id=second["id"] + "b", mass_id=second["mass_id"] + "b", probability=0.8)
    whole, both = made("G", 4), pd.concat([birads, second], ignore_index=True)
    frame = radiologist.against_birads("G", {("G", "vgg16", "patch"): whole}, SETTING, both).frame
    row = frame[frame["note"] == ""].iloc[0]
    highest = both.groupby("image_id")[["label", "probability"]].max()
    images = whole.query("part == 'test'").set_index("id").loc[highest.index]
    assert (row["unit"], row["cases"]) == ("image", 40)
    assert row["auc_birads"] == pytest.approx(roc_auc_score(highest["label"], highest["probability"]))
    assert row["auc_birads"] < theirs
    assert row["auc"] == pytest.approx(roc_auc_score(images["label"], images["probability"]))
    assert frame.query("network == 'VGG16' and initial == 'ImageNet'")["note"].item() == "weights not available"
    assert frame["called_back_cases"].isna().all(), "nothing was said of who was called back"


def test_the_radiologist_is_also_met_without_the_masses_that_the_reading_itself_called_benign() -> None:
    whole = made("G", 4)
    birads = whole.query("part == 'test'").assign(mass_id=lambda frame: frame["id"] + "_1", fold=0)
    birads = birads.assign(id=birads["mass_id"], probability=np.random.default_rng(0).random(len(birads)))
    benign = birads[birads["label"] == 0]
    birads.loc[benign.index[:6], "probability"] = 0.0
    not_called_back = benign["mass_id"].iloc[:6]
    found = {("G", "vgg16", "patch"): whole}
    row = radiologist.against_birads("G", found, SETTING, birads, not_called_back).frame.iloc[1]
    rest = birads.drop(index=benign.index[:6])
    images = whole.set_index("id").loc[rest["image_id"]]
    gap = roc_auc_score(images["label"], images["probability"]) - roc_auc_score(rest["label"], rest["probability"])
    assert (row["cases"], row["called_back_cases"]) == (40, 34)
    assert row["called_back_difference"] == pytest.approx(gap)
    assert row["called_back_low"] < gap < row["called_back_high"]
    assert row["called_back_difference"] > row["difference"]


def test_the_radiologist_is_also_met_with_every_recall_level() -> None:
    """BI-RADS 0 and 4 are a tie then, which counts one half."""
    whole, places = made("G", 4), np.random.default_rng(1).choice([0.2, 0.6, 0.8], 40)
    birads = whole.query("part == 'test'").assign(mass_id=lambda frame: frame["id"] + "_1", probability=places, fold=0)
    birads = birads.assign(id=birads["mass_id"])
    level = birads.assign(probability=birads["probability"].replace(0.6, 0.8))
    row = radiologist.against_birads("G", {("G", "vgg16", "patch"): whole}, SETTING, birads, (), level).frame.iloc[1]
    images = whole.set_index("id").loc[birads["image_id"]]
    theirs = roc_auc_score(level["label"], level["probability"])
    gap = roc_auc_score(images["label"], images["probability"]) - theirs
    assert row["zero_as_four_auc_birads"] == pytest.approx(theirs)
    assert row["zero_as_four_difference"] == pytest.approx(gap)
    assert row["zero_as_four_low"] < gap < row["zero_as_four_high"]
    assert row["auc_birads"] == pytest.approx(roc_auc_score(birads["label"], birads["probability"]))
    assert row["auc_birads"] != pytest.approx(theirs)


def test_every_two_protocols_are_compared_in_auc_points() -> None:
    key, official, written = ("G", "vgg16", "patch"), made("G", 1), made("G", 2, 3.0)
    results = {"official": {key: official}, "as_written": {key: written}, "grouped_cv": {key: in_two_folds("G")}}
    table = protocols.protocols(
        results | {"official": {key: official, ("P", "vgg16", "scratch"): made("P", 1)}}, SETTING
    )
    assert list(zip(table.frame["stage"], table.frame["first"], table.frame["second"], strict=True)) == [
        ("P", "as_written", "official"),
        ("P", "grouped_cv", "official"),
        ("G", "as_written", "official"),
        ("G", "as_written", "grouped_cv"),
        ("G", "grouped_cv", "official"),
    ]
    assert table.frame["note"].tolist() == [
        "as_written: not run",
        "grouped_cv: not run",
        "",
        "",
        f"same cases: {tables.POINT}",  # `in_two_folds` predicts what `made` does
    ]
    row, tests = table.frame.iloc[2], [frame.query("part == 'test'") for frame in (written, official)]
    aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
    assert row["difference"] == pytest.approx(aucs[0] - aucs[1])
    assert table.shown.loc[2, "difference, AUC points"].startswith(f"{100 * (aucs[0] - aucs[1]):+z.1f} [")
    folds = in_two_folds("G").query("part == 'test'")
    assert table.frame.loc[4, "auc_first"] == pytest.approx(metrics.auc(folds.label, folds.probability, folds.fold))


def test_cited_systems_are_marked_as_not_comparable() -> None:
    assert "not comparable" in tables.cited().caption
    assert len(tables.cited().frame) == 6


def test_a_rate_that_no_resample_moves_has_no_interval() -> None:
    """0 of 20 malignant images called so is no proof of 0, whatever is resampled."""
    key, called = ("G", "vgg16", "patch"), made("G", 1).assign(probability=0.1)
    table = tables.published("G", {key: called}, SETTING)
    row = table.frame.query("network == 'VGG16' and initial == 'Patch data'").iloc[0]
    assert (row["sensitivity"], row["specificity"]) == (0, 1)
    assert row[["sensitivity_low", "sensitivity_high", "specificity_low", "auc_low"]].isna().all()
    assert pd.isna(row["sensitivity_printed_inside"])
    assert row["note"] == ""
    assert any(tables.NO_BRACKETS in note for note in table.notes)
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_a_score_on_the_threshold_is_called_malignant() -> None:
    """Of every patient's two views one has the threshold for a score, and the other a little less."""
    cell = made("G", 1).assign(
        probability=lambda frame: np.where(frame["id"].str.endswith("_CC"), 0.5, np.nextafter(0.5, 0))
    )
    found = {("G", "vgg16", "patch"): cell}
    row = tables.published("G", found, SETTING).frame.query("cases.notna()").iloc[0]
    assert [row[name] for name in ("sensitivity", "specificity", "accuracy")] == [0.5, 0.5, 0.5]
    row = scores.scores("G", found, SETTING).frame.query("cases.notna()").iloc[0]
    assert [row[name] for name in ("TP", "FN", "TN", "FP")] == [10, 10, 10, 10]


def test_what_delong_cannot_say_takes_no_interval_with_it() -> None:
    """All malignant images are of one patient: there is no variance between patients, and there are resamples."""
    one = made("G", 1).query("part == 'test' and (label == 0 or patient_id == 'P_00001')")
    shifted = one.assign(probability=np.random.default_rng(5).random(len(one)))
    table = comparisons.questions({("G", "vgg16_cbam", "patch"): one, ("G", "vgg16", "patch"): shifted}, SETTING)
    row = table.frame[table.frame["difference"].notna()].iloc[0]
    assert row["low"] < row["high"]
    assert pd.isna(row["p_delong"])
    assert "resamples hold one class and are left out; DeLong: malignant cases of 1" in row["note"]


@pytest.mark.parametrize("dtype", ["float64", "Float64"])
def test_no_p_is_shown_as_zero(dtype) -> None:
    column = pd.Series([0.0001, 0.00099, 0.001, 0.25, None], dtype=dtype)
    assert export.p_values(column).tolist() == ["<0.001", "<0.001", "0.001", "0.250", ""]
    assert export.plain(pd.DataFrame({"low": [-0.0001]}))["low"].tolist() == ["0.000"]
