"""Cells that come to nothing, what becomes of those that wait for them, and the warm-up of a classifier."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models import vgg

from mammo_lib import paths, stages
from mammo_lib.evaluation import figures, figures_curves
from mammo_lib.models import networks
from mammo_lib.stages import trainings
from mammo_lib.training import experiments, loop
from mammo_lib.training.experiments import UNFINISHED, Cell, Outcome
from mammo_lib.training.folder import FolderBusy, turn
from mammo_lib.training.loop import TrainingDiverged
from mammo_lib.training.schedule import Epoch

Copy = Callable[[Path, Path], None]


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


def test_nothing_is_deleted_while_the_processes_of_the_first_cells_start(
    tmp_path: Path, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)

    def start(wanted: list[Cell], *_: object, **__: object) -> list[Outcome]:
        with pytest.raises(FolderBusy, match="another process trains here"):
            stages.forget(experiment)
        return [Outcome(cell, "skipped") for cell in wanted]

    monkeypatch.setattr(experiments, "run", start)
    assert stages.train(experiment, "P/vgg16/scratch/*")["state"].tolist() == ["skipped"]
    assert experiment.places.prepared.exists()
    stages.forget(experiment)
    assert not experiment.places.prepared.exists()


def test_weights_that_are_missing_are_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("MAMMO_CBAM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "vgg16-397923af.pth").touch()
    paper = stages.weights_missing(stages.Experiment.of("paper", "official", 0))
    assert [sentence.partition(" are ")[0] for sentence in paper] == [
        "ImageNet weights of inception_v3",
        "ImageNet weights of resnet50",
    ]
    assert all(
        "until then its cells from ImageNet, and those that go on from them, stay empty" in sentence
        for sentence in paper
    )
    assert stages.weights_missing(stages.Experiment.of("reduced-cpu-resnet", "official", 0)) == []


def test_a_cell_of_other_settings_is_stale(
    tmp_path: Path, trained_home: Path, copy_home: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_home(trained_home, tmp_path)
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


SIZE = 32  # the least that VGG16 takes
NAME = "G/vgg16/imagenet/fold0-seed0"


def warmed_up() -> stages.Experiment:
    """The tiny profile at `SIZE`; a warm-up, and then a rate of 0."""
    experiment = stages.Experiment.of("tiny", "official", 0)
    given = experiment.profile
    profile = replace(
        given,
        patches=replace(given.patches, size=SIZE),
        globals=replace(given.globals, size=SIZE),
        global_training=replace(given.global_training, learning_rate=0.0),
        warm_up=replace(given.patch_training, batch_size=4, learning_rate=1e-3, max_epochs=2),
    )
    return replace(experiment, profile=profile)


def moving(experiment: stages.Experiment) -> stages.Experiment:
    """The same with a stage G in which Adam moves whatever has a gradient."""
    training = replace(experiment.profile.patch_training, batch_size=4)
    return replace(experiment, profile=replace(experiment.profile, global_training=training))


@pytest.fixture(scope="module")
def untrained(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny phantoms at `SIZE`, and a file of random weights in the place of ImageNet's; to be copied, not changed."""
    home, experiment = tmp_path_factory.mktemp("untrained"), warmed_up()
    shutil.copytree(trained_home / "data", home / "data")
    places = paths.Places(experiment.profile, home)
    for name in ("patches", "globals"):
        path = places.prepared / f"{name}.npy"
        images = np.load(path)
        path.unlink()
        np.save(path, images[:, -SIZE - 16 : -16, :SIZE])  # within the breast
    record = paths.read_json(places.prepared / "prepare.json")
    sizes = paths.plain({"patches": experiment.profile.patches, "globals": experiment.profile.globals})
    paths.write_json(places.prepared / "prepare.json", record | {"settings": record["settings"] | sizes})
    places.weights.mkdir()
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state, places.weights / "vgg16_imagenet_random.pth")
    return home


