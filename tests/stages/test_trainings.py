"""Cells that come to nothing, what becomes of those that wait for them, and the warm-up of a classifier."""

import hashlib
import shutil
from dataclasses import replace
from inspect import signature
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import pandas as pd
import pytest
import torch
from torchvision.models import vgg

from mammo_lib import paths, stages
from mammo_lib.evaluation import figures, figures_curves
from mammo_lib.models import networks
from mammo_lib.stages import trainings
from mammo_lib.training import loop
from mammo_lib.training.experiments import UNFINISHED, Cell, Outcome
from mammo_lib.training.folder import turn
from mammo_lib.training.loop import TrainingDiverged
from mammo_lib.training.schedule import Epoch


def test_a_cell_that_diverged_is_told_and_its_child_has_no_weights(
    tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two calls, as the notebooks make them: the paper's settings may well diverge, and the rest must go on."""
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)

    def diverge(*_: object) -> NoReturn:
        raise TrainingDiverged("training loss is nan in epoch 1, step 8 (images a, b): look at these images")

    monkeypatch.setattr(trainings, "fit", diverge)
    earlier = experiment.results / "cells" / "P/vgg16/scratch/fold0-seed0" / "predictions.csv"
    paths.write_text(earlier, "")
    patches = stages.train(experiment, "P/vgg16/scratch/*")
    assert patches["state"].tolist() == ["diverged"]
    assert not earlier.exists()
    whole = stages.train(experiment, "G/vgg16/patch/*")
    assert whole["state"].tolist() == ["not available"]
    assert whole["message"].tolist() == ["its parent P/vgg16/scratch/fold0-seed0 is diverged"]
    assert not pd.concat([patches, whole])["state"].isin(UNFINISHED).any()
    assert (experiment.runs / "P/vgg16/scratch/fold0-seed0/failure.txt").exists()
    shown = stages.status(experiment).set_index("cell")
    names = ["P/vgg16/scratch/fold0-seed0", "G/vgg16/patch/fold0-seed0", "P/resnet50/scratch/fold0-seed0"]
    assert shown.loc[names, "state"].tolist() == ["diverged", "not available", "waiting"]


def test_a_cell_of_other_settings_is_stale(tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained_home, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    longer = replace(experiment.profile.global_training, max_epochs=2)
    changed = replace(experiment, profile=replace(experiment.profile, global_training=longer))
    for run, state in ((experiment, "done"), (changed, "stale")):
        shown = stages.status(run).set_index("cell")["state"]
        assert shown["G/resnet50/scratch/fold0-seed0"] == state
        assert shown["P/resnet50_cbam/scratch/fold0-seed0"] == "done"


def test_of_two_commands_that_end_at_once_both_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    first, second = (pd.DataFrame([{"cell": cell, "state": "done", "message": ""}]) for cell in "ab")
    other = Thread(target=trainings._remember, args=(second, experiment))
    with turn(experiment.runs / ".outcomes"):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        paths.write_table(first, experiment.results / "outcomes.csv")
    other.join()
    assert trainings.outcomes(experiment)["cell"].tolist() == ["a", "b"]


def test_a_finished_cell_is_told_though_the_next_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)

    def train(_: stages.Experiment, cell: Cell) -> Outcome:
        if cell.network == "vgg16_cbam":
            raise KeyboardInterrupt
        for name in trainings.RECORDS:
            paths.write_text(experiment.runs / cell.name / name, cell.network)
        return Outcome(cell, "done", "random")

    monkeypatch.setattr(trainings, "train_cell", train)
    monkeypatch.setattr(trainings, "prepared", lambda _: {})
    monkeypatch.setattr(trainings, "split_file", lambda _: tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stages.train(experiment, "P/vgg16*")
    name = "P/vgg16/scratch/fold0-seed0"
    assert trainings.outcomes(experiment).values.tolist() == [[name, "done", "random"]]
    assert (experiment.results / "cells" / name / "predictions.csv").read_text() == "vgg16"


@pytest.fixture
def from_imagenet(tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch) -> stages.Experiment:
    """Tiny phantoms and a file of random weights in the place of ImageNet's; a warm-up, and then a rate of 0."""
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    file = tmp_path / "data" / "weights" / "vgg16_imagenet_random.pth"
    file.parent.mkdir()
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, file)
    experiment = stages.Experiment.of("tiny", "official", 0)
    still = replace(experiment.profile.global_training, learning_rate=0.0)
    warm_up = replace(experiment.profile.patch_training, batch_size=4, learning_rate=1e-3, max_epochs=2)
    return replace(experiment, profile=replace(experiment.profile, global_training=still, warm_up=warm_up))


