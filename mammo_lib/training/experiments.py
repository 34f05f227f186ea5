"""The matrix of trainings: its cells, their dependencies, running them anywhere, how far they are.

Knows neither arrays nor networks nor how a cell is trained: `job` does that, in whatever process an executor gives it.
"""

import os
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import INITIAL_LABELS, NETWORK_LABELS, PATCH_PARENTS, PROTOCOLS, Profile
from mammo_lib.training.folder import FAILURE, HISTORY, RECORD, WARM_UP, is_claimed

STAGES = ("P", "G")
CROSS_VALIDATED = "grouped_cv"  # the one protocol with more than one fold
KILLED_WORKER = "KilledWorker"  # Dask's error, by name: `distributed` is an optional extra
NOT_AVAILABLE = "not available"  # state of a cell that has no weights to start from
DIVERGED = "diverged"  # state of one whose loss is not finite
UNFINISHED = ("failed", "not run")  # states that mean something is broken, not that a cell came to nothing
LOST = "lost"  # state of an outcome until it is decided whether the cell is submitted again
RETRIES = 1  # of a cell whose worker was lost


# ----------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cell:
    """One training. ValueError for a name that config.py does not know."""

    protocol: str
    stage: str
    network: str
    initial: str
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"protocol": PROTOCOLS, "stage": STAGES, "network": NETWORK_LABELS, "initial": INITIAL_LABELS}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.stage == "P" and self.initial in PATCH_PARENTS:
            raise ValueError("a cell of stage P cannot start from patch weights: choose scratch or imagenet")
        if self.fold < 0 or self.seed < 0 or (self.fold and self.protocol != CROSS_VALIDATED):
            raise ValueError(
                f"fold {self.fold}, seed {self.seed}: from 0, and protocol {self.protocol} has fold 0 only"
            )

    @property
    def name(self) -> str:
        """For instance "G/resnet50_cbam/patch/fold0-seed0": also its folder below that of the protocol."""
        return f"{self.stage}/{self.network}/{self.initial}/fold{self.fold}-seed{self.seed}"

    @property
    def parent(self) -> "Cell | None":
        """The P cell whose weights it starts from, or None."""
        start = PATCH_PARENTS.get(self.initial)
        return replace(self, stage="P", initial=start) if start else None


def matrix(protocol: str, profile: Profile, seeds: Sequence[int] = (0,)) -> list[Cell]:
    """Every cell of a profile, P before G, in every fold of the protocol."""
    folds = range(profile.split.folds if protocol == CROSS_VALIDATED else 1)
    return [
        Cell(protocol, stage, network, initial, fold, seed)
        for stage in STAGES
        for seed in seeds
        for fold in folds
        for network in profile.networks
        for initial in profile.initial(stage)
    ]


