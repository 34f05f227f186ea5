"""From an archive to the cases that the evaluation expects, where the ids of a user's data look like numbers."""

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mammo_lib import paths, stages
from mammo_lib.__main__ import main
from mammo_lib.config import DATA_SEED
from mammo_lib.data import cases, streaming
from mammo_lib.data import prepare as room
from mammo_lib.data.prepare import PrepareError, PrepareSummary
from mammo_lib.stages import archive, pictures
from mammo_lib.stages.archive import MASSES, lesion_masks
from mammo_lib.stages.experiment import read_table
from mammo_lib.stages.grid import Grid

PATIENTS = 10  # two a fold


def prepare(experiment: stages.Experiment) -> PrepareSummary:
    """Without processes: to start them takes longer than ten images."""
    with ThreadPoolExecutor(1) as executor:
        return stages.prepare(experiment, executor)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stages.Experiment]:
    """Data of a user's own, prepared and split, whose ids are digits, some with zeros in front."""
    home = tmp_path_factory.mktemp("own")
    folder = home / "data" / "own"
    folder.mkdir(parents=True)
    y, x = np.ogrid[:300, :220]
    about = {"side": "LEFT", "view": "CC", "box_x": 40, "box_y": 130, "box_w": 30, "box_h": 40, "source": "drawn"}
    rows = []
    for number in range(PATIENTS):
        ids = {"mass_id": f"0{number}1", "image_id": f"0{number}", "patient_id": str(number), "label": number % 2}
        theirs = {"image_path": f"{number}.png", "fold": "west", "part": "left breast"}  # columns that we use too
        rows.append(dict.fromkeys(cases.COLUMNS, "") | ids | about | theirs)
        film = np.where(((y - 150) / (90 + 2 * number)) ** 2 + (x / 140) ** 2 < 1, 90 + 5 * number, 1)
        cv2.imwrite(str(folder / f"{number}.png"), film.astype(np.uint8))
    cases.write(cases.table(rows, "drawn"), folder / "cases.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMMO_CBAM_HOME", str(home))
        made = stages.Experiment.of("own", "grouped_cv", 0)
        prepare(made)
        stages.split(made)
        yield made


def test_ids_of_digits_stay_as_the_user_wrote_them(experiment: stages.Experiment) -> None:
    images = {f"0{number}" for number in range(PATIENTS)}
    assert set(archive.expected(experiment, "G")["id"]) == images
    assert set(archive.expected(experiment, "P")["mass_id"]) == {f"{image}1" for image in images}
    masses = read_table(experiment.results / MASSES)
    assert set(masses["image_id"]) == images
    assert set(masses["patient_id"]) == {str(number) for number in range(PATIENTS)}
    assert set(masses["part"]) == {"train", "validation", "test"}
    assert set(masses["fold"]) == set(range(5))


def test_prepared_images_that_are_gone_are_named(experiment: stages.Experiment) -> None:
    path = experiment.places.prepared / "globals.npy"
    aside = path.rename(path.with_suffix(".aside"))
    with pytest.raises(FileNotFoundError, match=r"globals\.npy: was prepared, and is not there: delete prepare\.json"):
        stages.load(experiment, "G")
    aside.rename(path)
    assert len(stages.load(experiment, "G")[0]) == PATIENTS


def test_images_of_digits_are_found_by_what_reads_them(experiment: stages.Experiment) -> None:
    whole = stages.parts(experiment, "G").query("fold == 0 and part == 'test'")
    grid = Grid.of(experiment)
    assert grid.rows_of(whole).tolist() == whole["row"].tolist()
    assert [grid.labels[row] for row in whole["row"]] == [[label] for label in whole["label"]]
    assert lesion_masks(experiment, whole) == [None] * len(whole)  # boxes alone were given


def test_a_number_in_a_table_stays_one(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["007"], "row": [3], "note": [""]}).to_csv(tmp_path / "table.csv", index=False)
    assert read_table(tmp_path / "table.csv").iloc[0].tolist() == ["007", 3, ""]


def test_a_network_without_a_label_is_refused_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("tiny", "official", 0)
    stages.check(run)
    with pytest.raises(ValueError, match=r"names the network 'densenet', which has no label: .*NETWORK_LABELS"):
        stages.check(replace(run, profile=replace(run.profile, networks=("vgg16", "densenet"))))


