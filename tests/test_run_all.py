"""run_all.sh and single notebooks, called wrongly or where they cannot work. The chain itself: test_notebooks.py."""

import fcntl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mammo_lib import notebooks

RunAll = Callable[..., subprocess.CompletedProcess[str]]


def test_a_second_run_at_once_is_refused(tmp_path: Path, run_all: RunAll) -> None:
    lock = tmp_path / "runs" / "tiny" / ".lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = run_all(tmp_path, "--profile", "tiny")
        by_force = run_all(tmp_path, "--profile", "tiny", "--force")
    assert (refused.returncode, by_force.returncode) == (1, 1)
    assert "another run of profile tiny is going on" in refused.stderr
    assert "run_all.sh runs here" in by_force.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--protocol", "oficial"], "unknown protocol 'oficial': choose one of as_written, official, grouped_cv"),
        (["--protocol=oficial"], "unknown protocol 'oficial': choose one of as_written, official, grouped_cv"),
        (["--profil=quick"], "unknown option --profil"),
        (["--profil", "quick"], "unknown option --profil"),
        (["--seed"], "--seed needs a value"),
    ],
)
def test_a_wrong_call_ends_in_one_sentence(
    tmp_path: Path, run_all: RunAll, arguments: list[str], sentence: str
) -> None:
    refused = run_all(tmp_path, *arguments)
    assert refused.returncode != 0
    assert sentence in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path, run_all: RunAll) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    refused = run_all(tmp_path, "--profile", "tiny")
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr
    assert str(tmp_path / "results") in refused.stderr


def test_a_misspelt_notebook_parameter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"06_published_numbers\.ipynb has no parameter profil: it declares profile"):
        notebooks.execute("06_published_numbers", {"profil": "tiny"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failing_notebook_names_the_copy_with_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(notebooks.NotebookFailed, match="unknown profile 'nonsense'") as failure:
        notebooks.execute("06_published_numbers", {"profile": "nonsense"}, tmp_path)
    copy = tmp_path / "06_published_numbers.ipynb"
    assert str(copy) in str(failure.value)
    assert "nonsense" in copy.read_text()
