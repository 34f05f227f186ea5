"""Measures of a map: merged by image and method, and random networks averaged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from mammo_lib import paths, stages
from mammo_lib.evaluation import figures, gradcam, localisation, removal
from mammo_lib.stages import explanation, trainings
from mammo_lib.training.experiments import Cell

SIZE = 32
torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # inside the package grad-cam


class Brightness(nn.Module):
    """p(malignant) rises with the mean of the image's left half."""

    def forward(self, x):
        score = x[:, 0, :, : SIZE // 2].mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def measure():
    """Measures of two images, for removed shares that are asked for.

    Each is bright in its lesion at the left; of three random networks one points there.
    """
    images = np.zeros((2, SIZE, SIZE), np.uint8)
    images[:, 4:28, 2:30] = 60
    images[:, 10:14, 4:8] = 255
    test = pd.DataFrame(
        {
            "image_id": ["b", "a"],
            "patient_id": ["2", "1"],
            "label": [1, 0],
            "boxes": [json.dumps([[4, 10, 4, 4]])] * 2,
            "probability": [0.7, 0.6],
        }
    )
    right, empty = (np.zeros((2, SIZE, SIZE), np.float32) for _ in range(2))
    right[:, 10:14, 4:8] = 1
    wrong = right[:, :, ::-1].copy()
    maps = {explanation.GRADCAM: right}
    maps |= {f"{explanation.UNTRAINED} #{number}": heat for number, heat in enumerate((right, wrong, empty))}
    experiment = stages.Experiment.of("tiny", "official", 0)

    def measured(shares):
        rows = explanation._measure(experiment, Brightness().eval(), images, test, maps, shares)
        return rows.set_index(["image_id", "method"])

    return measured


@pytest.fixture
def rows(measure):
    return measure(removal.SHARES)


def test_random_networks_are_averaged_and_everything_else_is_one_row(rows):
    assert not rows.index.has_duplicates
    assert set(rows.index.get_level_values("method")) == {
        explanation.GRADCAM,
        explanation.UNTRAINED,
        *localisation.CONTROLS,
    }
    for image in "ab":
        assert rows.loc[(image, explanation.GRADCAM), "energy"] == 1
        assert rows.loc[(image, explanation.UNTRAINED), "energy"] == pytest.approx(1 / 3)
        assert rows.loc[(image, explanation.UNTRAINED), "empty"] == pytest.approx(1 / 3)


def test_without_removal_everything_else_is_the_same(measure, rows):
    pd.testing.assert_frame_equal(measure(()), rows.drop(columns=removal.MEASURE))


class Marked(nn.Module):
    """A network all of whose weights are one number, which says where they are from."""

    def __init__(self, number):
        super().__init__()
        self.features, self.head = nn.Linear(1, 1), nn.Linear(1, 1)
        for parameter in self.parameters():
            nn.init.constant_(parameter, number)


@pytest.mark.parametrize("gate", [None, np.zeros(1)])
def test_a_control_is_of_a_network_whose_weights_are_not_the_trained_ones(monkeypatch, gate):
    """The trained ones are 100; a network that is only built has its seed. Three are, with seeds that no other
    training seed has.

    What is measured afterwards by the trained network is by one that no control has changed.
    """

    def weights(network, _x):
        return [{parameter.item() for parameter in part.parameters()} for part in (network.features, network.head)]

    monkeypatch.setattr(explanation, "load_network", lambda _experiment, _cell: Marked(100))
    monkeypatch.setattr(explanation, "build_network", lambda _profile, cell: Marked(cell.seed))
    monkeypatch.setattr(gradcam, "look", lambda *seen: gradcam.Look(np.zeros(1), weights(*seen), gate))
    experiment, cell = stages.Experiment.of("tiny", "official", 7), Cell("official", "G", "resnet50", "patch", seed=7)
    trained = Marked(100)
    maps = explanation._maps(experiment, cell, trained, np.zeros((1, SIZE, SIZE), np.uint8))
    assert maps.pop(explanation.GATE, None) is gate
    assert maps == {
        "Grad-CAM": [{100}, {100}],
        "Grad-CAM, untrained head": [{100}, {7}],
        "Grad-CAM, random weights #0": [{21}, {21}],
        "Grad-CAM, random weights #1": [{22}, {22}],
        "Grad-CAM, random weights #2": [{23}, {23}],
    }
    assert weights(trained, None) == [{100}, {100}]


def without_removal():
    experiment = stages.Experiment.of("tiny", "official", 0)
    return replace(experiment, profile=replace(experiment.profile, removal=False))


@pytest.fixture
def finished(tmp_path, trained_home, copy_home, monkeypatch):
    """A run that is not explained yet; its profile leaves removal out, which takes longest."""
    copy_home(trained_home, tmp_path)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return without_removal()


@pytest.fixture(scope="module")
def once(trained_home, copy_home, tmp_path_factory):
    """A home whose run was explained, to be copied and not changed; and what that returned."""
    home = tmp_path_factory.mktemp("explained")
    copy_home(trained_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMMO_CBAM_HOME", str(home))
        return home, stages.explain(without_removal())


@pytest.fixture
def explained(tmp_path, once, copy_home, monkeypatch):
    copy_home(once[0], tmp_path)
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    return without_removal()


def test_a_profile_may_leave_removal_out(once):
    assert set(once[1]["measure"]) == set(localisation.MEASURES)


def test_removal_is_measured_where_the_profile_has_it(finished, monkeypatch):
    monkeypatch.setattr(removal, "SHARES", (0.02,))
    assert not explanation.has_maps(finished)
    measured = replace(finished, profile=replace(finished.profile, removal=True))
    told = stages.explain(measured)
    assert set(told["measure"]) == {*localisation.MEASURES, removal.MEASURE}
    fall = told[told["measure"] == removal.MEASURE]
    assert set(fall["method"]) == set(told["method"]) >= {explanation.GRADCAM, *localisation.CONTROLS}
    assert fall["mean"].between(-1, 1).all()
    assert pd.read_csv(finished.results / "localisation_cases.csv")[removal.MEASURE].notna().all()
    differences = pd.read_csv(finished.results / "localisation_differences.csv")
    assert set(differences["measure"]) == {*localisation.MEASURES, removal.MEASURE}
    assert explanation.has_maps(measured)


def test_maps_of_a_network_of_other_settings_are_not_taken(finished):
    longer = replace(finished.profile.global_training, max_epochs=9)
    changed = replace(finished, profile=replace(finished.profile, global_training=longer))
    cell = next(cell for cell in stages.cells(finished) if cell.name == "G/resnet50_cbam/patch/fold0-seed0")
    for ask in (lambda: stages.explain(changed), lambda: trainings.load_network(changed, cell)):
        with pytest.raises(paths.StageMismatch, match=r"training.max_epochs: was 1, is 9\): delete it"):
            ask()


def test_what_is_drawn_is_of_the_network_that_is_there_and_of_the_seed_that_is_asked_for(explained, capsys):
    assert explanation.has_maps(explained)
    other = replace(explained, seed=1)
    assert not explanation.is_measured(other)
    assert not explanation.has_maps(other)
    record = explained.places.prepared / "prepare.json"
    content = paths.read_json(record)
    paths.write_json(record, content | {"hashes": content["hashes"] | {"globals.npy": 64 * "0"}})
    assert not explanation.has_maps(explained), "the images were prepared anew"
    assert "its heat maps are not drawn: " in capsys.readouterr().out
    paths.write_json(record, content)
    assert explanation.has_maps(explained)
    best = explained.runs / "G/resnet50_cbam/patch/fold0-seed0/best.pt"
    network = best.read_bytes()
    best.unlink()
    best.write_bytes(network + b"trained anew")
    assert explanation.is_measured(explained)
    assert not explanation.has_maps(explained)
    assert "of an earlier training and not drawn: delete " in capsys.readouterr().out


def test_what_was_measured_of_other_predictions_is_not_shown(explained):
    """The network was trained anew, and its maps are not made yet."""
    cell = "G/resnet50_cbam/patch/fold0-seed0"
    published = explained.results / "cells" / cell / "predictions.csv"
    published.parent.mkdir(parents=True)
    shutil.copyfile(explained.runs / cell / "predictions.csv", published)
    assert explanation.is_measured(explained)
    for table in stages.localisation_tables(explained):
        for told in (
            "Network: ResNet50+CBAM, started from: Patch data.",
            "protocol official, seed 0",
            explained.profile.data,
        ):
            assert told in table.caption
    pd.read_csv(published).assign(probability=0.123).to_csv(published, index=False)
    assert not explanation.is_measured(explained)


def test_decisions_are_those_of_the_threshold_of_now(explained):
    def groups(experiment):
        stages.explain(experiment)
        cases = pd.read_csv(experiment.results / "localisation_cases.csv").drop_duplicates("image_id")
        called = cases["probability"] >= experiment.profile.evaluation.threshold
        right = called == (cases["label"] == 1)
        named = np.where(cases["label"] == 1, "malignant", "benign") + np.where(right, ", correct", ", wrong")
        assert cases["group"].tolist() == named.tolist()
        return cases["group"].tolist()

    stricter = replace(explained.profile.evaluation, threshold=0.65)
    changed = replace(explained, profile=replace(explained.profile, evaluation=stricter))
    assert groups(explained) != groups(changed)  # two cases lie between


@pytest.mark.parametrize("folds", [1, 2])
def test_pictures_name_the_fold_they_are_of_where_there_are_others(explained, monkeypatch, folds):
    [cell] = explanation._explained_cells(explained)
    monkeypatch.setattr(explanation, "_explained_cells", lambda _: folds * [cell])
    monkeypatch.setattr(explanation, "lesion_masks", lambda _, rows: [None] * len(rows))  # the fixture has no archive
    told = {}
    for name in ("gradcam_samples", "contact_sheet"):
        monkeypatch.setattr(figures, name, lambda *given, name=name: told.setdefault(name, given[1]) and Figure())
    stages.draw_explanations(explained)
    of_fold = ", fold 0" if folds > 1 else ""
    assert told == dict.fromkeys(("gradcam_samples", "contact_sheet"), explained.sentence + of_fold)


def test_a_network_of_other_images_is_not_explained(finished):
    """The images were prepared anew, of a mended table for instance."""
    record = finished.places.prepared / "prepare.json"
    content = paths.read_json(record)
    paths.write_json(record, content | {"hashes": content["hashes"] | {"globals.npy": 64 * "0"}})
    with pytest.raises(paths.StageMismatch, match=r"inputs\.images: was .*\): delete it to have it made again"):
        stages.explain(finished)


def test_a_cell_that_diverged_has_nothing_to_explain_and_its_older_maps_go(explained):
    """It diverged in a later epoch: the best one until then is on disk, and not what the tables show."""
    picture = explained.figures / "fig7_gradcam.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"")
    cell = "G/resnet50_cbam/patch/fold0-seed0"
    made = [*explained.results.glob("localisation*.csv"), picture, explained.runs / cell / explanation.MAPS]
    assert len(made) == 5
    (explained.runs / cell / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not finished: run `python -m mammo_lib train .* first"):
        stages.explain(explained)
    told = {"cell": [cell], "state": ["not available"], "message": ["no weights"]}
    pd.DataFrame(told).to_csv(explained.results / "outcomes.csv", index=False)
    with pytest.raises(FileNotFoundError, match=f"{cell} is not available, nothing to explain: no weights"):
        stages.explain(explained)
    assert all(path.exists() for path in made), "as its published predictions"
    told |= {"state": ["diverged"], "message": ["training loss is nan in epoch 2"]}
    pd.DataFrame(told).to_csv(explained.results / "outcomes.csv", index=False)
    with pytest.raises(FileNotFoundError, match=f"{cell} is diverged, nothing to explain: training loss is nan"):
        stages.explain(explained)
    assert not any(path.exists() for path in made)


def test_intervals_are_of_the_profiles_confidence(tmp_path):
    """Of two patients with 0 and 1, half of all resamples have the mean 0.5: a fifth of them has no other."""
    about = {"image_id": ["a", "b"], "patient_id": ["1", "2"], "group": "benign, wrong", "empty": 0.0}
    one, other = (
        pd.DataFrame(about | dict.fromkeys(localisation.MEASURES, values)).assign(method=method)
        for method, values in (("one", [0.0, 1.0]), ("other", 0.0))
    )
    experiment = stages.Experiment.of("tiny", "official", 0)
    rule = replace(experiment.profile.evaluation, confidence=0.2)
    experiment = replace(experiment, profile=replace(experiment.profile, evaluation=rule))
    explanation.write_localisation(experiment, pd.concat([one, other], ignore_index=True), "one", tmp_path)
    means = pd.read_csv(tmp_path / "localisation.csv").query("method == 'one' and group == 'all'")
    for table in (means, pd.read_csv(tmp_path / "localisation_differences.csv")):
        assert table["measure"].tolist() == list(localisation.MEASURES)
        assert (table[["low", "high"]] == 0.5).all(axis=None)


def test_who_an_image_is_survives_the_averaging(rows):
    assert set(rows.loc["a", "group"]) == {"benign, wrong"}
    assert set(rows.loc["b", "group"]) == {"malignant, correct"}
    assert set(rows.loc["a", "patient_id"]) == {"1"}


def test_removal_belongs_to_the_map_it_was_measured_for(rows):
    """The network looks at the left half, where Grad-CAM's map points; the average over random ones falls less."""
    fall = rows["removal"].unstack("method")
    assert (fall[explanation.GRADCAM] > fall[explanation.UNTRAINED]).all()
    assert (fall[explanation.GRADCAM] > 0).all()