# ----------------------------------------------------------------------------- running


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    "done"; "skipped" (was done); "not available" (weights to start from); "diverged" (its loss is not finite); "failed"
    (any other error); "not run" (its parent failed).
    """

    cell: Cell
    state: str
    message: str = ""
    seconds: float = 0.0


Job = Callable[[Cell], Outcome]


def run(
    cells: Sequence[Cell],
    job: Job,
    executor: Executor | None = None,
    *,
    folder: Path | None = None,
    expected: Mapping[type[Exception], str] | None = None,
    progress: Callable[[str], None] = print,
    decided: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run `job` for every cell, parents before children, and return one outcome a cell, in the order of `cells`.

    `decided` gets each outcome as soon as it is known: what it keeps is kept when the run is interrupted later. An
    error in it ends the run.

    `executor` is any concurrent.futures executor (None: here, one after the other): `Processes` below, a process pool,
    Dask's `Client(address).get_executor(pure=False)`, which takes the same call twice; `job` must then be picklable and
    leave its results on a disk that all share. An error in one cell does not stop the others: it is an outcome,
    NOT_AVAILABLE or DIVERGED as `expected` says of its kind, "failed" for any other. Unless it is NOT_AVAILABLE, its
    traceback goes to failure.txt in the cell's folder below `folder`. A cell whose worker was lost is submitted again,
    RETRIES times; it goes on from its last checkpoint. A cell whose parent is among `cells` and did not get done is
    "not run", or NOT_AVAILABLE when the parent came to nothing as expected; whether a parent that is not among them
    exists is for `job` to see.
    """
    call = partial(_attempt, job, expected or {}, folder)
    cells = list(dict.fromkeys(cells))
    waiting, attempts, running = list(cells), Counter[Cell](), dict[Future[Outcome], Cell]()
    outcomes: dict[Cell, Outcome] = {}

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.cell] = outcome
        decided(outcome)
        progress(f"[{len(outcomes)}/{len(cells)}] {_line(outcome)}")

    try:
        while waiting or running:
            for cell in _ready(waiting, cells, outcomes)[: 1 if executor is None else None]:
                waiting.remove(cell)
                attempts[cell] += 1
                running[_submit(call, cell, executor)] = cell
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = _collect(future, running.pop(future))
                if outcome.state == LOST and attempts[outcome.cell] <= RETRIES:
                    waiting.append(outcome.cell)
                    progress(f"{outcome.cell.name}: {outcome.message}: again")
                    continue
                settle(replace(outcome, state="failed") if outcome.state == LOST else outcome)
            for cell, parent in _orphans(waiting, outcomes):
                waiting.remove(cell)
                state = NOT_AVAILABLE if parent.state in (NOT_AVAILABLE, DIVERGED) else "not run"
                settle(Outcome(cell, state, f"its parent {parent.cell.name} is {parent.state}"))
    finally:
        for future in running:
            future.cancel()
    return [outcomes[cell] for cell in cells]


def _ready(waiting: Sequence[Cell], cells: Sequence[Cell], outcomes: Mapping[Cell, Outcome]) -> list[Cell]:
    """Cells that wait for nothing: their parent is done, or nobody's business here."""
    return [cell for cell in waiting if cell.parent not in cells or cell.parent in outcomes]


def _orphans(waiting: Sequence[Cell], outcomes: Mapping[Cell, Outcome]) -> list[tuple[Cell, Outcome]]:
    """Waiting cells whose parent did not get done, with the parent's outcome."""
    parents = [(cell, outcomes[cell.parent]) for cell in waiting if cell.parent is not None and cell.parent in outcomes]
    return [(cell, parent) for cell, parent in parents if parent.state not in ("done", "skipped")]


def _submit(call: Job, cell: Cell, executor: Executor | None) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    if executor is None:
        future.set_result(call(cell))
        return future
    try:
        return executor.submit(call, cell)
    except BrokenExecutor as error:  # a process pool that has lost a worker takes no more work
        future.set_exception(error)
        return future


def _attempt(job: Job, expected: Mapping[type[Exception], str], folder: Path | None, cell: Cell) -> Outcome:
    """Run one job where the cell is trained; an error becomes an outcome there, since not every error can travel."""
    started = perf_counter()
    failure = folder / cell.name / FAILURE if folder else None
    try:
        outcome = job(cell)
        if failure is not None:
            failure.unlink(missing_ok=True)
    except BrokenPipeError:  # nobody reads any more what is printed (`train | head`): no fault of the cell
        raise
    except Exception as error:
        state = next((state for kind, state in expected.items() if isinstance(error, kind)), "failed")
        outcome = Outcome(cell, state, _describe(error) if state == "failed" else str(error))
        if failure is not None and state != NOT_AVAILABLE:
            paths.write_text(failure, traceback.format_exc())
    return replace(outcome, seconds=perf_counter() - started)


