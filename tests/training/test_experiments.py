"""The matrix: its cells, their order, executors of every kind, workers that die, and how far everything is."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import jobs
import pandas as pd
import pytest
import tiny_training as tiny

from mammo_lib import config, stages
from mammo_lib.training import checkpoint, experiments
from mammo_lib.training.experiments import DIVERGED, NOT_AVAILABLE, UNFINISHED, Cell, Outcome, Processes, matrix, run
from mammo_lib.training.folder import claim, is_claimed

PAPER = config.PROFILES["paper"]
P_CELL = Cell("official", "P", "resnet50", "scratch")
G_CELL = Cell("official", "G", "resnet50", "patch")
FIRST = Cell("official", "P", "vgg16", "scratch")


def quiet(line):
    pass


# ----------------------------------------------------------------------------- cells


def test_the_papers_matrix_is_six_and_twelve_and_our_control():
    cells = matrix("as_written", PAPER)
    table = [(cell.stage, cell.initial) for cell in cells]
    assert {key: table.count(key) for key in set(table)} == {
        ("P", "scratch"): 6,
        ("G", "imagenet"): 6,
        ("G", "patch"): 6,
        ("G", "scratch"): 6,
    }
    printed = {(row.stage, row.network, row.initial) for row in config.PUBLISHED}
    assert printed <= {(cell.stage, cell.network, cell.initial) for cell in cells}


def test_folds_and_seeds_multiply():
    assert len(matrix("grouped_cv", PAPER, seeds=(0, 1, 2))) == 24 * 5 * 3
    assert {cell.fold for cell in matrix("grouped_cv", PAPER)} == {0, 1, 2, 3, 4}
    assert {cell.fold for cell in matrix("official", PAPER)} == {0}


def test_names_and_parents():
    cell = Cell("grouped_cv", "G", "resnet50_cbam", "patch", fold=3, seed=7)
    assert cell.name == "G/resnet50_cbam/patch/fold3-seed7"
    assert cell.parent == Cell("grouped_cv", "P", "resnet50_cbam", "scratch", fold=3, seed=7)
    assert Cell("official", "G", "vgg16", "imagenet").parent is None
    chained = Cell("official", "G", "vgg16", "imagenet_patch", seed=2)
    assert chained.parent == Cell("official", "P", "vgg16", "imagenet", seed=2)
    with pytest.raises(ValueError, match="cannot start from patch weights"):
        Cell("official", "P", "vgg16", "imagenet_patch")
    every = matrix("grouped_cv", PAPER, seeds=(0, 1))
    assert len({cell.name for cell in every}) == len(every)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "random"}, "unknown protocol 'random': choose one of as_written"),
        ({"stage": "Q"}, "unknown stage 'Q'"),
        ({"network": "resnet51"}, "unknown network 'resnet51': choose one of vgg16"),
        ({"initial": "random"}, "unknown initial 'random'"),
        ({"initial": "patch"}, "stage P cannot start from patch"),
        ({"fold": 1}, "protocol official has fold 0 only"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(P_CELL, **change)


# ----------------------------------------------------------------------------- running here


def states(outcomes):
    return [outcome.state for outcome in outcomes]


def test_parents_run_first_and_outcomes_keep_the_order_asked_for():
    order = []

    def job(cell):
        order.append(cell)
        return Outcome(cell, "done")

    outcomes = run([G_CELL, P_CELL], job, progress=quiet)
    assert order == [P_CELL, G_CELL]
    assert [outcome.cell for outcome in outcomes] == [G_CELL, P_CELL]
    assert run([], job) == []


class NoWeights(FileNotFoundError):
    pass


class Diverged(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "state"), [(Diverged("loss is nan"), DIVERGED), (NoWeights("no such file"), NOT_AVAILABLE)]
)
def test_a_cell_that_came_to_nothing_leaves_its_children_without_weights_and_nothing_broken(tmp_path, error, state):
    def job(cell):
        raise error

    told = []
    outcomes = run(
        [P_CELL, G_CELL], job, folder=tmp_path, progress=told.append,
        expected={NoWeights: NOT_AVAILABLE, Diverged: DIVERGED},
    )  # fmt: skip
    assert states(outcomes) == [state, NOT_AVAILABLE]
    assert [line.split(":")[0] for line in told] == [
        f"[1/2] {state}",
        f"[2/2] {NOT_AVAILABLE}",
    ]
    assert outcomes[0].message == str(error)
    assert outcomes[1].message == f"its parent {P_CELL.name} is {state}"
    assert not set(states(outcomes)) & set(UNFINISHED)
    assert (tmp_path / P_CELL.name / "failure.txt").exists() == (state == DIVERGED)


def test_a_failure_is_listed_its_children_are_not_run_and_the_others_go_on(tmp_path):
    def job(cell):
        if cell == P_CELL:
            raise ValueError("the loss is NaN")
        if cell.initial == "imagenet":
            raise NoWeights("resnet50-0676ba61.pth is not there")
        return Outcome(cell, "skipped" if cell.stage == "P" else "done")

    other = Cell("official", "G", "vgg16", "patch")
    imagenet = replace(G_CELL, initial="imagenet")
    lines, decided = [], []
    outcomes = run(
        [P_CELL, G_CELL, FIRST, other, imagenet], job, folder=tmp_path, expected={NoWeights: NOT_AVAILABLE},
        progress=lines.append, decided=decided.append,
    )  # fmt: skip
    assert states(outcomes) == ["failed", "not run", "skipped", "done", "not available"]
    assert len(decided) == len(outcomes)
    assert {(outcome.cell, outcome.state) for outcome in decided} == {
        (outcome.cell, outcome.state) for outcome in outcomes
    }
    assert outcomes[0].message == "ValueError: the loss is NaN"
    assert P_CELL.name in outcomes[1].message
    assert outcomes[4].message == "resnet50-0676ba61.pth is not there"
    failure = tmp_path / P_CELL.name / "failure.txt"
    assert "Traceback" in failure.read_text()
    assert sum(P_CELL.name in line for line in lines) >= 1
    run([P_CELL], lambda cell: Outcome(cell, "done"), folder=tmp_path, progress=quiet)
    assert not failure.exists()


def test_a_parent_that_is_not_asked_for_is_the_jobs_business():
    assert states(run([G_CELL], lambda cell: Outcome(cell, "done"), progress=quiet)) == ["done"]


def test_an_interrupt_ends_everything():
    def job(cell):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([P_CELL, G_CELL], job, progress=quiet)


# ----------------------------------------------------------------------------- running elsewhere


def notes(folder, cells):
    return {cell: [float(word) for word in (folder / cell.name / "note").read_text().split()] for cell in cells}


def pool(workers):
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def test_a_process_pool_keeps_the_order_of_dependencies(tmp_path):
    cells = [G_CELL, P_CELL, FIRST]
    with pool(2) as executor:
        outcomes = run(cells, partial(jobs.note, tmp_path), executor, progress=quiet)
    assert states(outcomes) == ["done"] * 3
    found = notes(tmp_path, cells)
    assert found[P_CELL][1] <= found[G_CELL][0]
    assert os.getpid() not in {int(note[2]) for note in found.values()}


def test_a_pool_that_loses_a_worker_ends_with_everything_listed(tmp_path):
    lines = []
    with pool(1) as executor:
        outcomes = run([FIRST, P_CELL, G_CELL], partial(jobs.deadly, tmp_path), executor, progress=lines.append)
    assert states(outcomes) == ["failed", "failed", "not run"]  # of P the pool was lost, of G the parent
    assert all("worker was lost" in outcome.message for outcome in outcomes[:2])
    assert any(FIRST.name in line and "again" in line for line in lines)


def test_own_processes_lose_one_cell_and_try_it_again(tmp_path):
    cells = [FIRST, P_CELL]
    with Processes(2) as executor:
        outcomes = run(cells, partial(jobs.deadly_once, tmp_path), executor, progress=quiet)
    assert states(outcomes) == ["done", "done"]
    found = notes(tmp_path, cells)
    assert len({int(note[2]) for note in found.values()}) == 2
    assert {int(note[3]) for note in found.values()} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    with Processes(1) as executor:
        outcomes = run([FIRST], partial(jobs.deadly, tmp_path), executor, progress=quiet)
    assert states(outcomes) == ["failed"]
    assert "worker was lost" in outcomes[0].message


@pytest.mark.parametrize("kind", ["Processes", "lasting_pool"])
def test_own_processes_end_when_the_one_that_started_them_is_killed(tmp_path, kind):
    script = (
        "import sys; from functools import partial; import jobs; from mammo_lib.training import experiments\n"
        "if __name__ == '__main__':\n"
        f"    with experiments.{kind}(1) as executor:\n"
        "        executor.submit(partial(jobs.hold, sys.argv[1])).result()\n"
    )
    (tmp_path / "script.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path / "cell")])
    try:
        while not is_claimed(tmp_path / "cell"):
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    for _ in range(600):  # a minute, on a machine that is busy
        if not is_claimed(tmp_path / "cell"):
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on and holds its cell's folder")


def test_own_processes_share_out_the_devices(monkeypatch):
    """Without spawning: what each would be told."""
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", SettledHere)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with Processes(2, devices=("0", "1")) as executor:
        in_turn = {executor.submit(time.sleep, 0.1).result() for _ in range(2)}
        both = [executor.submit(time.sleep, 0.1) for _ in range(2)]
        at_once = {future.result() for future in both}
    assert in_turn == at_once == {"0", "1"}


class SettledHere(ThreadPoolExecutor):
    """Stands for a process: runs the call here and returns the device it was given."""

    def __init__(self, count, context, settle, arguments):
        super().__init__(count)
        self.device = arguments[0]

    def submit(self, call, /, *args, **kwargs):
        def told():
            call(*args, **kwargs)
            return self.device

        return super().submit(told)


def test_a_dask_worker_killed_mid_cell_costs_that_cells_epoch_and_nothing_else(tmp_path):
    """A scheduler, two worker processes; the one that trains the P cell is killed after its first checkpoint."""
    distributed = pytest.importorskip("distributed", reason="Dask comes with the extra 'cluster'")
    cells = [G_CELL, P_CELL, FIRST]
    killed = []

    def kill_the_worker_of_p():
        last, attempts = tmp_path / P_CELL.name / "last.pt", tmp_path / P_CELL.name / "attempts"
        while not checkpoint.exists(last):
            time.sleep(0.01)
        killed.append(int(attempts.read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = threading.Thread(target=kill_the_worker_of_p, daemon=True)
        killer.start()
        outcomes = run(
            cells,
            partial(jobs.train_resnet_slowly, tmp_path),
            client.get_executor(pure=False),
            folder=tmp_path,
            progress=quiet,
        )
        killer.join(timeout=5)
    assert states(outcomes) == ["done"] * 3
    attempts = [line.split() for line in (tmp_path / P_CELL.name / "attempts").read_text().splitlines()]
    assert int(attempts[0][0]) == killed[0] != int(attempts[1][0])
    assert len(attempts) == 2
    assert int(attempts[1][1]) >= 1  # went on, did not begin again
    tiny.train(tmp_path / "undisturbed")
    tiny.assert_same_training(tmp_path / P_CELL.name, tmp_path / "undisturbed")
    assert notes(tmp_path, [G_CELL])[G_CELL][0] >= (tmp_path / P_CELL.name / "last.pt").stat().st_mtime


def test_on_dask_a_cell_that_was_given_up_is_tried_again(tmp_path):
    """The scheduler is told to give a task up with its first worker; the second attempt is then ours to make."""
    distributed = pytest.importorskip("distributed", reason="Dask comes with the extra 'cluster'")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        stages.executor(0, cluster.scheduler_address) as executor,
    ):
        outcomes = run([FIRST], partial(jobs.deadly_once, tmp_path), executor, progress=quiet)
    assert states(outcomes) == ["done"]


# ----------------------------------------------------------------------------- how far


def write_history(folder: Path, seconds):
    folder.mkdir(parents=True)
    pd.DataFrame({"epoch": range(1, len(seconds) + 1), "seconds": seconds}).to_csv(folder / "history.csv", index=False)


@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor])
def test_output_that_nobody_reads_ends_the_run_and_is_no_fault_of_the_cell(pool, tmp_path):
    """`train | head`: the cell's own lines are the first that find the pipe closed."""
    reached = []

    def job(cell):
        reached.append(cell)
        raise BrokenPipeError

    with nullcontext() if pool is None else pool(1) as executor, pytest.raises(BrokenPipeError):
        run([P_CELL, FIRST], job, executor, folder=tmp_path, progress=quiet)
    assert P_CELL in reached
    assert not list(tmp_path.rglob("failure.txt"))


