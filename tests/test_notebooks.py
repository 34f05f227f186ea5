"""The notebooks: thin, clean, and the whole chain of them run by run_all.sh on the tiny profile."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mammo_lib.config import get_profile

RunAll = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
READ_ARCHIVE = ("00_environment", "01_data_preparation")  # and may be told that a part of it will do
CHAIN = [path for path in NOTEBOOKS if path.stem != "07_explore"]


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_committed_without_outputs(path: Path) -> None:
    cells = code_cells(path)
    assert 6 <= len(cells) <= 15
    for cell in cells:
        lines = cell.source.splitlines()
        assert len(lines) <= 12
        assert not any(line.lstrip().startswith(("def ", "class ", "try:", "%pip", "!")) for line in lines)
        assert not cell.outputs
        assert cell.execution_count is None
    assert [cell.metadata.get("tags") for cell in cells].count(["parameters"]) == 1


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: path.stem)
def test_run_all_runs_every_notebook_and_all_declare_the_same_parameters(path: Path) -> None:
    assert f"\nrun {path.stem} " in (ROOT / "run_all.sh").read_text()
    tagged = next(cell for cell in code_cells(path) if cell.metadata.get("tags") == ["parameters"])
    reads_archive = ["allow_partial"] if path.stem in READ_ARCHIVE else []
    assert [line.split(" = ")[0] for line in tagged.source.splitlines()] == [
        "profile",
        "protocol",
        "seed",
        *reads_archive,
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, run_all: RunAll) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The whole chain on the tiny profile, once, from a folder that is not the repository."""
    home = tmp_path_factory.mktemp("home")
    return home, run_all(home, "--profile", "tiny")


def test_the_chain_runs_and_leaves_what_readers_look_for(tiny: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = tiny
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results, runs = home / "results" / "tiny" / "official", home / "runs" / "tiny" / "official"
    networks = len(get_profile("tiny").networks)
    assert sorted(path.stem for path in (runs / "notebooks").glob("*.ipynb")) == [path.stem for path in CHAIN]
    for name, cells in (("table1", networks), ("table2", 3 * networks)):
        blocks = pd.read_csv(results / f"{name}.csv")["block"].value_counts()
        assert blocks["network"] == cells
        assert blocks["baseline"] == 3
    drawn = {path.relative_to(home / "figures" / "tiny").as_posix() for path in home.glob("figures/tiny/**/*.p*")}
    assert {"fig2_views.pdf", "fig3_patch_and_global.png", "official/fig7_gradcam.pdf", "official/roc_P.png"} <= drawn
    page = (home / "results" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "Phantoms are not patients" in page.partition("<body")[2][:1500]
    assert "weights not available" in page


def test_a_second_run_ends_at_once(tiny: tuple[Path, subprocess.CompletedProcess[str]], run_all: RunAll) -> None:
    again = run_all(tiny[0], "--profile", "tiny")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "nothing has changed since the last run" in again.stdout


def test_what_is_lost_is_made_again_and_no_more_and_the_exit_status_tells_what_was_not(
    tiny: tuple[Path, subprocess.CompletedProcess[str]], run_all: RunAll
) -> None:
    """Nothing is trained anew. Without a network to explain notebook 05 fails, which no later step needs."""
    home, _ = tiny
    records = sorted((home / "runs").rglob("run.json")) + sorted((home / "runs").rglob("predictions.csv"))
    assert len(records) == 2 * (6 + 12)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in records}
    cell, results = "G/resnet50_cbam/patch/fold0-seed0", home / "results" / "tiny"
    weights, lost = (
        home / "runs/tiny/official" / cell / "best.pt",
        (results / "official/table1.csv", results / "report.html"),
    )
    kept = weights.read_bytes()
    for path in (weights, *lost):
        path.unlink()
    try:
        run = run_all(home, "--profile", "tiny")
    finally:
        weights.write_bytes(kept)
    assert run.returncode == 1
    assert f"{cell}/best.pt" in run.stderr
    assert run.stderr.endswith("error: 05_gradcam failed, see above; everything else is made\n")
    assert all(path.exists() for path in lost)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in records} == before