def test_the_door_says_what_would_run_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("MAMMO_CBAM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fine, *missing = stages.check(stages.Experiment.of("quick", "official", 0)).splitlines()
    assert fine.startswith("profile quick (")
    assert fine.endswith(f"protocol official: trains on {'cuda' if torch.cuda.is_available() else 'cpu'}")
    assert [name for name in ("vgg16", "inception_v3", "resnet50") for line in missing if name in line] == [
        "vgg16",
        "inception_v3",
        "resnet50",
    ]
    assert not list(tmp_path.iterdir())


def test_an_archive_of_another_kind_is_refused_before_its_headers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people may point profile `paper` at: another data set, the tables alone, the images alone."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MAMMO_CBAM_ARCHIVE", str(tmp_path / "archive"))
    paper, csv = stages.Experiment.of("paper", "official", 0), tmp_path / "archive" / "csv"
    csv.mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"mass_case_description_train_set\.csv and .* missing: put the official"
    ):
        stages.check(paper)
    for part in ("train", "test"):
        (csv / f"mass_case_description_{part}_set.csv").write_text("nobody reads it yet")
    with pytest.raises(FileNotFoundError, match=r"archive: holds neither DICOM files .* nor csv/dicom_info\.csv"):
        stages.check(paper)
    (tmp_path / "archive" / "1-1.dcm").write_bytes(b"nor this")
    assert "protocol official" in stages.check(paper)


def test_phantoms_and_another_source_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("tiny", "official", 0)
    with pytest.raises(ValueError, match=r"draws phantoms and has the source 'table': give it phantom=None"):
        stages.check(replace(run, profile=replace(run.profile, source="table")))


def test_a_source_that_nobody_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("own", "grouped_cv", 0)
    with pytest.raises(ValueError, match=r"source 'inbreast': choose one of .*CONTRIBUTING"):
        stages.check(replace(run, profile=replace(run.profile, source="inbreast")))