def weights_after(experiment: stages.Experiment, initial: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """State of VGG16's trunk and classifier after stage G."""
    cell = Cell("official", "G", "vgg16", initial)
    network = trainings.load_network(experiment, cell)
    return list(network.features.state_dict().values()), list(network.head.state_dict().values())


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(first, second, strict=True)]


def test_a_warm_up_trains_the_classifier_and_leaves_the_trunk(from_imagenet: stages.Experiment) -> None:
    name = "G/vgg16/imagenet/fold0-seed0"
    assert stages.train(from_imagenet, name)["state"].tolist() == ["done"]
    start = networks.build("vgg16", size=112, vgg_hidden=16, seed=0)
    given = torch.load(from_imagenet.places.weights / "vgg16_imagenet_random.pth", weights_only=True)
    trunk, head = weights_after(from_imagenet, "imagenet")
    assert all(same(trunk, list(given.values())))
    assert not any(same(head, list(start.head.state_dict().values())))
    folder, results = from_imagenet.runs / name, from_imagenet.results / "cells" / name
    assert len(pd.read_csv(results / "warm_up" / "history.csv")) == 2
    assert len(pd.read_csv(results / "history.csv")) == 1
    assert [path.name for path in folder.rglob("*.pt")] == ["best.pt"]
    record = paths.read_json(folder / "run.json")
    expected = ("bf16", "captured") if torch.cuda.is_available() else ("fp32", "eager")
    assert (record["precision"], record["step"]) == expected
    assert stages.train(from_imagenet, name)["state"].tolist() == ["skipped"]
    other = replace(from_imagenet, profile=replace(from_imagenet.profile, warm_up=None))
    outcome = stages.train(other, name)
    assert outcome["state"].tolist() == ["failed"]
    assert "warm_up" in outcome["message"][0]


def test_what_is_published_has_a_warm_up_only_where_the_training_had_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    cell = Cell("official", "G", "vgg16", "imagenet")
    source, results = experiment.runs / cell.name, experiment.results / "cells" / cell.name
    for name in ("run.json", "history.csv", "predictions.csv", "warm_up/history.csv"):
        paths.write_text(source / name, "first")
    trainings._publish(experiment, Outcome(cell, "done", "from ImageNet"))
    assert (results / "warm_up" / "history.csv").read_text() == "first"
    shutil.rmtree(source)  # as a new training with other settings begins
    for name in ("run.json", "history.csv", "predictions.csv"):
        paths.write_text(source / name, "second")
    trainings._publish(experiment, Outcome(cell, "done", "from ImageNet"))
    published = {str(path.relative_to(results)): path.read_text() for path in results.rglob("*.*")}
    assert published == dict.fromkeys(("run.json", "history.csv", "predictions.csv"), "second")


def test_a_finished_cell_stays_finished_when_its_weights_are_no_longer_at_hand(
    from_imagenet: stages.Experiment,
) -> None:
    name, file = "G/vgg16/imagenet/fold0-seed0", from_imagenet.places.weights / "vgg16_imagenet_random.pth"
    published = from_imagenet.results / "cells" / name / "predictions.csv"
    stages.train(from_imagenet, name)
    told = trainings.outcomes(from_imagenet).values.tolist()
    assert told[0][:2] == [name, "done"]
    assert "26 entries loaded" in told[0][2]
    file.rename(file.with_suffix(".away"))
    assert stages.train(from_imagenet, name)["state"].tolist() == ["skipped"]
    assert trainings.outcomes(from_imagenet).values.tolist() == told
    other = replace(from_imagenet, profile=replace(from_imagenet.profile, vgg_hidden=8))
    assert "vgg_hidden: was 16, is 8" in stages.train(other, name)["message"].iloc[0]
    assert published.exists()
    assert "what an earlier training published stands" in trainings.outcomes(from_imagenet)["message"].iloc[0]
    assert stages.train(from_imagenet, name)["state"].tolist() == ["skipped"]
    assert trainings.outcomes(from_imagenet).values.tolist() == told
    shutil.rmtree(from_imagenet.runs / name)  # as in a clone of the repository, which has no weights
    assert stages.train(from_imagenet, name)["state"].tolist() == ["not available"]
    assert published.exists()
    assert stages.train(from_imagenet, "G/vgg16_cbam/imagenet/*")["state"].tolist() == ["not available"]


