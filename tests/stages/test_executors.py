"""Where work is done: processes that end with a cell, processes that are kept for images, and the GPUs they may use."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mammo_lib import stages
from mammo_lib.evaluation import removal
from mammo_lib.stages import experiment, explanation


@pytest.mark.parametrize(("small_jobs", "processes"), [(False, 4), (True, 1)])
def test_a_cell_has_a_process_of_its_own_and_images_share_one(small_jobs: bool, processes: int) -> None:
    with stages.executor(1, small_jobs=small_jobs) as executor:
        assert executor is not None
        found = {executor.submit(os.getpid).result() for _ in range(4)}
    assert len(found) == processes
    assert os.getpid() not in found


def test_no_workers_is_this_process() -> None:
    with stages.executor(0) as executor:
        assert executor is None


@pytest.mark.parametrize(
    ("granted", "count", "expected"),
    [(None, 0, []), (None, 2, ["0", "1"]), ("", 0, []), ("3,5", 2, ["3", "5"]), ("GPU-8932f937", 1, ["GPU-8932f937"])],
)
def test_only_gpus_that_were_granted_are_dealt_out(
    monkeypatch: pytest.MonkeyPatch, granted: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if granted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
    assert experiment.devices() == expected


class Counting(ThreadPoolExecutor):
    """Counts what it is given."""

    calls = 0

    def submit(self, *arguments: Any, **others: Any) -> Any:
        self.calls += 1
        return super().submit(*arguments, **others)


def test_explain_uses_the_executor_that_it_is_given(
    trained_home: Path, tmp_path: Path, copy_home: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With maps that point nowhere: what makes them is slow and tested elsewhere."""
    copy_home(trained_home, tmp_path / "home")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(explanation, "_maps", lambda *given: {explanation.GRADCAM: np.zeros(given[-1].shape)})
    monkeypatch.setattr(removal, "removal", lambda network, x, heat, seed, shares: np.zeros(len(x)))
    with Counting(1) as executor:
        table = stages.explain(stages.Experiment.of("tiny", "official", 0), executor)
    assert executor.calls == 1  # the official protocol has one fold
    assert explanation.GRADCAM in set(table["method"])


def test_a_package_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError('no', name='cv2')")
    environment = os.environ | {"MAMMO_CBAM_HOME": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    command = [sys.executable, "-m", "mammo_lib", "prepare", "--profile", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: step prepare needs cv2, which is not installed here\n"
