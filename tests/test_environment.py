"""pyproject.toml, requirements.txt and environment.yml name one and the same set of packages."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line.strip()]


def declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in [*PROJECT["dependencies"], *(item for extra in extras for item in extra)]]


def test_every_pin_is_exact_and_names_no_host() -> None:
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in PINS)
    assert not any(pin.url for pin in PINS)


def test_every_declared_package_is_pinned_within_its_range() -> None:
    for requirement in declared():
        versions = [
            str(pin.specifier)[2:] for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
        ]
        assert versions, f"{requirement.name} is not pinned in requirements.txt"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_extras_are_those_promised() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        "demo",
        "download",
        "cluster",
        "explore",
        "tensorboard",
        "benchmarks",
        "dev",
    }


def test_conda_installs_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert Requirement(PROJECT["name"] + PROJECT["requires-python"]).specifier.contains(python.partition("=")[2])
    every_extra = ",".join(PROJECT["optional-dependencies"])
    assert packages["pip"] == ["--constraint requirements.txt", f"--editable .[{every_extra}]"]
    assert f'extras="{every_extra}"' in (ROOT / "environment.sh").read_text()


@pytest.fixture
def outdated(tmp_path: Path) -> Path:
    """A checkout whose .venv was made from other files, and a Python in `bin/` that makes no environment."""
    for name in ("environment.sh", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "library.so").write_text("as of yesterday")
    (tmp_path / ".venv" / "mammo-cbam.stamp").write_text("as of yesterday")
    (tmp_path / "bin").mkdir()
    for name in ("python", "python3"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\n[ "$1" = -c ]\n')
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def set_up(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-c", "set -e; source environment.sh"],
        cwd=checkout,
        env={"PATH": path, "PWD": str(checkout), **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_an_outdated_venv_is_not_removed_while_something_runs_in_it(outdated: Path) -> None:
    library = outdated / ".venv" / "library.so"
    hold = f"""
import mmap, os
held = mmap.mmap(os.open({str(library)!r}, os.O_RDONLY), 0, prot=mmap.PROT_READ)
print(flush=True)
input()
"""
    training = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert training.stdout is not None
    training.stdout.readline()
    (outdated / "link").symlink_to(outdated)  # as where the home folder is one
    said = set_up(outdated / "link")
    assert (said.returncode, library.exists()) == (1, True)
    assert "something runs in it" in said.stderr
    training.communicate(b"\n")
    assert "venv module" in set_up(outdated).stderr  # of the Python that cannot make one
    assert not library.exists()


def test_an_outdated_venv_that_is_active_is_used_with_a_warning(outdated: Path) -> None:
    said = set_up(outdated, VIRTUAL_ENV=os.fspath(outdated / ".venv"))
    assert (said.returncode, "may be older" in said.stderr) == (0, True)
    assert (outdated / ".venv" / "library.so").exists()
