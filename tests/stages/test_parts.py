"""Which cases each step learns from, chooses by and tests on, against the split and the tables as they lie on disk."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mammo_lib import paths, stages
from mammo_lib.config import PROTOCOLS
from mammo_lib.models import weights
from mammo_lib.stages import explanation, mapping, trainings
from mammo_lib.training import experiments, loop, mass_map, records
from mammo_lib.training.experiments import Cell

IDS = {"P": ("patches", "patch_id"), "G": ("globals", "image_id")}


def on_disk(run: stages.Experiment, stage: str) -> pd.DataFrame:
    """Line i describes image i; `id` is the case's own."""
    name, column = IDS[stage]
    return pd.read_csv(run.places.prepared / f"{name}.csv").rename(columns={column: "id"})


def drawn(run: stages.Experiment, stage: str, fold: int, part: str) -> set[str]:
    split = pd.read_csv(run.places.splits(run.protocol))
    return set(split[(split["stage"] == stage) & (split["fold"] == fold) & (split["part"] == part)]["id"])


@pytest.mark.parametrize("stage", ["P", "G"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_training_has_the_parts_of_its_own_fold(
    home: Path, protocol: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = stages.Experiment.of("tiny", protocol, 0), []
    monkeypatch.setattr(loop, "train", lambda *given: seen.append(given))
    folds = pd.read_csv(run.places.splits(protocol))["fold"].unique()
    for fold in folds:
        images, table = trainings.cell_data(run, Cell(protocol, stage, "resnet50", "scratch", fold=int(fold)))
        trainings.fit(None, images, table, run.profile.training(stage), run.profile, 0, tmp_path, {})
    cases = on_disk(run, stage)
    for fold, (_, _, labels, ids, rows, *_) in zip(folds, seen, strict=True):
        assert ids == cases["id"].tolist()
        assert labels.tolist() == cases["label"].tolist()
        for part in ("train", "validation"):
            assert set(cases["id"].iloc[rows[part]]) == drawn(run, stage, fold, part)
            assert len(rows[part]) == len(drawn(run, stage, fold, part))


def test_the_mass_map_is_taught_with_the_parts_of_its_own_fold(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = stages.Experiment.of("tiny", "grouped_cv", 0), []

    class Enough(Exception):
        pass

    def train(*given: Any) -> None:
        seen.append(given[2])
        raise Enough

    monkeypatch.setattr(mass_map, "train", train)
    monkeypatch.setattr(weights, "imagenet", lambda *_: weights.ImageNetWeights({}, Path(), "", ""))
    monkeypatch.setattr("mammo_lib.models.mass_map.build", lambda *_: None)
    for fold in (0, 1):
        with pytest.raises(Enough):
            mapping.train_map(run, fold)
    cases = on_disk(run, "G")["id"]
    for fold, parts in enumerate(seen):
        assert set(parts) == {"train", "validation"}
        for part, masses in parts.items():
            assert {cases[one.image] for one in masses} == drawn(run, "G", fold, part)


def test_only_test_images_are_explained_each_with_its_own_score(home: Path, tmp_path: Path) -> None:
    run = stages.Experiment.of("tiny", "grouped_cv", 0)
    images, test = explanation._test_images(run, Cell("grouped_cv", "G", "resnet50_cbam", "patch", fold=1))
    assert set(test["id"]) == drawn(run, "G", 1, "test")
    assert len(images) == len(test)
    scores = pd.DataFrame({"id": test["id"], "probability": [number / 100 for number in range(len(test))]})
    scores.iloc[::-1].to_csv(tmp_path / "predictions.csv", index=False)
    assert explanation._probability(tmp_path, test).tolist() == scores["probability"].tolist()


def test_sets_of_other_sizes_are_not_taken(home: Path) -> None:
    """Also not by a training whose record was deleted, as its message asks for."""
    run = stages.Experiment.of("tiny", "official", 0)
    larger = replace(run, profile=replace(run.profile, patches=replace(run.profile.patches, size=96)))
    reason = r"prepare.json was made with other settings \(patches.size: was 80, is 96\): delete it and run `python -m"
    for ask in (
        lambda: stages.split(larger),
        lambda: stages.train(larger, "P/resnet50/*"),
        lambda: trainings.hashes_of_inputs(larger, "P"),
    ):
        with pytest.raises(paths.StageMismatch, match=reason):
            ask()


def test_a_training_without_prepared_sets_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("tiny", "official", 0)
    with pytest.raises(FileNotFoundError, match="the data is not prepared: run `python -m mammo_lib prepare --profile"):
        stages.train(run)
    assert not (run.results / "outcomes.csv").exists()


def test_a_training_without_a_split_says_so_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("tiny", "official", 0)
    run.places.splits("official").unlink()
    for ask in (stages.train, lambda of: stages.parts(of, "P")):
        with pytest.raises(
            FileNotFoundError, match=r"official\.csv: the split is not drawn: run `python -m mammo_lib sp"
        ):
            ask(run)
    assert not (run.results / "outcomes.csv").exists()


@pytest.mark.parametrize("name", ["patches.npy", "patches.csv"])
def test_a_record_knows_the_arrays_and_the_table_of_its_stage(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stages.Experiment.of("tiny", "official", 0)
    before = {stage: trainings.hashes_of_inputs(run, stage) for stage in ("P", "G")}
    prepared = paths.read_json(run.places.prepared / "prepare.json")
    monkeypatch.setattr(paths, "read_json", lambda _: prepared | {"hashes": prepared["hashes"] | {name: "another"}})
    assert trainings.hashes_of_inputs(run, "P") != before["P"]
    assert trainings.hashes_of_inputs(run, "G") == before["G"]


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": {"zoom": (0.5, 2.0)}},
        {"vgg_hidden": 7},
        {"cbam": {"reduction": 4}},
        {"global_training": {"weight_decay": 0.5}},
        {"globals": {"size": 96}},
    ],
)
def test_a_record_knows_every_setting_that_its_numbers_depend_on(change: dict[str, Any]) -> None:
    profile = stages.Experiment.of("tiny", "official", 0).profile
    cell = experiments.Cell("official", "G", "vgg16_cbam", "patch")
    new = {
        name: replace(getattr(profile, name), **value) if isinstance(value, dict) else value
        for name, value in change.items()
    }
    before, after = (records.cell_settings(cell, one, {}) for one in (profile, replace(profile, **new)))
    assert paths.differences(before, after)
    assert paths.differences(before, records.cell_settings(replace(cell, seed=1), profile, {}))
    assert paths.differences(before, records.cell_settings(cell, profile, {"initial_weights": "another"}))
