"""run.json: everything a number depends on, and what trained it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import numpy
import psutil
import pytest
import tiny_training as tiny
import torch

from mammo_lib import config, paths
from mammo_lib.training import records
from mammo_lib.training.experiments import Cell

CELL = Cell("official", "G", "vgg16", "scratch", seed=4)
PAPER = config.PROFILES["paper"]


def test_settings_name_what_differs(tmp_path):
    before = records.cell_settings(CELL, PAPER, {"images": "abc"})
    assert before == json.loads(json.dumps(before))
    assert before["training"]["learning_rate"] == 0.01
    assert before["size"] == 512
    paths.write_json(tmp_path / "run.json", {"settings": before})
    assert paths.is_done(tmp_path / "run.json", before)
    with pytest.raises(paths.StageMismatch, match=r"inputs\.images: was 'abc', is 'abd'"):
        paths.is_done(tmp_path / "run.json", records.cell_settings(CELL, PAPER, {"images": "abd"}))
    reduced = records.cell_settings(CELL, config.PROFILES["quick"], {"images": "abc"})
    assert any(line.startswith("size: was 512, is 128") for line in paths.differences(before, reduced))


def test_a_normalised_gate_is_a_setting_where_there_is_one_and_records_from_before_it_still_hold():
    normalised = replace(PAPER, cbam=replace(PAPER.cbam, normalised=True))
    attentive = replace(CELL, network="vgg16_cbam")
    assert records.cell_settings(attentive, PAPER, {})["cbam"] == {"reduction": 16, "spatial_kernel": 7}
    assert records.cell_settings(attentive, normalised, {})["cbam"]["normalised"] is True
    assert records.cell_settings(CELL, normalised, {}) == records.cell_settings(CELL, PAPER, {})


def test_a_record_says_what_where_when_and_how_fast(tmp_path, monkeypatch):
    begun = records.Begun()
    history = tiny.train(tmp_path / "cell")
    found = records.record(records.cell_settings(CELL, PAPER, {}), history, "cpu", begun)
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 4
    assert found["epochs"] == tiny.SETTINGS.max_epochs
    assert found["best_epoch"] == history.best.epoch
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["versions"]["numpy"] == numpy.__version__
    assert datetime.fromisoformat(found["started"]) <= datetime.fromisoformat(found["ended"])
    assert psutil.Process().memory_info().rss * 0.5 < found["peak_memory_bytes"] < psutil.virtual_memory().total
    assert found["images_per_second"] == pytest.approx(history.images_per_second, rel=0.01)
    assert found["device"].startswith("cpu (")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_gits_and_says_when_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit(tmp_path) == ""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "v1")
    assert records.commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert records.commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert records.commit(tmp_path) == ""


def test_matrix_and_records_load_without_torch():
    """`status` on a login node should not take seconds."""
    code = "import sys, mammo_lib.training.records, mammo_lib.training.experiments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0