def test_masses_that_cannot_be_cut_stop_a_run_unless_a_part_will_do(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(experiment.places.archive, tmp_path / "data" / "own")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    path = tmp_path / "data" / "own" / "cases.csv"
    table = cases.read(path)
    table.loc[0, "box_w"] = 500  # beyond the image
    cases.write(table, path)
    with pytest.raises(PrepareError, match=r"1 of 10 masses cannot be used, more than the 1% .*\(--allow-partial"):
        prepare(experiment)
    summary = prepare(replace(experiment, allow_partial=True))
    assert (summary.masses, summary.set_aside) == (PATIENTS - 1, 1)


def test_a_users_table_that_cannot_be_split_is_refused_before_its_images_are_read(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.check(experiment)
    with pytest.raises(
        ValueError, match=r"own \(a table, cases\.csv\): official_split of 0. is '', .* use the protocol grouped_cv"
    ):
        stages.check(replace(experiment, protocol="official"))
    own = shutil.copytree(experiment.places.archive, tmp_path / "own")
    table = cases.read(own / "cases.csv")
    cases.write(table.assign(label=0), own / "cases.csv")
    monkeypatch.setenv("MAMMO_CBAM_ARCHIVE", str(own))
    with pytest.raises(ValueError, match=r"cases\.csv\): grouped_cv: 0 malignant patients cannot fill 5 folds"):
        stages.check(experiment)


def test_an_archive_that_cannot_be_split_is_refused_before_its_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mini-MIAS with two of its masses, one of each class."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    archive = tmp_path / "data" / "mini-MIAS"
    archive.mkdir(parents=True)
    (archive / "Info.txt").write_text("mdb001 G CIRC B 500 400 50\nmdb003 F SPIC M 500 400 40\n")
    for name in ("mdb001.pgm", "mdb003.pgm"):
        (archive / name).write_bytes(b"no image: nobody looks at it")
    experiment = stages.Experiment.of("mias-cpu-imagenet", "grouped_cv", 0)
    with pytest.raises(ValueError, match=r"mini-MIAS \(mini-MIAS\): grouped_cv: 1 benign patients cannot fill 5 folds"):
        stages.check(experiment)
    with pytest.raises(ValueError, match="has no official split: choose --protocol grouped_cv or as_written"):
        stages.check(replace(experiment, protocol="official"))


def test_a_part_of_a_users_files_passes_the_door_when_it_will_do(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eleven patients; of the last one the image is missing. Through the command line, as run_all.sh calls it."""
    own = shutil.copytree(experiment.places.archive, tmp_path / "own")
    table = cases.read(own / "cases.csv")
    one = table.iloc[[0]].assign(mass_id="x1", image_id="x", patient_id="x", image_path="x.png")
    cases.write(pd.concat([table, one]), own / "cases.csv")
    monkeypatch.setenv("MAMMO_CBAM_ARCHIVE", str(own))
    door = ["mammo_lib", "check", "--profile", "own", "--protocol", "grouped_cv"]
    monkeypatch.setattr(sys, "argv", door)
    assert main() == 1
    assert "x1: x.png is not on disk" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*door, "--allow-partial"])
    assert main() == 0


def test_what_preparing_set_aside_is_in_the_integrity_table(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(experiment.places.archive, tmp_path / "data" / "own")
    table = cases.read(own / "cases.csv")
    cases.write(table.assign(box_x=[900, *table["box_x"][1:]]), own / "cases.csv")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = replace(experiment, allow_partial=True)
    assert prepare(run).set_aside == 1
    findings = stages.integrity(run).set_index("name")
    assert findings.loc["masses set aside", ["found", "ids"]].tolist() == [1, "001"]


def test_what_was_set_aside_is_told_in_results_without_the_folders_of_this_machine(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(experiment.places.archive, tmp_path / "data" / "own")
    (own / "0.png").write_bytes(b"no image")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = replace(experiment, allow_partial=True, protocol="as_written")
    prepare(run)
    stages.split(run)
    there, told = (pd.read_csv(folder / "problems.csv", dtype=str) for folder in (run.places.prepared, run.results))
    assert told["id"].tolist() == ["001"]
    assert there["reason"].tolist() == [f"{own}/0.png: {told['reason'][0].partition(': ')[2]}"]
    assert told["reason"][0].startswith("data/own/0.png: ")


def test_a_streamed_archive_is_not_prepared_again_without_its_originals(
    experiment: stages.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets of other settings, sets that changed, sets that are gone: each time the way back is another download."""
    table = cases.read(experiment.places.prepared / "cases.csv")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("paper", "official", 0)
    cases.write(table, run.places.archive / streaming.CASES)
    paths.write_table(cases.problem_table([]), run.places.archive / streaming.PROBLEMS)
    hashes = {"globals.npy": "0"}
    made = {"settings": room.settings(table, run.places.archive, run.profile, DATA_SEED), "hashes": hashes}
    old = {"settings": made["settings"] | {"extraction": 1}, "hashes": hashes}
    record = run.places.prepared / "prepare.json"
    for content, told in ((old, "extraction: was 1"), (made, "globals.npy, which was prepared, is not there")):
        paths.write_json(record, content)
        with pytest.raises((paths.StageMismatch, PrepareError), match=f"{told}.*download --stream --yes"):
            stages.prepare(run)
    record.unlink()
    with pytest.raises(FileNotFoundError, match=r"the data is not prepared.*download --stream --yes"):
        stages.prepare(run)
    assert not (run.places.prepared / "problems.csv").exists()


def test_fig_2_shows_one_image_of_a_view_with_its_own_boxes() -> None:
    """A patient of a user's own table may have two images of one side and view."""
    rows = [("a", "LEFT", "CC"), ("a", "LEFT", "CC"), ("b", "LEFT", "CC"), ("c", "RIGHT", "MLO")]
    table = pd.DataFrame(rows, columns=["image_id", "side", "view"]).assign(patient_id="1", label=1)
    shown = pictures._views_of_one_patient(table)
    assert {key: found["image_id"].tolist() for key, found in shown.items()} == {
        ("LEFT", "CC"): ["a", "a"],
        ("RIGHT", "MLO"): ["c"],
    }


def test_a_folder_of_someone_elses_is_not_taken_for_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    experiment = stages.Experiment.of("tiny", "official", 0)
    mine = experiment.places.archive / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    with pytest.raises(FileExistsError, match="there is something here already"):
        stages.read_archive(experiment)
    assert mine.read_text() == "kept"
