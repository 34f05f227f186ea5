"""pyproject.toml, requirements.txt and environment.yml name one and the same set of packages."""

import re
import tomllib
from pathlib import Path

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