@pytest.fixture
def from_imagenet(
    tmp_path: Path, untrained: Path, copy_home: Copy, monkeypatch: pytest.MonkeyPatch
) -> stages.Experiment:
    """The only cell that can be trained from ImageNet's weights is not yet."""
    copy_home(untrained, tmp_path)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return warmed_up()


@dataclass
class Trained:
    """A home where `NAME` was trained, and what was seen meanwhile."""

    home: Path
    states: list[str] = field(default_factory=list)  # of the training itself
    seeds: list[int] = field(default_factory=list)  # of the warm-up and of what follows
    second: list[pd.Series] = field(default_factory=list)  # a second process while the first predicts: outcome, status


@pytest.fixture(scope="module")
def once(untrained: Path, copy_home: Copy, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The cell trained once; to be copied, not changed."""
    home, experiment, fit, predict = tmp_path_factory.mktemp("once"), warmed_up(), trainings.fit, trainings.predict
    copy_home(untrained, home)
    found = Trained(home)
    with pytest.MonkeyPatch.context() as patch:

        def noted(*arguments: Any) -> Any:
            found.seeds.append(arguments[5])
            return fit(*arguments)

        def come_in(*arguments: Any) -> pd.DataFrame:
            patch.setattr(trainings, "predict", predict)
            found.second.append(stages.train(experiment, NAME).iloc[0])
            found.second.append(stages.status(experiment).set_index("cell").loc[NAME])
            return predict(*arguments)

        patch.setenv("MAMMO_CBAM_HOME", str(home))
        patch.setattr(trainings, "fit", noted)
        patch.setattr(trainings, "predict", come_in)
        found.states += stages.train(experiment, NAME)["state"].tolist()
    return found


@pytest.fixture
def finished(tmp_path: Path, once: Trained, copy_home: Copy, monkeypatch: pytest.MonkeyPatch) -> stages.Experiment:
    """The cell that is trained from ImageNet's weights is done."""
    copy_home(once.home, tmp_path)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return warmed_up()


def weights_after(experiment: stages.Experiment, initial: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """State of VGG16's trunk and classifier after stage G."""
    cell = Cell("official", "G", "vgg16", initial)
    network = trainings.load_network(experiment, cell)
    return list(network.features.state_dict().values()), list(network.head.state_dict().values())


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(first, second, strict=True)]


def test_a_warm_up_trains_the_classifier_and_leaves_the_trunk(finished: stages.Experiment, once: Trained) -> None:
    assert once.states == ["done"]
    start = networks.build("vgg16", size=SIZE, vgg_hidden=16, seed=0)
    given = torch.load(finished.places.weights / "vgg16_imagenet_random.pth", weights_only=True)
    trunk, head = weights_after(finished, "imagenet")
    assert all(same(trunk, list(given.values())))
    assert not any(same(head, list(start.head.state_dict().values())))
    folder, results = finished.runs / NAME, finished.results / "cells" / NAME
    assert len(pd.read_csv(results / "warm_up" / "history.csv")) == 2
    assert len(pd.read_csv(results / "history.csv")) == 1
    assert [path.name for path in folder.rglob("*.pt")] == ["best.pt"]
    record = paths.read_json(folder / "run.json")
    expected = ("bf16", "captured") if torch.cuda.is_available() else ("fp32", "eager")
    assert (record["precision"], record["step"]) == expected
    assert stages.train(finished, NAME)["state"].tolist() == ["skipped"]
    other = replace(finished, profile=replace(finished.profile, warm_up=None))
    outcome = stages.train(other, NAME)
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


def test_a_finished_cell_stays_finished_when_its_weights_are_no_longer_at_hand(finished: stages.Experiment) -> None:
    file = finished.places.weights / "vgg16_imagenet_random.pth"
    published = finished.results / "cells" / NAME / "predictions.csv"
    told = trainings.outcomes(finished).values.tolist()
    assert told[0][:2] == [NAME, "done"]
    assert "26 entries loaded" in told[0][2]
    file.rename(file.with_suffix(".away"))
    assert stages.train(finished, NAME)["state"].tolist() == ["skipped"]
    assert trainings.outcomes(finished).values.tolist() == told
    other = replace(finished, profile=replace(finished.profile, vgg_hidden=8))
    assert "vgg_hidden: was 16, is 8" in stages.train(other, NAME)["message"].iloc[0]
    assert published.exists()
    assert "what an earlier training published stands" in trainings.outcomes(finished)["message"].iloc[0]
    assert stages.train(finished, NAME)["state"].tolist() == ["skipped"]
    assert trainings.outcomes(finished).values.tolist() == told
    shutil.rmtree(finished.runs / NAME)  # as in a clone of the repository, which has no weights
    assert stages.train(finished, NAME)["state"].tolist() == ["not available"]
    assert published.exists()
    assert stages.train(finished, "G/vgg16_cbam/imagenet/*")["state"].tolist() == ["not available"]


def test_patch_weights_of_other_settings_are_refused_and_bring_a_classifier_without_warm_up(
    from_imagenet: stages.Experiment,
) -> None:
    assert stages.train(from_imagenet, "P/vgg16/scratch/*")["state"].tolist() == ["done"]
    faster = replace(from_imagenet.profile.patch_training, learning_rate=0.5)
    other = replace(from_imagenet, profile=replace(from_imagenet.profile, patch_training=faster))
    outcome = stages.train(other, "G/vgg16/patch/*").iloc[0]
    assert outcome["state"] == "failed"
    assert "training.learning_rate: was" in outcome["message"]
    assert stages.train(from_imagenet, "G/vgg16/patch/*")["state"].tolist() == ["done"]
    assert not (from_imagenet.runs / "G/vgg16/patch/fold0-seed0/warm_up").exists()
    from_patches = trainings.load_network(from_imagenet, Cell("official", "P", "vgg16", "scratch")).state_dict()
    trunk, head = weights_after(from_imagenet, "patch")
    assert all(same([*trunk, *head], list(from_patches.values())))


def test_two_processes_are_not_at_one_cell_until_its_record_is_written(once: Trained) -> None:
    """The second one comes while the first predicts, when its training is over and no record is there yet."""
    assert once.states == ["done"]
    refused, shown = once.second
    assert refused["state"] == "failed"
    assert "another process trains here" in refused["message"]
    assert shown["state"] == "running"


def test_a_warm_up_draws_from_random_numbers_of_its_own(once: Trained) -> None:
    """A classifier that meets the batches and the dropout of its warm-up again knows them by heart."""
    warm_up, training = once.seeds
    assert training == 0
    assert warm_up > 1000, "no seed that a cell may have"


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
    drawn = networks.build("vgg16", size=SIZE, vgg_hidden=16, seed=3).head
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
    from_imagenet: stages.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same weights, bit for bit; and a warm-up that diverges is said to be one.

    After it the whole network is trained.
    """
    experiment = moving(from_imagenet)
    assert stages.train(experiment, NAME)["state"].tolist() == ["done"]
    unbroken = weights_after(experiment, "imagenet")
    given = torch.load(experiment.places.weights / "vgg16_imagenet_random.pth", weights_only=True)
    assert not any(same(unbroken[0], list(given.values())))
    shutil.rmtree(experiment.runs / NAME)
    fit, calls = trainings.fit, list[object]()

    def stop_at_the_second(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(trainings, "fit", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        stages.train(experiment, NAME)
    assert stages.status(experiment).set_index("cell")["state"][NAME] == "stopped"
    monkeypatch.setattr(trainings, "fit", fit)
    assert stages.train(experiment, NAME)["state"].tolist() == ["done"]
    assert all(all(same(*pair)) for pair in zip(unbroken, weights_after(experiment, "imagenet"), strict=True))

    def diverge(*_: object) -> NoReturn:
        raise TrainingDiverged("training loss is nan in epoch 1, step 8 (images a, b): look at these images")

    shutil.rmtree(experiment.runs / NAME)
    monkeypatch.setattr(trainings, "fit", diverge)
    outcome = stages.train(experiment, NAME)
    assert outcome["state"].tolist() == ["diverged"]
    assert outcome["message"][0].startswith("in the warm-up: training loss is nan")


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
