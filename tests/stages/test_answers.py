"""The paper's questions in one table: what was trained, with every seed, what was printed, and nothing twice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammo_lib import paths, stages
from mammo_lib.config import PROBE, Profile
from mammo_lib.stages import answers
from mammo_lib.stages.experiment import extra_file
from mammo_lib.stages.trainings import PREDICTIONS, RECORD, cells
from mammo_lib.training import records


@pytest.fixture(scope="module")
def profile(every_protocol: dict[str, stages.Experiment]) -> Profile:
    """Of made-up trainings that have their records: seeds 0 and 1 of the official protocol, 0 of the others."""
    for experiment in every_protocol.values():
        known = {cell.name: cell for seed in (0, 1) for cell in cells(replace(experiment, seed=seed))}
        folder = experiment.results / "cells"
        for number, path in enumerate(folder.glob(f"*/*/*/*/{PREDICTIONS}")):
            cell = known[str(path.parent.relative_to(folder))]
            settings = records.cell_settings(cell, experiment.profile, {})
            paths.write_json(path.with_name(RECORD), {"started": number, "settings": settings})
    return every_protocol["official"].profile


@pytest.fixture(scope="module")
def alone(profile: Profile) -> pd.DataFrame:
    """The comparisons of this profile; to be read, not changed."""
    return answers.compared([profile])


@pytest.fixture
def copy(profile: Profile, home: Path) -> Profile:
    """Another profile, into which the trainings of the first were copied."""
    other = replace(profile, name="copy")
    for folder in ("results", "data/prepared"):
        shutil.rmtree(home / folder / "copy", ignore_errors=True)
        shutil.copytree(home / folder / profile.name, home / folder / "copy")
    return other


def cell(profile: Profile, name: str, seed: int) -> Path:
    return stages.Experiment(profile, "official", 0).results / "cells" / name / f"fold0-seed{seed}"


def auc(profile: Profile, name: str, seed: int) -> float:
    test = pd.read_csv(cell(profile, name, seed) / PREDICTIONS).query("part == 'test'")
    return float(roc_auc_score(test["label"], test["probability"]))


def test_every_seed_is_compared(profile: Profile, alone: pd.DataFrame) -> None:
    ours = alone.query("profile == 'tiny' and protocol == 'official'")
    found = ours.query("question == 'CBAM' and first == 'ResNet50+CBAM (Patch data)'").set_index("seed")
    assert list(found.index) == [0, 1]
    for seed, row in found.iterrows():
        first, second = (
            auc(profile, f"G/{network}/patch", int(str(seed))) for network in ("resnet50_cbam", "resnet50")
        )
        assert (row["auc_first"], row["auc_second"]) == pytest.approx((first, second))
        assert row["low"] <= first - second <= row["high"]
        assert row["arm"] == "whole mammograms, random weights, then patches"
        assert row["line"] == "ResNet50, 112 pixels (tiny)"
    (transfer,) = ours.query("question == 'patch over scratch' and seed == 1 and second == 'ResNet50 (random)'")[
        "difference"
    ]
    assert transfer == pytest.approx(auc(profile, "G/resnet50/patch", 1) - auc(profile, "G/resnet50/scratch", 1))


def test_every_protocol_is_compared_by_itself(profile: Profile, alone: pd.DataFrame) -> None:
    """Under the folds the AUC counts the pairs within each."""
    ours = alone.query("question == 'CBAM' and first == 'ResNet50+CBAM (Patch data)'")
    found = ours.query("profile == 'tiny'").set_index("protocol")
    assert sorted(found.index) == ["as_written", "grouped_cv", "official", "official"]  # that one with two seeds
    folds = stages.Experiment(profile, "grouped_cv", 0).results / "cells/G"
    for column, network in (("auc_first", "resnet50_cbam"), ("auc_second", "resnet50")):
        tests = [
            pd.read_csv(path).query("part == 'test'")
            for path in folds.glob(f"{network}/patch/fold*-seed0/{PREDICTIONS}")
        ]
        aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
        pairs = [test["label"].sum() * (1 - test["label"]).sum() for test in tests]
        assert found.loc["grouped_cv", column] == pytest.approx(np.average(aucs, weights=pairs))
    assert found.loc["grouped_cv", "line"] == "ResNet50, 112 pixels (tiny, grouped_cv)"
    (drawn,) = ours.query("protocol == 'as_written'")["line"]
    assert drawn == "ResNet50, 112 pixels (tiny, as_written)"


def test_splits_are_compared_on_the_cases_that_both_tested(
    alone: pd.DataFrame, every_protocol: dict[str, stages.Experiment]
) -> None:
    stages.evaluate(every_protocol["official"])
    found = alone.query("question == 'random split'")
    stored = pd.read_csv(every_protocol["official"].results / "protocols.csv").query("first == 'as_written'")
    for second, expected in stored.groupby("second"):
        of_split = found[found["second"].str.endswith(f", {second}") & (found["seed"] == 0)]
        assert sorted(of_split["difference"]) == pytest.approx(sorted(expected["shared_difference"]))
    assert len(found.query("seed == 0")) == len(stored) > 0


def test_splits_are_compared_with_every_seed(profile: Profile, alone: pd.DataFrame) -> None:
    """The official protocol has a second one; AUCs of the shared patches by scikit-learn."""
    name = "P/resnet50/scratch/fold0-seed"
    drawn = pd.read_csv(stages.Experiment(profile, "as_written", 0).results / f"cells/{name}0" / PREDICTIONS)
    official = pd.read_csv(stages.Experiment(profile, "official", 0).results / f"cells/{name}1" / PREDICTIONS)
    both = drawn.query("part == 'test'").merge(official.query("part == 'test'"), on="id")
    aucs = [roc_auc_score(both["label_x"], both[f"probability_{side}"]) for side in "xy"]
    found = alone.query("question == 'random split' and seed == 1")
    assert found["above_chance"].isin([0, 1, 2]).all()
    assert set(found["arm"].str.partition(", ")[2]) == {"minus official"}
    row = found.query("first == 'ResNet50 (random), as_written, seed 0' and stage == 'P'").iloc[0]
    assert (row["cases"], row["difference"]) == (len(both), pytest.approx(aucs[0] - aucs[1]))
    assert row["above_chance"] == sum(
        answers._above_chance(frame.assign(fold=0), profile) for frame in (drawn, official)
    )


def test_what_the_paper_printed_stands_beside(alone: pd.DataFrame) -> None:
    """Differences of its Tables 1 and 2, reckoned by hand."""
    printed = alone.query("profile == 'printed'")
    differences = printed.set_index(["first", "second"])["difference"]
    assert len(printed) == 3 + 6 + 6
    assert differences["ResNet50+CBAM (random)", "ResNet50 (random)"] == 0.0259  # 0.8607 - 0.8348
    assert differences["InceptionV3+CBAM (Patch data)", "InceptionV3 (Patch data)"] == -0.0285  # 0.7656 - 0.7941
    assert differences["ResNet50+CBAM (Patch data)", "ResNet50+CBAM (ImageNet)"] == 0.0099  # 0.8081 - 0.7982
    assert printed[["seed", "low", "high", "cases", "above_chance"]].isna().all(axis=None)
    assert set(printed["protocol"]) == {""}


def test_a_pair_of_trainings_that_was_copied_counts_once(profile: Profile, copy: Profile, alone: pd.DataFrame) -> None:
    twice = answers.compared([profile, copy])
    pairs = ~alone["question"].eq("random split")
    assert len(twice) - len(alone) == (~pairs).sum()  # of splits nothing says that they are the same
    assert set(twice[twice["profile"] == "copy"]["question"]) == {"random split"}
    assert set(answers.compared([copy])["profile"]) == {"printed", "copy"}


def test_another_training_counts_though_it_ends_the_same(profile: Profile, copy: Profile) -> None:
    record = cell(copy, "P/resnet50/scratch", 1) / RECORD
    paths.write_json(record, paths.read_json(record) | {"started": "later"})
    found = answers.compared([profile, copy]).query("profile == 'copy' and question == 'CBAM'")
    assert found[["first", "seed"]].to_numpy().tolist() == [["ResNet50+CBAM (random)", 1]]


@pytest.mark.parametrize(
    ("scores", "patients", "above"),
    [
        (lambda label, order: 100 * label + order, lambda order: order, True),
        (lambda label, order: 0 * label + 0.5, lambda order: order, False),  # one score for all
        (lambda label, order: order % 7 + 0.3 * label, lambda order: order, False),  # ahead of chance, by luck
        # an AUC of 3/4 by 60 patients, and by four of 15 like cases each
        (lambda label, order: np.array([1, 3, 2, 4])[order % 4], lambda order: order, True),
        (lambda label, order: np.array([1, 3, 2, 4])[order % 4], lambda order: order % 4, False),
    ],
)
def test_a_network_is_above_chance_where_its_interval_over_patients_is(
    profile: Profile,
    scores: Callable[[np.ndarray, np.ndarray], np.ndarray],
    patients: Callable[[np.ndarray], np.ndarray],
    above: bool,
) -> None:
    order = np.arange(60)
    label = (order // 2) % 2
    columns = {"fold": 0, "part": "test", "label": label, "patient_id": patients(order)}
    frame = pd.DataFrame(columns | {"probability": scores(label, order) / 100})
    assert answers._above_chance(frame, profile) == above


def test_sizes_are_compared_on_the_same_images(profile: Profile, copy: Profile) -> None:
    """The probe at three sizes of one source: the largest minus each smaller one, whatever the order of profiles."""
    results = stages.Experiment(profile, "official", 0).results
    networks = ["G/resnet50/patch", "G/resnet50/scratch", "G/resnet50_cbam/patch"]
    sized = []
    for side, network in zip((96, 160, 128), networks, strict=True):
        other = replace(copy, name=f"copy-{side}", globals=replace(copy.globals, size=side))
        for folder in ("results", "data/prepared"):
            home = results.parents[2]
            shutil.copytree(home / folder / "copy", home / folder / other.name, dirs_exist_ok=True)
        predicted = extra_file(stages.Experiment(other, "official", 0), PROBE, "G")
        predicted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cell(profile, network, 0) / PREDICTIONS, predicted)
        sized.append(other)
    found = answers.compared(sized).query("question == 'input size'").set_index("line")
    best, middle, least = (auc(profile, networks[number], 0) for number in (1, 2, 0))
    assert list(found.index) == ["160 minus 128 pixels (copy-128)", "160 minus 96 pixels (copy-96)"]
    assert list(found["difference"]) == pytest.approx([best - middle, best - least])
    assert (found["low"] < found["difference"]).all()
    assert (found["first"] == "160 pixels (copy-160)").all()
    assert "input size" not in set(answers.compared(sized[:1])["question"])
    for other in sized:  # with the probes alone, no pair of trainings is left
        shutil.rmtree(stages.Experiment(other, "official", 0).results / "cells")
    pd.testing.assert_frame_equal(answers.compared(sized).query("question == 'input size'").set_index("line"), found)
    assert "input size" not in set(answers.compared([sized[0], replace(sized[1], source="other")])["question"])
    record = stages.Experiment(sized[2], "official", 0).results / PROBE / "run.json"
    paths.write_json(record, {"settings": {"probe": {"focus": 0.5}}})  # made otherwise than the profile says now
    left = answers.compared(sized).query("question == 'input size'")["line"]
    assert list(left) == ["160 minus 96 pixels (copy-96)"]


def test_longer_trainings_are_compared_with_the_shorter(profile: Profile, copy: Profile) -> None:
    """The copy stands for the shorter ones; to tell the two apart, the scores of its second seed are turned round."""
    turned = cell(copy, "P/resnet50_cbam/scratch", 1) / PREDICTIONS
    frame = pd.read_csv(turned)
    frame["probability"] = 1 - frame["probability"]
    paths.write_table(frame, turned)
    longer = replace(profile, shorter="copy")
    both = answers.compared([longer, copy])
    found = both.query("question == 'training length' and arm == 'CBAM, patches, minus copy'").set_index("seed")
    name = "P/resnet50_cbam/scratch"
    expected = auc(profile, name, 1) - auc(copy, name, 1)  # the networks without CBAM are the same
    assert list(found["difference"]) == pytest.approx([0, expected, expected / 2])
    assert list(found.index[:2]) == [0, 1]
    assert pd.isna(found.index[2])  # the mean
    alone, mean = found.iloc[1], found.iloc[2]
    assert alone["low"] < alone["difference"] < alone["high"]
    assert (mean["low"], mean["high"]) == pytest.approx((alone["low"] / 2, alone["high"] / 2))  # the same resamples
    assert set(found["line"]) == {"ResNet50, 80 pixels (tiny)"}
    assert "training length" not in set(answers.compared([longer])["question"])
    smaller = replace(copy, patches=replace(copy.patches, size=96))
    of_whole = answers.compared([longer, smaller]).query("question == 'training length'")
    assert set(of_whole["stage"]) == {"G"}


def test_the_command_writes_the_table_and_the_figure(
    profile: Profile, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SAME_PATIENTS", ("phantom",))
    monkeypatch.setattr(answers, "PROFILES", {"tiny": profile})
    frame = stages.overview(stages.Experiment(profile, "official", 0))
    assert len(pd.read_csv(home / "results" / "overview.csv")) == len(frame)
    assert (home / "figures" / "overview.png").stat().st_size > 0


def test_without_any_result_it_says_so(profile: Profile) -> None:
    with pytest.raises(FileNotFoundError, match="no profile on CBIS-DDSM has predictions"):
        answers.compared([replace(profile, name="never-run")])
