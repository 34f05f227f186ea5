"""Atomic writes and the question whether a stage is done."""

import hashlib
from pathlib import Path

import pytest

from mammo_lib import paths
from mammo_lib.config import get_profile


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    paths.write_text(target, "old")
    writer = paths.atomic_write(target)
    writer.__enter__().write_text("half of the n")
    assert not writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # not swallowed
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mammogram")
    assert paths.file_hash(tmp_path / "file") == hashlib.sha256(b"mammogram").hexdigest()


def test_a_stage_is_done_with_the_same_settings_only(tmp_path: Path) -> None:
    record, profile = tmp_path / "run.json", get_profile("quick")
    settings = {"patches": profile.patches, "seed": 0}
    assert not paths.is_done(record, settings)
    paths.write_json(record, {"settings": paths.plain(settings)})
    assert paths.is_done(record, settings)
    with pytest.raises(paths.StageMismatch, match=r"patches\.size: was 80, is 224; seed: was 0, is 1"):
        paths.is_done(record, {"patches": get_profile("paper").patches, "seed": 1})
    with pytest.raises(paths.StageMismatch, match=r"\(new: was None, is 1\)"):
        paths.is_done(record, settings | {"new": 1})
    with pytest.raises(paths.StageMismatch, match=r"\(seed: was 0, is None\)"):
        paths.is_done(record, {"patches": profile.patches})
    paths.write_json(record, {"settings": {"files": 64 * "a"}})
    with pytest.raises(paths.StageMismatch, match=r"\(files: has changed\)"):
        paths.is_done(record, {"files": 64 * "b"})
    with pytest.raises(paths.StageMismatch, match=r"\(files: was 'a{64}', is None\)"):
        paths.is_done(record, {})


def test_home_and_archive_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("MAMMO_CBAM_ARCHIVE", "/elsewhere")
    assert paths.Places.of(get_profile("paper")).archive == Path("/elsewhere")
    # A phantom archive is made by us, so it never lies where the user's own data is.
    assert paths.Places.of(get_profile("quick")).archive == tmp_path / "data" / "phantom-quick"
