"""All comparisons in one table: what was trained, with every seed, what was printed, and nothing twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammo_lib import stages
from mammo_lib.stages import answers
from mammo_lib.stages.trainings import PREDICTIONS

KEYS = ["question", "stage", "network", "initial", "other"]


def auc(experiment: stages.Experiment, cell: str, seed: int) -> float:
    test = pd.read_csv(experiment.results / "cells" / cell / f"fold0-seed{seed}" / PREDICTIONS).query("part == 'test'")
    return float(roc_auc_score(test["label"], test["probability"]))


def test_every_seed_is_compared_and_the_splits_on_the_same_cases(every_protocol: dict[str, stages.Experiment]) -> None:
    official = every_protocol["official"]
    stages.evaluate(official)
    frame = answers.compared([official.profile])
    ours = frame[frame["profile"] == "tiny"]
    found = ours.query("question == 'CBAM' and stage == 'G' and initial == 'Patch data'").set_index("seed")
    assert list(found.index) == [0, 1]
    for seed, row in found.iterrows():
        first, second = (
            auc(official, f"G/{network}/patch", int(str(seed))) for network in ("resnet50_cbam", "resnet50")
        )
        assert (row["auc_first"], row["auc_second"]) == pytest.approx((first, second))
        assert row["low"] <= first - second <= row["high"]
        assert (row["network"], row["other"], row["pixels"]) == ("ResNet50+CBAM", "ResNet50", 112)
    transfer = ours.query("question == 'patch over scratch' and seed == 1").set_index("network")["difference"]
    expected = auc(official, "G/resnet50/patch", 1) - auc(official, "G/resnet50/scratch", 1)
    assert transfer["ResNet50"] == pytest.approx(expected)
    split = ours[ours["question"] == "random split"]
    stored = pd.read_csv(official.results / "protocols.csv").query("first == 'as_written' and second == 'grouped_cv'")
    assert list(split["difference"]) == pytest.approx(list(stored["shared_difference"]))
    assert len(split) == len(stored) > 0


def test_what_the_paper_printed_stands_beside(every_protocol: dict[str, stages.Experiment]) -> None:
    """Differences of its Tables 1 and 2, reckoned by hand."""
    printed = answers.compared([every_protocol["official"].profile]).query("profile == 'printed'")
    by_name = printed.set_index(KEYS)["difference"]
    assert len(printed) == 3 + 6 + 6
    assert by_name["CBAM", "P", "ResNet50+CBAM", "random", "ResNet50"] == pytest.approx(0.8607 - 0.8348)
    assert by_name["CBAM", "G", "InceptionV3+CBAM", "Patch data", "InceptionV3"] == pytest.approx(0.7656 - 0.7941)
    transfer = by_name["patch over ImageNet", "G", "ResNet50+CBAM", "Patch data", "ImageNet"]
    assert transfer == pytest.approx(0.8081 - 0.7982)
    assert printed[["seed", "low", "high", "cases", "learnt"]].isna().all(axis=None)


def test_a_training_that_was_copied_to_another_profile_counts_once(
    every_protocol: dict[str, stages.Experiment], home: Path
) -> None:
    official = every_protocol["official"]
    stages.evaluate(official)
    copy = replace(official.profile, name="copy")
    for folder in ("results", "data/prepared"):
        shutil.copytree(home / folder / "tiny", home / folder / "copy", dirs_exist_ok=True)
    once, twice = (answers.compared(profiles) for profiles in ([official.profile], [official.profile, copy]))
    pd.testing.assert_frame_equal(once, twice)
    assert set(answers.compared([copy])["profile"]) == {"printed", "copy"}


def test_networks_that_tell_nothing_are_not_above_chance(every_protocol: dict[str, stages.Experiment]) -> None:
    """Scores that are the truth, one score for all, and scores of no sense, in place of a cell's."""
    official = every_protocol["official"]
    path = official.results / "cells" / "P" / "resnet50" / "scratch" / "fold0-seed1" / PREDICTIONS
    stored = path.read_bytes()
    table = pd.read_csv(path)
    learnt = {}
    try:
        for name, scores in {"truth": table["label"] * 0.5 + 0.2 + 0.1 * table.index / len(table), "one": 0.5}.items():
            table.assign(probability=scores).to_csv(path, index=False)
            rows = answers.compared([official.profile]).query("question == 'CBAM' and stage == 'P' and seed == 1")
            learnt[name] = rows["learnt"].item()
    finally:
        path.write_bytes(stored)
    assert learnt["truth"] - learnt["one"] == 1


def test_the_command_writes_the_table_and_the_figure(
    every_protocol: dict[str, stages.Experiment], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = every_protocol["official"]
    stages.evaluate(official)
    monkeypatch.setattr(answers, "SAME_PATIENTS", ("phantom",))
    monkeypatch.setattr(answers, "PROFILES", {"tiny": official.profile})
    frame = stages.overview(official)
    assert len(pd.read_csv(home / "results" / "overview.csv")) == len(frame)
    assert (home / "figures" / "overview.png").stat().st_size > 0


def test_without_any_result_it_says_so(home: Path, every_protocol: dict[str, stages.Experiment]) -> None:
    never_run = replace(every_protocol["official"].profile, name="never-run")
    with pytest.raises(FileNotFoundError, match="no profile on CBIS-DDSM has predictions"):
        answers.compared([never_run])
