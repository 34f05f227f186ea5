"""The script for Slurm, as far as it goes without one."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue", reason="it comes with the extra 'cluster'")
SLURM = Path(__file__).parent.parent / "examples" / "slurm.py"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the script with its outputs below `tmp_path`; gives its exit status."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))

    def called(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["slurm.py", "--profile", "tiny", *arguments])
        status: int = runpy.run_path(str(SLURM))["main"]()
        return status

    return called


def test_a_job_has_one_gpu_and_trains_one_cell_at_a_time(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--dry-run", "--cpus", "6", "--queue", "night", "--walltime", "01:00:00") == 0
    script = capsys.readouterr().out
    for line in ("-p night", "-t 01:00:00", "-n 1", "--cpus-per-task=6", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "export OMP_NUM_THREADS=6\n" in script
    assert "--nthreads 1 " in script
    assert "--nworkers" not in script, "one process"


def test_no_job_is_asked_for_before_the_data_are_there(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # where Slurm's own commands would be
    assert call() == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "run `python -m mammo_lib prepare --profile tiny --protocol official` (01) first" in said