def test_status_shows_every_state_and_the_time_left(tmp_path):
    done, failed, stopped, running, waiting = (replace(P_CELL, seed=seed) for seed in range(5))
    write_history(tmp_path / done.name, [1.0] * 30)
    (tmp_path / done.name / "run.json").touch()
    write_history(tmp_path / failed.name, [2.0] * 50)
    (tmp_path / failed.name / "failure.txt").touch()
    write_history(tmp_path / stopped.name, [3.0] * 100)
    write_history(tmp_path / running.name, [2.0] * 149)
    with claim(tmp_path / running.name):
        table = experiments.status([done, failed, stopped, running, waiting, FIRST], tmp_path, PAPER)
    assert table.state.tolist() == ["done", "failed", "stopped", "running", "waiting", "waiting"]
    assert table.epochs.tolist() == [30, 50, 100, 149, 0, 0]
    assert table.seconds_left.tolist()[:5] == [0, 100 * 2, 50 * 3, 1 * 2, 150 * 2]  # the last from the mean of its kind
    assert pd.isna(table.seconds_left[5])  # nothing is known of this network
    assert table.cell[0] == done.name
    assert (table.max_epochs == 150).all()


def test_a_cell_in_its_warm_up_is_running(tmp_path):
    with claim(tmp_path / FIRST.name / "warm_up"):
        assert experiments.status([FIRST], tmp_path, PAPER).state.tolist() == ["running"]
    assert experiments.status([FIRST], tmp_path, PAPER).state.tolist() == ["waiting"]
