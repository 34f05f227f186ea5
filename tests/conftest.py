"""The order of the files, run_all.sh, and a small finished run that looks like one of `run_all.sh --profile tiny`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from mammo_lib import paths
from mammo_lib.config import ID_COLUMN, Profile, get_profile
from mammo_lib.data import splits
from mammo_lib.models import networks
from mammo_lib.training import checkpoint, records
from mammo_lib.training.experiments import Cell

settings.register_profile("house", deadline=None)  # no test is timed against a clock
settings.load_profile("house")

PATIENTS = 14  # the last three are official test patients: malignant, benign, malignant
VIEWS = ("CC", "MLO")
HASHES = {f"{name}.{kind}": "" for name in ("patches", "globals") for kind in ("npy", "csv")}
BOX = [26.0, 48.0, 16.0, 16.0]  # around the bright spot of `breasts` in G
TEST_PROBABILITIES = (0.9, 0.3, 0.6, 0.2, 0.7, 0.45)  # of the six test images, in the order of their ids
TRAINED = (
    Cell("official", "G", "resnet50_cbam", "patch"),
    Cell("official", "G", "resnet50", "scratch"),
    Cell("official", "P", "resnet50_cbam", "scratch"),
)
LONGEST = (
    "test_notebooks.py",  # the chain: a third of the whole
    "test_comparison.py",
    "test_experiments.py",
    "test_browser.py",
    "test_paths.py",  # short: a process with two tests left takes its next file, and those of a browser are two
    "test_page.py",
    "test_exploration.py",
    "test_explanation.py",
    "test_run_all.py",
    "test_claims.py",
    "test_loop.py",
    "test_trainings.py",
    "test_tables.py",
    "test_download.py",
    "test_mapping.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes begin with the files of LONGEST, in this order, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        order = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def run_all() -> Callable[..., subprocess.CompletedProcess[str]]:
    """./run_all.sh with its outputs below a folder, in the environment that runs the tests."""
    script = Path(__file__).parent.parent / "run_all.sh"

    def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "MAMMO_CBAM_HOME": str(home),
            "VIRTUAL_ENV": sys.prefix,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        command = [str(script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)

    return run


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A $MAMMO_CBAM_HOME with sets P and G, the official split, and three cells whose networks were never trained."""
    home, profile = tmp_path_factory.mktemp("trained"), get_profile("tiny")
    places = paths.Places(profile, home)
    tables = {"P": patch_table(), "G": global_table()}
    for stage, name, size in (("P", "patches", profile.patches.size), ("G", "globals", profile.globals.size)):
        places.prepared.mkdir(parents=True, exist_ok=True)
        tables[stage].to_csv(places.prepared / f"{name}.csv", index=False)
        np.save(places.prepared / f"{name}.npy", breasts(len(tables[stage]), size))
    made = paths.plain({"patches": profile.patches, "globals": profile.globals, "seed": 0})
    paths.write_json(places.prepared / "prepare.json", {"settings": made, "hashes": HASHES})
    split = splits.make("official", tables["P"], tables["G"], profile.split, seed=0)
    splits.write(split, places.splits("official"))
    for number, cell in enumerate(TRAINED):
        inputs = {"images": "", "table": "", "split": paths.file_hash(places.splits("official"))}
        write_cell(places.runs("official") / cell.name, profile, cell, number, inputs, split, tables[cell.stage])
    return home


@pytest.fixture(scope="session")
def copy_home() -> Iterator[Callable[[Path, Path], None]]:
    """Copy a home, or a folder of one, into a folder that may be there; its networks, 285 MB in all, are linked.

    Who changes one (checkpoint.save puts a new file in its place) must unlink it first: it is the session's own.
    """
    linked = dict[str, tuple[int, int]]()

    def state(file: str) -> tuple[int, int]:
        about = Path(file).stat()
        return about.st_size, about.st_mtime_ns

    def copy(source: str, target: str) -> str:
        if not source.endswith((".pt", ".pth")):
            return shutil.copy2(source, target)
        linked.setdefault(source, state(source))
        Path(target).hardlink_to(source)
        return target

    yield lambda source, target: shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)
    assert {file: state(file) for file in linked} == linked, "a test wrote to a linked network"


def global_table() -> pd.DataFrame:
    """One image a view, the left breast of each patient; every even patient is benign."""
    rows: list[dict[str, Any]] = []
    for patient in range(PATIENTS):
        for view in VIEWS:
            patient_id = f"P_{patient:05d}"
            about = {"image_id": f"{patient_id}_LEFT_{view}", "patient_id": patient_id, "side": "LEFT", "view": view}
            about |= {"label": patient % 2, "official_split": "test" if patient >= PATIENTS - 3 else "train"}
            rows.append(about | {"crop_x": 0, "crop_y": 0, "crop_w": 9, "crop_h": 9, "boxes": json.dumps([BOX])})
    return pd.DataFrame(rows)


def patch_table() -> pd.DataFrame:
    """One patch a view."""
    table = global_table().drop(columns=["crop_x", "crop_y", "crop_w", "crop_h", "boxes"])
    table.insert(0, "mass_id", table["image_id"] + "_1")
    table.insert(0, "patch_id", table["mass_id"] + "#0")
    return table.assign(centre_x=5, centre_y=5, window=9)


def breasts(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size): a half disk at the left edge with a bright spot, and noise of its own in each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    inside = x**2 + (y - size / 2) ** 2 < (0.45 * size) ** 2
    spot = 100 * np.exp(-((x - 0.3 * size) ** 2 + (y - 0.5 * size) ** 2) / (0.05 * size) ** 2)
    return (inside * (60 + spot + rng.integers(0, 60, (count, size, size)))).astype(np.uint8)


def write_cell(
    folder: Path,
    profile: Profile,
    cell: Cell,
    seed: int,
    inputs: dict[str, str],
    split: pd.DataFrame,
    table: pd.DataFrame,
) -> None:
    """run.json, predictions.csv and best.pt as a training leaves them."""
    size = profile.size(cell.stage)
    network = networks.build(cell.network, size=size, vgg_hidden=profile.vgg_hidden, cbam=profile.cbam, seed=seed)
    with torch.no_grad():
        network.head[-1].weight[1].abs_()  # every feature speaks for malignancy: no heat map is empty
    settings = records.cell_settings(cell, profile, inputs)
    checkpoint.save(folder / "best.pt", {"config": settings, "epoch": 1, "network": network.state_dict()})
    paths.write_json(folder / "run.json", {"settings": settings})
    chosen = split[(split["stage"] == cell.stage) & (split["part"] != "train")]
    key = ID_COLUMN[cell.stage]
    rows = chosen[["id", "part"]].merge(table.rename(columns={key: "id"}), on="id").sort_values("id")
    rows["probability"] = 0.5
    rows.loc[rows["part"] == "test", "probability"] = TEST_PROBABILITIES
    rows = rows.assign(image_id=rows["id"], mass_id="") if cell.stage == "G" else rows
    columns = ["id", "mass_id", "image_id", "patient_id", "part", "label", "probability"]
    rows[columns].to_csv(folder / "predictions.csv", index=False)


@pytest.fixture
def one_thread() -> Any:
    """Torch on one core, as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
