"""The steps from a shell: one sentence on standard error for what the library foresees, and the exit status."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib import __main__ as shell
from mammo_lib import stages
from mammo_lib.config import PROFILES, get_profile
from mammo_lib.data import cases
from mammo_lib.training.folder import CELL_CLAIM, TRAINING_CLAIM, FolderBusy, alone_in, at_work, claim

ROOT = Path(__file__).parent.parent
CELLS = 4 * len(get_profile("tiny").networks)  # one on P, three on G of each
Call = Callable[..., subprocess.CompletedProcess[str]]


def in_a_process(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"MAMMO_CBAM_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)}
    command = [sys.executable, "-m", "mammo_lib", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The same without a process of its own, which would import everything anew; its outputs below `tmp_path`."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    for name in ("MAMMO_CBAM_ARCHIVE", "MAMMO_CBAM_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["mammo_lib", *arguments])
        capsys.readouterr()
        status = shell.main()
        told = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, told.out, told.err)

    return called


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["evaluate", "--profile", "tiny"],
            "the split is not drawn: run `python -m mammo_lib split --profile tiny --protocol official` (01) first",
        ),
        (
            ["split", "--profile", "tiny"],
            "the data is not prepared: run `python -m mammo_lib prepare --profile tiny --protocol official` (01) first",
        ),
        (["report", "--profile", "tiny"], "the split is not drawn"),
        (
            ["train", "--profile", "tiny", "--cells", "Q/*"],
            f"no cell is called 'Q/*': the first of {CELLS} is P/vgg16/",
        ),
        *(
            ([*step, "--profile", "reduced-cpu", "--learnt-on", "reduced"], "reduced-cpu and reduced are of the same")
            for step in (["transfer"], ["probe"], ["map"])
        ),
        (["transfer", "--learnt-on", "tiny"], f"none of {CELLS} cells is trained: train profile tiny first"),
        (["transfer", "--learnt-on", ""], "unknown profile ''"),
        (["check", "--profile", "nano"], "unknown profile 'nano': choose one of quick, paper"),
        (
            ["check", "--protocol", "oficial"],
            "unknown protocol 'oficial': choose one of as_written, official, grouped_cv",
        ),
        (["train", "--profile", "tiny", "--workers", "-2"], "workers is -2: give 0 or a positive number"),
        (["check", "--seed", "-1"], "seed is -1: give 0 or a positive number"),
        (["notebook", "99_nothing"], "unknown notebook '99_nothing': choose one of 00_environment"),
        (["check", "--profile", "paper"], "data/CBIS-DDSM: the archive of profile paper"),
        (["check", "--profile", "own", "--protocol", "grouped_cv"], "(a folder with cases.csv, whose columns"),
    ],
)
def test_what_is_foreseen_is_one_sentence(call: Call, arguments: list[str], sentence: str) -> None:
    done = call(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_help_of_run_all_names_every_profile() -> None:
    told = subprocess.run([ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True).stdout
    named = set(told.partition("\n  --profile ")[2].partition("\n  --protocol ")[0].split())
    assert not set(PROFILES) - named, "give each a line in the help of run_all.sh"


def test_an_archive_with_a_hole_stops_unless_a_part_will_do(tmp_path: Path, call: Call) -> None:
    archive = tmp_path / "data" / "own"
    archive.mkdir(parents=True)
    y, x = np.ogrid[:300, :220]
    film = np.where(((y - 150) / 110) ** 2 + (x / 140) ** 2 < 1, 90, 1).astype(np.uint8)
    about = {"side": "LEFT", "view": "CC", "box_x": 40, "box_y": 130, "box_w": 30, "box_h": 40, "source": "drawn"}
    rows = []
    for number in range(3):
        ids = {"mass_id": f"m{number}", "image_id": f"i{number}", "patient_id": f"p{number}", "label": number % 2}
        rows.append(dict.fromkeys(cases.COLUMNS, "") | ids | about | {"image_path": f"{number}.png"})
        cv2.imwrite(str(archive / f"{number}.png"), film)
    cases.write(cases.table(rows, "drawn"), archive / "cases.csv")
    (archive / "1.png").unlink()
    for step in ("integrity", "prepare"):
        refused = call(step, "--profile", "own")
        assert refused.returncode == 1
        assert "1 of 3 masses cannot be used, first: m1: 1.png is not on disk" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    done = call("prepare", "--profile", "own", "--allow-partial")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 images with 2 masses, 16 patches, in ")
    assert done.stdout.endswith("masses set aside: 1, listed in problems.csv\n")
    assert "m1,read,1.png,1.png is not on disk" in (tmp_path / "data/prepared/own/problems.csv").read_text()
    cv2.imwrite(str(archive / "1.png"), film)
    mixed = call("prepare", "--profile", "own")
    assert mixed.returncode == 1
    assert "masses: was 2, is 3" in mixed.stderr


def test_train_ends_with_counts_and_with_what_came_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    rows = [("a", "done", "random"), ("b", "done", "random"), ("c", "not available", "no file"), ("d", "failed", "why")]
    nothing = ["not available: c: no file", "failed: d: why"]
    for count, status, told in (
        (4, 1, ["2 done; 1 not available; 1 failed", *nothing]),
        (3, 0, ["2 done; 1 not available", nothing[0]]),
        (2, 0, ["2 done"]),
    ):
        table = pd.DataFrame(rows[:count], columns=["cell", "state", "message"])
        monkeypatch.setattr(stages, "train", lambda *_, table=table, **__: table)
        assert shell.run(shell.parser().parse_args(["train", "--profile", "tiny"])) == status
        assert capsys.readouterr().out.splitlines() == told


def test_a_terminal_is_told_where_the_rest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    run = stages.Experiment.of("tiny", "official", 0)
    found = pd.DataFrame({"name": ["masses set aside"], "found": [2], "ids": ["m1, m2"]})
    measured = pd.DataFrame({"group": ["all", "benign, wrong"], "mean": [0.5, 0.25]})
    for step, result, shown, hidden, file in (
        ("integrity", found, "masses set aside", "m1", "integrity.csv"),
        ("explain", measured, "0.5", "benign", "localisation.csv"),
        ("evaluate", {"table1": None}, "table1", "None", ""),
        ("overview", found, "1 comparisons", "m1", "../../overview.csv"),
    ):
        told = shell._told(step, result, run)
        assert shown in told
        assert hidden not in told
        assert os.path.normpath(run.results / file) in told


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """`status | head`: what reads is gone before the step writes."""
    command = [sys.executable, "-m", "mammo_lib", "status", "--profile", "tiny"]
    environment = {"MAMMO_CBAM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_traceback_is_there_for_who_asks_and_nothing_but_the_sentence_for_others(tmp_path: Path) -> None:
    """In processes of their own, whose standard error holds what any library says too."""
    done = in_a_process(tmp_path, "--traceback", "split", "--profile", "tiny")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    done = in_a_process(tmp_path, "split", "--profile", "tiny")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/data/prepared/tiny/prepare.json: the data is not prepared: ")
    assert len(done.stderr.splitlines()) == 1


def test_forget_deletes_what_was_made_and_never_an_archive_of_the_user(tmp_path: Path, call: Call) -> None:
    archive, results = tmp_path / "data" / "CBIS-DDSM", tmp_path / "results" / "paper" / "official"
    other = tmp_path / "results" / "paper" / "grouped_cv"
    prepared, applied = tmp_path / "data" / "prepared" / "paper", tmp_path / "results" / "paper" / "transfer"
    for folder in (archive, results, other, prepared, applied):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    reports = [results.parent / name for name in ("report.html", "report_grouped_cv.html")]
    for report in reports:
        report.touch()
    assert call("forget", "--profile", "paper").returncode == 0
    assert (archive / "file").exists()
    assert (other / "file").exists()
    assert not results.exists()
    assert [report.exists() for report in reports] == [False, True]
    assert not prepared.exists()
    assert not applied.exists(), "other networks' predictions of the cases that were prepared"


def test_forget_leaves_a_run_of_run_all_that_is_under_way(tmp_path: Path, call: Call) -> None:
    """Between two trainings, too: no cell is claimed there, and the lock is that of test_run_all.py."""
    made = tmp_path / "runs" / "paper" / "official" / "notebooks"
    made.mkdir(parents=True)
    with open(tmp_path / "runs" / "paper" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = call("forget", "--profile", "paper")
        assert refused.returncode == 1
        assert "a process trains or run_all.sh runs here" in refused.stderr
        assert made.exists()
    assert call("forget", "--profile", "paper").returncode == 0
    assert not made.exists()


@pytest.mark.parametrize("lock", [CELL_CLAIM, TRAINING_CLAIM], ids=["a cell", "another training, of tune"])
def test_forget_leaves_a_training_that_is_under_way(lock: str, tmp_path: Path, call: Call) -> None:
    cell = tmp_path / "runs" / "paper" / "official" / "P" / "resnet50" / "random" / "fold0-seed1"
    with claim(cell, lock):
        done = call("forget", "--profile", "paper")
        assert done.returncode == 1
        assert f"error: {cell}: a process trains or run_all.sh runs here" in done.stderr
        assert cell.exists()
    assert call("forget", "--profile", "paper").returncode == 0
    assert not cell.exists()


def test_forget_leaves_trainings_whose_workers_only_start(tmp_path: Path, call: Call) -> None:
    """No cell is claimed then. Several processes may train, and other protocols read the same prepared data."""
    runs = tmp_path / "runs" / "paper" / "official"
    (runs / "P").mkdir(parents=True)
    with at_work(runs.parent), at_work(runs.parent):
        for protocol in ("official", "as_written"):
            done = call("forget", "--profile", "paper", "--protocol", protocol)
            assert done.returncode == 1
            assert f"error: {runs.parent}: another process trains here" in done.stderr
        assert (runs / "P").exists()
    with alone_in(runs.parent), pytest.raises(FolderBusy, match="what is here is being deleted"), at_work(runs.parent):
        pass
    assert call("forget", "--profile", "paper").returncode == 0
    assert not runs.exists()


@pytest.mark.parametrize("workers", ["four", "-2", ""])
def test_run_all_refuses_workers_that_are_no_number_before_anything_is_made(workers: str, tmp_path: Path) -> None:
    environment = {"MAMMO_CBAM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [ROOT / "run_all.sh", "--workers", workers]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"--workers is '{workers}'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_every_step_has_help_and_names_profiles_and_protocols(capsys: pytest.CaptureFixture[str]) -> None:
    for step in shell.STEPS:
        with pytest.raises(SystemExit) as done:
            shell.parser().parse_args([step, "--help"])
        assert done.value.code == 0
        shown = capsys.readouterr().out
        assert "grouped_cv" in shown
        assert "reduced" in shown


def test_preparing_splitting_and_auditing_import_no_torch(tmp_path: Path) -> None:
    """Heavy imports of one step do not load for another."""
    code = (
        "import sys\n"
        "from mammo_lib import stages\n"
        "from mammo_lib.stages import published\n"
        "published.DRAWN = 9\n"  # draws for the audit: what it imports does not depend on how many
        "experiment = stages.Experiment.of('tiny', 'official', 0)\n"
        "print(len(stages.read_archive(experiment).cases), stages.prepare(experiment).patches)\n"
        "stages.split(experiment)\n"
        "stages.audit(experiment)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    environment = {"MAMMO_CBAM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    masses, patches = map(int, done.stdout.split())
    assert patches == 4 * masses


def test_the_probe_is_not_asked_two_things_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shell.parser().parse_args(["probe", "--choose", "--learnt-on", "reduced"])
    assert "not allowed with argument --choose" in capsys.readouterr().err
