"""The mass map from set G to predictions, mostly with maps that were made up; once with a network that is trained."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models import vgg

from mammo_lib import paths, stages
from mammo_lib.config import MASS_MAP, MassMap, Split
from mammo_lib.data import splits
from mammo_lib.evaluation import predictions
from mammo_lib.models import mass_map
from mammo_lib.stages import mapping, page
from mammo_lib.stages.exhibits import Exhibits
from mammo_lib.stages.experiment import extra_file
from mammo_lib.stages.grid import Grid

MASS_CELLS = np.s_[3:4, 1:3]  # where conftest's masses are


@pytest.fixture
def run(tmp_path, trained_home, monkeypatch):
    """conftest's images, whose masses lie in known cells, read by a network that knows what each of them is.

    The probe says the same of every whole image.
    """
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    images, views = stages.load(experiment, "G")
    views[["image_id", "label"]].to_csv(experiment.places.prepared / "cases.csv", index=False)
    labels = {image.tobytes(): label for image, label in zip(images, views["label"], strict=True)}

    def read(network, image, precision):
        logits = np.random.default_rng(0).normal(0, 0.1, (7, 7, 3)).astype(np.float32)
        logits[..., 0] += 4
        logits[MASS_CELLS][..., 1 + labels[image.tobytes()]] += 8
        logits[0, 6] = (0, 0, 99)  # beside the breast, nothing is to be read
        return logits

    def train_map(source, fold):
        folder = mapping._runs(source, fold)
        for name in ("last.pt", "history.csv"):
            paths.write_text(folder / name, name)
        paths.write_json(folder / "run.json", {"fold": fold})

    monkeypatch.setattr(mass_map, "read", read)
    monkeypatch.setattr(mapping, "train_map", train_map)
    monkeypatch.setattr(mapping, "whole_log_odds", lambda *given: np.zeros(len(given[-1])))
    monkeypatch.setattr(mapping, "FOLDS", 2)
    half = replace(experiment.profile.split, validation_share=0.5)  # two validation patients of each class, or more
    split = splits.make("official", stages.load(experiment, "P")[1], views, half, seed=0)
    splits.write(split, experiment.places.splits("official"))
    return experiment


@pytest.mark.parametrize("stage", ["P", "G"])
def test_predictions_are_complete_and_right_where_the_map_is(run, stage):
    readings = stages.map_masses(run).set_index("reading")["validation_auc"]
    assert readings["most malignant cell"] == readings["most malignant cell and whole image"] == 1
    assert readings["whole image, by the probe"] == 0.5
    wanted = stages.parts(run, stage).query("part != 'train'")
    found = predictions.read(extra_file(run, MASS_MAP, stage), wanted[["id", "label", "part", "patient_id"]])
    assert ((found["probability"] > 0.5) == (found["label"] == 1)).all()


def test_a_patch_away_from_the_mass_is_not_as_malignant(run):
    stages.map_masses(run)
    near = pd.read_csv(extra_file(run, MASS_MAP, "P"))
    path = run.places.prepared / "patches.csv"
    table = pd.read_csv(path, dtype={"patient_id": str})
    table.assign(centre_x=1, centre_y=1, window=1).to_csv(path, index=False)  # the corner of the image's nine pixels
    stages.map_masses(run)
    far = pd.read_csv(extra_file(run, MASS_MAP, "P"))
    assert near["probability"].nunique() > far["probability"].nunique() == 1


def test_a_patch_without_breast_is_as_malignant_as_the_least_cell_of_its_image(run):
    where = Grid.of(run)
    maps = {0: np.random.default_rng(0).normal(size=(7, 7, 3))}
    beside, within = [6.0, 0.0, 1.0, 1.0], [1.0, 3.0, 2.0, 1.0]
    odds = mapping._patch_odds(maps, where, np.array([0, 0]), np.array([beside, within]))
    each = mass_map.malignancy(maps[0])
    assert not where.inside[0][0, 6]
    assert odds[0] == each[where.inside[0]].min()
    assert odds[1] == each[3, 1:3].max()


def test_the_map_is_measured_where_lesions_are(run):
    stages.map_masses(run)
    table = pd.read_csv(run.results / MASS_MAP / "seed0" / "localisation.csv")
    energy = table.query("measure == 'energy' and group == 'all'").set_index("method")["mean"]
    assert energy[mapping.SHOWN] > 3 * energy["breast, uniform"]
    assert (table.query("group == 'all'")["images"] == 6).all()


def test_nothing_is_learnt_from_test_labels(run):
    readings, before = stages.map_masses(run), pd.read_csv(extra_file(run, MASS_MAP, "G"))
    test = stages.parts(run, "G").query("part == 'test'")["image_id"]
    for name in ("globals", "patches"):
        path = run.places.prepared / f"{name}.csv"
        table = pd.read_csv(path, dtype={"patient_id": str})
        table["label"] ^= table["image_id"].isin(test).astype(int)
        table.to_csv(path, index=False)
    again, after = stages.map_masses(run), pd.read_csv(extra_file(run, MASS_MAP, "G"))
    assert (before["label"] != after["label"]).sum() == len(test)
    assert readings["images"].equals(again["images"])
    assert before["probability"].equals(after["probability"])


def test_the_probe_beside_the_map_knows_the_training_part_of_its_fold_alone(run, monkeypatch):
    """In a cross-validation; the parts are read here from the split's own file."""
    run = replace(run, protocol="grouped_cv")
    patches, views = (stages.load(run, stage)[1] for stage in ("P", "G"))
    two = splits.make("grouped_cv", patches, views, Split(folds=2, validation_share=0.5), seed=0)
    splits.write(two, run.places.splits("grouped_cv"))
    asked = []

    def score(source, known, experiment, cases):
        asked.append((set(known["image_id"]), set(cases["image_id"])))
        return np.zeros(len(cases))

    monkeypatch.setattr(mapping, "whole_log_odds", score)
    stages.map_masses(run)
    written = (
        pd.read_csv(run.places.splits("grouped_cv")).query("stage == 'G'").groupby(["fold", "part"])["id"].agg(set)
    )
    assert asked == [(written[fold, "train"], written[fold, "validation"] | written[fold, "test"]) for fold in (0, 1)]


