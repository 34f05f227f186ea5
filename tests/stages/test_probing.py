"""The probe from set G to predictions, on made-up descriptions: fitted on training cases alone, right on the rest."""

import hashlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammo_lib import paths, stages
from mammo_lib.config import Probe
from mammo_lib.evaluation import predictions
from mammo_lib.stages import probing


@pytest.fixture
def run(tmp_path, trained_home, monkeypatch):
    """conftest's images in 7 x 7 cells, whose description says in channel 0 where the mass is and in 1 what it is."""
    shutil.copytree(trained_home / "data", tmp_path / "data")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    views = stages.load(experiment, "G")[1]
    views[["image_id", "label"]].to_csv(experiment.places.prepared / "cases.csv", index=False)
    described = np.random.default_rng(0).random((len(views), 7, 7, 3)) * 0.2
    described[:, 3, 1:3, 0] += 1
    described[:, 3, 1:3, 1] += views["label"].to_numpy()[:, None]
    for start in range(0, len(views), probing.IMAGES_AT_ONCE):
        np.save(tmp_path / f"{start:06d}.npy", described[start : start + probing.IMAGES_AT_ONCE].astype(np.float16))
    paths.write_json(tmp_path / "trunk.json", {"initial_weights": "made up", "sha256": "0" * 64})
    monkeypatch.setattr(probing, "describe", lambda *_: tmp_path)
    few = Probe(patch_strength=1.0, image_strength=1.0, cell_strength=1.0)  # for few images, less is to be held back
    return replace(experiment, profile=replace(experiment.profile, probe=few))


@pytest.mark.parametrize("stage", ["P", "G"])
def test_predictions_are_complete_and_right_where_the_descriptions_tell(run, stage):
    path = run.results / "probe" / stage / "fold0.csv"
    assert path in stages.probe(run)
    wanted = stages.parts(run, stage).query("part != 'train'")
    found = predictions.read(path, wanted[["id", "label", "part", "patient_id"]])
    assert ((found["probability"] > 0.5) == (found["label"] == 1)).all()


def test_its_record_says_which_weights_and_which_images(run):
    stages.probe(run)
    record = paths.read_json(run.results / "probe" / "run.json")
    assert record["settings"]["trunk"]["initial_weights"] == "made up"
    split = hashlib.sha256(run.places.splits("official").read_bytes()).hexdigest()
    assert record["settings"]["inputs"]["G"]["split"] == split
    assert record["settings"]["probe"]["patch_strength"] == 1.0
    assert record["versions"]["torch"]


def test_nothing_is_learnt_from_validation_and_test_labels(run):
    before = [pd.read_csv(path) for path in stages.probe(run)]
    rest = stages.parts(run, "G").query("part != 'train'")["image_id"]
    for name in ("cases", "globals", "patches"):
        path = run.places.prepared / f"{name}.csv"
        table = pd.read_csv(path, dtype={"patient_id": str})
        table["label"] ^= table["image_id"].isin(rest).astype(int)
        table.to_csv(path, index=False)
    for old, new in zip(before, map(pd.read_csv, stages.probe(run)), strict=True):
        assert (old["label"] != new["label"]).all()
        assert old["probability"].equals(new["probability"])


def test_the_choice_of_a_reading_looks_at_no_test_case(run, monkeypatch):
    seen = []
    inside = probing._Described.__getitem__
    monkeypatch.setattr(probing._Described, "__getitem__", lambda self, row: seen.append(row) or inside(self, row))
    monkeypatch.setattr(probing, "FOLDS", 2)
    table = stages.choose_reading(run).set_index("reading")
    test = stages.parts(run, "G").query("part == 'test'")["row"]
    views = len(stages.load(run, "G")[1])
    assert set(seen).isdisjoint(test)
    assert table["images"].eq(views - len(test)).all()
    assert table.loc["both", "auc"] == 1


def test_the_choice_of_a_reading_ranks_no_fit_against_another(run, monkeypatch):
    """Each fit puts malignant images above benign ones, and all of its images far from those of the fit before."""
    views, fits = stages.load(run, "G")[1], iter(range(0, 200, 100))

    def fit(*_: object) -> SimpleNamespace:
        level = next(fits)
        return SimpleNamespace(log_odds=lambda row: (level + views["label"][row],) * 2)

    monkeypatch.setattr(probing, "_fit_images", fit)
    monkeypatch.setattr(probing._Described, "__getitem__", lambda self, row: (row,))
    monkeypatch.setattr(probing, "_samples", lambda *_: {})
    monkeypatch.setattr(probing, "FOLDS", 2)
    assert stages.choose_reading(run)["auc"].eq(1).all()


def test_a_probe_of_one_set_applied_to_another_knows_none_of_its_labels(run, exchange_labels):
    """Every case of the second set is scored; here it is the first one with all labels exchanged: wrong throughout."""
    other = exchange_labels(run)
    table = stages.transfer_probe(other, run).set_index("stage")
    views, patches = (len(stages.load(run, stage)[1]) for stage in ("G", "P"))
    assert table["cases"].to_dict() == {"P": patches, "G": views}
    assert (table["auc"] == 0).all()
    assert (run.places.results("transfer").parents[1] / "other" / "transfer" / "tiny" / "probe" / "G.csv").exists()


def test_a_probe_of_one_set_looks_at_the_images_of_the_other(run, exchange_labels, tmp_path, monkeypatch):
    """All labels of the second set are exchanged, and so is what its descriptions say of them: right throughout."""
    other, folder = exchange_labels(run), tmp_path / "other"
    views = stages.load(other, "G")[1]
    folder.mkdir()
    for file in tmp_path.glob("0*.npy"):
        described, labels = np.load(file), views["label"].to_numpy()[int(file.stem) :]
        described[:, 3, 1:3, 1] += 2 * labels[: len(described), None] - 1
        np.save(folder / file.name, described)
    monkeypatch.setattr(probing, "describe", lambda experiment, *_: folder if experiment == other else tmp_path)
    assert (stages.transfer_probe(other, run)["auc"] == 1).all()
    known = stages.parts(run, "G").query("part == 'train'")
    odds = probing.whole_log_odds(run, known, other, views.assign(row=range(len(views))))
    assert roc_auc_score(views["label"], odds) == 1