def test_patch_weights_of_other_settings_are_refused(from_imagenet: stages.Experiment) -> None:
    assert stages.train(from_imagenet, "P/vgg16/scratch/*")["state"].tolist() == ["done"]
    faster = replace(from_imagenet.profile.patch_training, learning_rate=0.5)
    other = replace(from_imagenet, profile=replace(from_imagenet.profile, patch_training=faster))
    outcome = stages.train(other, "G/vgg16/patch/*").iloc[0]
    assert outcome["state"] == "failed"
    assert "training.learning_rate: was" in outcome["message"]
    assert stages.train(from_imagenet, "G/vgg16/patch/*")["state"].tolist() == ["done"]


def test_two_processes_are_not_at_one_cell_until_its_record_is_written(
    from_imagenet: stages.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one comes while the first predicts, when its training is over and no record is there yet."""
    name, predict, second = "G/vgg16/imagenet/fold0-seed0", trainings.predict, []

    def come_in(*arguments: Any) -> pd.DataFrame:
        monkeypatch.setattr(trainings, "predict", predict)
        second.append(stages.train(from_imagenet, name).iloc[0])
        second.append(stages.status(from_imagenet).set_index("cell").loc[name])
        return predict(*arguments)

    monkeypatch.setattr(trainings, "predict", come_in)
    assert stages.train(from_imagenet, name)["state"].tolist() == ["done"]
    refused, shown = second
    assert refused["state"] == "failed"
    assert "another process trains here" in refused["message"]
    assert shown["state"] == "running"


def test_a_warm_up_draws_from_random_numbers_of_its_own(
    from_imagenet: stages.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier that meets the batches and the dropout of its warm-up again knows them by heart."""
    fit, seeds = trainings.fit, []

    def noted(*arguments: Any) -> Any:
        seeds.append(arguments[5])
        return fit(*arguments)

    monkeypatch.setattr(trainings, "fit", noted)
    stages.train(from_imagenet, "G/vgg16/imagenet/fold0-seed0")
    assert seeds[1] == 0
    assert seeds[0] > 1000, "no seed that a cell may have"


def test_the_seed_of_a_cell_is_that_of_its_weights_and_of_its_training(
    from_imagenet: stages.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its classifier, as ImageNet's weights have none; a warm-up begins with the same one."""
    begun, parameters = list[tuple[int, list[torch.Tensor]]](), signature(loop.train)

    def begin(*arguments: Any) -> None:
        given = parameters.bind(*arguments).arguments
        begun.append((given["seed"], [value.clone() for value in given["network"].head.state_dict().values()]))
        if len(begun) == 2:
            raise TrainingDiverged("with what it begins is enough")

    monkeypatch.setattr(loop, "train", begin)
    stages.train(replace(from_imagenet, seed=3), "G/vgg16/imagenet/fold0-seed3")
    assert [seed for seed, _ in begun] == [1_000_003, 3]
    drawn = networks.build("vgg16", size=112, vgg_hidden=16, seed=3).head
    assert all(all(same(weights, list(drawn.state_dict().values()))) for _, weights in begun)


def test_a_cell_is_not_done_when_it_started_from_other_weights(
    tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its parent, which may have been trained again since."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment, cell = stages.Experiment.of("tiny", "official", 0), Cell("official", "G", "resnet50_cbam", "patch")
    assert cell.parent is not None
    parent, given = experiment.runs / cell.parent.name, trained_home / "runs" / "tiny" / "official"
    (tmp_path / "data").symlink_to(trained_home / "data")
    parent.parent.mkdir(parents=True)
    parent.symlink_to(given / cell.parent.name)
    record = paths.read_json(given / cell.name / "run.json")
    now, before = hashlib.sha256((parent / "best.pt").read_bytes()).hexdigest(), "0" * 64

    def say_it_started_from(initial: str) -> None:
        record["settings"]["inputs"]["initial_weights"] = initial
        paths.write_json(experiment.runs / cell.name / "run.json", record)

    say_it_started_from(now)
    assert trainings.train_cell(experiment, cell).state == "skipped"
    say_it_started_from(before)
    with pytest.raises(paths.StageMismatch, match=r"\(inputs\.initial_weights: has changed\)"):
        trainings.train_cell(experiment, cell)


def test_a_cell_stopped_after_its_warm_up_goes_on_as_if_it_had_not_been(
    from_imagenet: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same weights, bit for bit; and a warm-up that diverges is said to be one."""
    moving = replace(from_imagenet.profile.patch_training, batch_size=4)
    experiment = replace(from_imagenet, profile=replace(from_imagenet.profile, global_training=moving))
    name = "G/vgg16/imagenet/fold0-seed0"
    stages.train(experiment, name)
    unbroken = weights_after(experiment, "imagenet")
    shutil.rmtree(experiment.runs / name)
    fit, calls = trainings.fit, list[object]()

    def stop_at_the_second(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(trainings, "fit", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        stages.train(experiment, name)
    assert stages.status(experiment).set_index("cell")["state"][name] == "stopped"
    monkeypatch.setattr(trainings, "fit", fit)
    assert stages.train(experiment, name)["state"].tolist() == ["done"]
    assert all(all(same(*pair)) for pair in zip(unbroken, weights_after(experiment, "imagenet"), strict=True))

    def diverge(*_: object) -> NoReturn:
        raise TrainingDiverged("training loss is nan in epoch 1, step 8 (images a, b): look at these images")

    shutil.rmtree(experiment.runs / name)
    monkeypatch.setattr(trainings, "fit", diverge)
    outcome = stages.train(experiment, name)
    assert outcome["state"].tolist() == ["diverged"]
    assert outcome["message"][0].startswith("in the warm-up: training loss is nan")


def test_after_a_warm_up_the_whole_network_is_trained(from_imagenet: stages.Experiment) -> None:
    moving = replace(from_imagenet.profile.patch_training, batch_size=4)  # Adam moves whatever has a gradient
    experiment = replace(from_imagenet, profile=replace(from_imagenet.profile, global_training=moving))
    stages.train(experiment, "G/vgg16/imagenet/fold0-seed0")
    given = torch.load(experiment.places.weights / "vgg16_imagenet_random.pth", weights_only=True)
    assert not any(same(weights_after(experiment, "imagenet")[0], list(given.values())))


def test_weights_that_bring_a_classifier_have_no_warm_up(from_imagenet: stages.Experiment) -> None:
    stages.train(from_imagenet, "P/vgg16/scratch/*")
    stages.train(from_imagenet, "G/vgg16/patch/*")
    assert not (from_imagenet.runs / "G/vgg16/patch/fold0-seed0/warm_up").exists()
    from_patches = trainings.load_network(from_imagenet, Cell("official", "P", "vgg16", "scratch")).state_dict()
    trunk, head = weights_after(from_imagenet, "patch")
    assert all(same([*trunk, *head], list(from_patches.values())))


def test_the_epoch_that_is_kept_is_that_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal accuracies that of the lower loss, which is not the first."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    names = [column for column in Epoch.__dataclass_fields__ if column != "epoch"]
    history = pd.DataFrame({"epoch": [1, 2, 3]} | dict.fromkeys(names, 0.5)).assign(validation_loss=[0.6, 0.4, 0.5])
    folder = experiment.results / "cells" / "P/vgg16/scratch/fold0-seed0"
    folder.mkdir(parents=True)
    history.to_csv(folder / "history.csv", index=False)
    assert stages.kept_epochs(experiment, "P")["epoch"].tolist() == [2]


def test_learning_curves_are_of_the_first_fold_that_has_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment, drawn = stages.Experiment.of("tiny", "grouped_cv", 0), []
    monkeypatch.setattr(figures_curves, "learning_curves", lambda curves, data: drawn.append((curves, data)))
    monkeypatch.setattr(figures, "save", lambda *_: [])
    for fold, loss in ((2, 0.2), (1, 0.1)):
        (cell,) = stages.cells(experiment, f"P/resnet50/scratch/fold{fold}-*")
        folder = experiment.results / "cells" / cell.name
        folder.mkdir(parents=True)
        pd.DataFrame({"epoch": [1], "train_loss": [loss]}).to_csv(folder / "history.csv", index=False)
    stages.draw_learning_curves(experiment, "P")
    ((curves, data),) = drawn
    assert [run["train_loss"].tolist() for runs in curves.values() for run in runs.values()] == [[0.1]]
    assert data.endswith("fold 1")