def _collect(future: Future[Outcome], cell: Cell) -> Outcome:
    try:
        return future.result()
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, BrokenExecutor) or type(error).__name__ == KILLED_WORKER:
            return Outcome(cell, LOST, f"its worker was lost ({_describe(error)})")
        return Outcome(cell, "failed", _describe(error))


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _line(outcome: Outcome) -> str:
    text = f"{outcome.state}: {outcome.cell.name}, {outcome.seconds:.0f} s"
    return f"{text}: {outcome.message}" if outcome.message else text


class Processes(ThreadPoolExecutor):
    """An executor that gives each call a process of its own, at most `count` at once.

    ProcessPoolExecutor ends all its workers when one is lost; here a lost process costs its own cell alone, and the
    memory of a device is free when a cell ends. `devices` are values of CUDA_VISIBLE_DEVICES, dealt out in turn: none
    for a CPU or one shared GPU, ("0", "1") with count 2 for one cell on each of two. The cores are shared out evenly.
    """

    def __init__(self, count: int, devices: Sequence[str] = ()) -> None:
        super().__init__(count)
        self._cores = max(1, cores() // count)
        self._places: SimpleQueue[str | None] = SimpleQueue()
        for place in range(count):
            self._places.put(devices[place % len(devices)] if devices else None)

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._alone, call, *args, **kwargs)

    def _alone(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        place = self._places.get()
        try:
            with ProcessPoolExecutor(1, get_context("spawn"), _settle_in, (place, self._cores)) as pool:
                return pool.submit(call, *args, **kwargs).result()
        finally:
            self._places.put(place)


def lasting_pool(count: int) -> ProcessPoolExecutor:
    """`count` processes for many small jobs, kept from one to the next; they too end with the one that started them."""
    return ProcessPoolExecutor(count, get_context("spawn"), _settle_in, (None, max(1, cores() // count)))


def cores() -> int:
    """CPU cores this process may use: a batch system may have granted some of the machine's only."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle_in(device: str | None, cores: int) -> None:
    """In a new process, before it imports torch: which device it sees, how many cores it may use, when it ends."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(cores)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _end_with_parent() -> None:
    """A parent that was killed has nobody to hand a cell to, and its next run finds the folder free."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ----------------------------------------------------------------------------- how far


def status(cells: Sequence[Cell], folder: Path, profile: Profile) -> pd.DataFrame:
    """How far each cell is, read from its folder below `folder`; works while others train.

    Columns: cell, state ("done", "running", "failed", "stopped" after some epochs, "waiting"), epochs, max_epochs,
    seconds_left: at most, without early stop, from the cell's own epochs or from those of the same stage and network;
    blank where nothing is known. Epochs of a warm-up are not counted. A killed cell may go on from before its last one.
    """
    frame = pd.DataFrame([_progress(cell, folder / cell.name, profile) for cell in cells])
    alike = frame.groupby(["stage", "network"]).seconds_per_epoch.transform("mean")
    left = (frame.max_epochs - frame.epochs) * frame.seconds_per_epoch.fillna(alike)
    frame["seconds_left"] = left.where(frame.state != "done", 0.0)
    return frame[["cell", "state", "epochs", "max_epochs", "seconds_left"]]


def _progress(cell: Cell, folder: Path, profile: Profile) -> dict[str, Any]:
    history = folder / HISTORY
    seconds = pd.read_csv(history).seconds if history.exists() else pd.Series(dtype=float)
    if (folder / RECORD).exists():
        state = "done"
    elif is_claimed(folder) or is_claimed(folder / WARM_UP):
        state = "running"
    elif (folder / FAILURE).exists():
        state = "failed"
    else:
        state = "stopped" if len(seconds) or (folder / WARM_UP / HISTORY).exists() else "waiting"
    return {
        "cell": cell.name,
        "stage": cell.stage,
        "network": cell.network,
        "state": state,
        "epochs": len(seconds),
        "max_epochs": profile.training(cell.stage).max_epochs,
        "seconds_per_epoch": seconds.mean(),
    }
