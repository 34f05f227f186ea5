"""A training of a second, which tests run here, in other processes and in forks that are killed."""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mammo_lib import config
from mammo_lib.training import checkpoint, loop

UNCHANGED = config.Augmentation(0.0, 0.0, (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
SETTINGS = replace(config.PATCH_TRAINING, batch_size=8, max_epochs=8, plateau_patience=2, stop_patience=8)


def network(seed=0):
    """Convolution, batch norm and dropout: everything that holds state or draws numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False),  # batch norm takes a bias out again
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(6 * 5 * 5, 2),
    )


def data(count=34, size=12, seed=0):
    """Noise, a little brighter in class 1; the last quarter is for validation."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 200, (count, size, size)) + 40 * labels[:, None, None]
    cut = count - count // 4
    parts = {"train": np.arange(cut), "validation": np.arange(cut, count)}
    return images.astype(np.uint8), labels, [f"image{index}" for index in range(count)], parts


def train(folder, seed=0, settings=SETTINGS, augmentation=config.PROFILES["paper"].augmentation, **changes):
    """Train the tiny network on the tiny data in `folder`."""
    torch.set_num_threads(1)
    images, labels, ids, parts = data()
    arguments = {
        "network": changes["network"] if "network" in changes else network(seed),
        "images": images,
        "labels": labels,
        "ids": ids,
        "parts": parts,
        "settings": settings,
        "augmentation": augmentation,
        "seed": seed,
        "folder": Path(folder),
        "config": {"training": settings, "seed": seed},
        "progress": lambda line: None,
    }
    return loop.train(**(arguments | changes))


def assert_same_training(one, other):
    """Both folders hold the same last state, best weights and history, bit for bit, but for the times."""
    for name in ("last.pt", "best.pt"):
        first, second = (checkpoint.load(Path(folder) / name) for folder in (one, other))
        assert first["epoch"] == second["epoch"]
        assert first["network"].keys() == second["network"].keys()
        for key, tensor in first["network"].items():
            assert torch.equal(tensor, second["network"][key]), (name, key)
    for first, second in zip(*(checkpoint.load(Path(f) / "last.pt")["epochs"] for f in (one, other)), strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    first, second = (np.genfromtxt(Path(f) / "history.csv", delimiter=",", skip_header=1) for f in (one, other))
    np.testing.assert_array_equal(first[:, :-1], second[:, :-1])


# ----------------------------------------------------------------------------- killed at any moment


def _in_a_fork(call, kill_after=None):
    """Run `call` in a fork, killed after some seconds if it still lives; whether it came to its end."""
    child = os.fork()
    if child == 0:
        call()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def _killed_before_rename(number, folder):
    """Train, but die just before the `number`-th rename of a finished file."""
    rename, count = Path.replace, iter(range(1, 1_000_000))

    def fatal(self, target):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = fatal
    train(folder)


def _killed_in_write(number, folder):
    """Train, but die when the `number`-th checkpoint is half written."""
    save, count = torch.save, iter(range(1, 1_000_000))

    def fatal(state, file):
        save(state, file)
        if next(count) == number:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = fatal
    train(folder)


def main(folder):
    """Train in `folder`/random, /renames and /writes, killed again and again until nothing is left to kill.

    Once here first, in `folder`/undisturbed: what torch and its friends import late is then there in every fork.
    """
    places = {name: Path(folder) / name for name in ("undisturbed", "random", "renames", "writes")}
    train(places["undisturbed"])
    delays = sorted(random.Random(0).uniform(0.005, 0.1) for _ in range(10))  # short ones first
    at_random = sum(not _in_a_fork(partial(train, places["random"]), delay) for delay in delays)
    kills = 0
    for number in range(1, 9):
        kills += not _in_a_fork(partial(_killed_before_rename, number, places["renames"]))
    for number in (1, 2, 3, 1):
        kills += not _in_a_fork(partial(_killed_in_write, number, places["writes"]))
    for name in ("random", "renames", "writes"):
        assert _in_a_fork(partial(train, places[name]))
    print(at_random, kills)


if __name__ == "__main__":
    main(sys.argv[1])