def test_the_page_shows_what_the_map_was_chosen_by_and_what_it_found(run):
    def section():
        return Exhibits(run, {}, {}, {}).section("Does training learn", stored=page.TRIED, otherwise=page.NOT_TRIED)

    assert section().prose == [page.NOT_TRIED]
    stages.map_masses(run)
    assert not section().prose
    assert len(section().tables) == 1
    captions = [table.caption for table in page._localisation(run)]
    assert any(caption.startswith("Mass map against the controls") for caption in captions)


def test_maps_are_read_once(run, monkeypatch):
    first = stages.map_masses(run)
    monkeypatch.setattr(mass_map, "read", None)  # cannot be called
    assert stages.map_masses(run).equals(first)


def test_a_map_of_one_set_applied_to_another_knows_none_of_its_labels(run, exchange_labels, monkeypatch):
    """Its regressions are fitted on the validation part of the first set; the second one's images have other names."""
    other, fitted, probability = exchange_labels(run), [], mapping._Reader.probability
    for name in ("cases", "globals", "patches"):
        path = other.places.prepared / f"{name}.csv"
        table = pd.read_csv(path, dtype=str)
        table.assign(image_id="other " + table["image_id"]).to_csv(path, index=False)

    def note(reader, stage, odds, known, cases):
        fitted.append((stage, len(known), set(cases["id"])))
        return probability(reader, stage, odds, known, cases)

    monkeypatch.setattr(mapping._Reader, "probability", note)
    table = stages.transfer_map(other, run).set_index("stage")
    written = pd.read_csv(run.places.splits("official")).query("part == 'validation'").groupby("stage")["id"].agg(set)
    assert fitted == [(stage, len(written[stage]), written[stage]) for stage in ("P", "G")]
    assert table["cases"].to_dict() == {stage: len(stages.load(run, stage)[1]) for stage in ("P", "G")}
    assert (table["auc"] == 0).all()
    assert (run.places.results("transfer").parents[1] / "other/transfer/tiny/mass_map/seed0/G.csv").exists()


def test_a_validation_part_too_small_for_regressions_is_refused(run, monkeypatch):
    monkeypatch.setattr(mapping, "FOLDS", 6)
    with pytest.raises(ValueError, match=r"validation part of fold 0 has \d malignant and \d benign patients.* 6 "):
        stages.map_masses(run)


def test_a_split_that_parts_patches_from_images_is_refused(run, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match="one partition of the patients"):
        mapping.train_map(replace(run, protocol="as_written"), 0)


def test_a_network_is_trained_recorded_and_not_trained_again(tmp_path, trained_home, monkeypatch):
    """VGG16 with random weights for ImageNet's, one epoch; what it says of images is not looked at."""
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    few = MassMap(window=32, masses=8, backgrounds=1, epochs=1)
    experiment = stages.Experiment.of("tiny", "official", 0)
    experiment = replace(experiment, profile=replace(experiment.profile, mass_map=few))
    stages.load(experiment, "G")[1][["image_id", "label"]].to_csv(experiment.places.prepared / "cases.csv")
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    file = tmp_path / "data" / "weights" / "vgg16_imagenet_random.pth"
    file.parent.mkdir()
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, file)
    network = mapping.train_map(experiment, 0)
    record = paths.read_json(experiment.runs / MASS_MAP / "fold0-seed0" / "run.json")
    assert record["settings"]["mass_map"]["window"] == 32
    assert "vgg16_imagenet_random.pth" in record["initial_weights"]
    first, last = (network.state_dict()[name] for name in ("kept.0.weight", "taught.28.weight"))
    assert torch.equal(first, layers[0].weight)
    assert not torch.equal(last, layers[28].weight)
    again = mapping.train_map(experiment, 0)
    assert torch.equal(again.state_dict()["taught.28.weight"], last)
    assert paths.read_json(experiment.runs / MASS_MAP / "fold0-seed0" / "run.json") == record
    cases = experiment.places.prepared / "cases.csv"  # whose labels are the masses'; an image has the worst of its own
    table = pd.read_csv(cases)
    table.assign(label=1 - table["label"]).to_csv(cases)
    with pytest.raises(paths.StageMismatch, match=r"inputs\.labels: has changed"):
        mapping.train_map(experiment, 0)


def test_the_window_of_a_patch_is_found_in_a_crop_that_is_moved_scaled_and_padded():
    """A crop of 200 x 400 at (100, 50) in set G of 128 pixels: 0.32 of its size, 32 pixels of padding at the left.

    The window begins 50 pixels left of (200, 250) and above: (150 - 100) * 0.32 + 32 = 48 pixels, which is cell 3.
    """
    crop = {"crop_x": 100, "crop_y": 50, "crop_w": 200, "crop_h": 400}
    views = pd.DataFrame([{"image_id": "a", **crop}])
    one = Grid(np.zeros((1, 128, 128), np.uint8), np.ones((1, 8, 8), bool), [[]], [[]], views)
    patch = pd.DataFrame([{"image_id": "a", "centre_x": 200, "centre_y": 250, "window": 100}])
    assert one.windows(patch) == pytest.approx(np.array([[3.0, 3.0, 2.0, 2.0]]))
