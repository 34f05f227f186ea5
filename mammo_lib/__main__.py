"""The steps of the paper from a shell: the same calls as the notebooks', for clusters and hosts without Jupyter.

Knows the arguments and the exit status only; `stages` does the work and is imported when an argument list is valid.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mammo_lib.config import PROFILES, PROTOCOLS

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mammo_lib.stages import Experiment

STEPS = {  # name -> what it does
    "check": "refuse now what would fail later: unknown names, unwritable folders, a missing archive",
    "download": "CBIS-DDSM's mass set from the Imaging Data Commons; shows its size, and fetches it with --yes",
    "integrity": "named checks of the archive: what is expected, what was found",
    "prepare": "archive -> sets P and G",
    "split": "P and G -> train, validation and test, with a table of leaks",
    "train": "train cells; finished ones are skipped, interrupted ones go on",
    "probe": "beyond the paper: logistic regressions on what a frozen ImageNet VGG16 sees",
    "map": "beyond the paper: VGG16 taught which 16-pixel squares are mass, read as a classifier",
    "tune": "other settings of stage G, compared on validation only",
    "controls": "does training learn what is there, and only that: 32 patches by heart, and shuffled labels",
    "gates": "how far open the gates of CBAM are, before and after training, and in its first steps",
    "status": "cells that are done, running, failed, and the time left",
    "transfer": "the networks trained on another profile, applied to every case of this one without training",
    "evaluate": "predictions -> Tables 1 and 2, baselines and paired comparisons",
    "explain": "Grad-CAM over every test image, and how well it finds the lesion",
    "figures": "draw every figure again from stored results",
    "audit": "what the printed numbers imply",
    "overview": "CBAM, patches and splits on CBIS-DDSM, every profile's answers in one table and one figure",
    "report": "one HTML page with all of it",
    "notebook": "execute one numbered notebook",
    "is-current": "exit status 0 when a whole run has ended and nothing was touched since",
    "remember": "note that a whole run has ended",
    "forget": "delete at once what this profile and protocol have made: each seed and each further step (probe, map); "
    "also the prepared data when no other protocol uses it",
}
ORDER = (
    "In this order: check, download, prepare, split, train, evaluate, explain, figures, report; it ends with "
    "results/PROFILE/report.html (report_PROTOCOL.html of another than the official one). All of it at once, and the "
    "profiles and protocols in words: ./run_all.sh --help"
)
WITH_WORKERS = ("download", "prepare", "train", "probe", "tune", "explain")


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="python -m mammo_lib", description=__doc__.splitlines()[0], epilog=ORDER)
    main_parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    steps = main_parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, text in STEPS.items():
        step = steps.add_parser(name, help=text, description=text)
        profile = "paper" if name == "download" else "quick"
        step.add_argument("--profile", default=profile, help=f"one of {', '.join(PROFILES)} (default {profile})")
        step.add_argument("--protocol", default="official", help=f"one of {', '.join(PROTOCOLS)} (default official)")
        if name != "forget":  # which knows no seed
            step.add_argument("--seed", type=int, default=0, help="of training; data and splits are the same for all")
        if name == "notebook":
            step.add_argument("name", help="for instance 01_data_preparation")
        if name == "download":
            step.add_argument("--yes", action="store_true", help="begin; without it, size and time are shown only")
            step.add_argument("--stream", action="store_true", help="prepare each patient, then delete it: under 3 GB")
        if name in WITH_WORKERS:
            step.add_argument("--workers", type=int, default=0, help="worker processes (0: none, in this process)")
            step.add_argument("--dask", metavar="ADDRESS", help="address of a Dask scheduler to use instead")
        if name in ("probe", "map"):
            either = step.add_mutually_exclusive_group()
            text = "fit it on this profile's official training part"
            either.add_argument("--learnt-on", metavar="PROFILE", help=text)
        if name == "transfer":
            text = "whose networks of the official protocol are applied"
            step.add_argument("--learnt-on", metavar="PROFILE", required=True, help=text)
        if name == "probe":
            text = "compare its readings by cross-validation instead"
            either.add_argument("--choose", action="store_true", help=text)
        if name in ("check", "integrity", "prepare", "notebook"):
            text = "go on without files that are missing and masses that cannot be cut"
            step.add_argument("--allow-partial", action="store_true", help=text)
        if name == "train":
            step.add_argument("--cells", default="*", help="pattern of cell names, for instance 'P/*' or 'G/resnet50*'")
    return main_parser


def run(arguments: argparse.Namespace) -> int:
    """Run one step; the exit status is 1 when a cell failed."""
    from mammo_lib import stages

    allow_partial = getattr(arguments, "allow_partial", False)
    seed = getattr(arguments, "seed", 0)
    experiment = stages.Experiment.of(arguments.profile, arguments.protocol, seed, allow_partial)
    if arguments.step == "notebook":
        from mammo_lib import notebooks

        parameters = {"profile": arguments.profile, "protocol": arguments.protocol, "seed": arguments.seed}
        if allow_partial:  # declared by the notebooks that read an archive
            parameters["allow_partial"] = True
        notebooks.execute(arguments.name, parameters, experiment.places.runs(arguments.protocol) / "notebooks")
        return 0
    if arguments.step == "is-current":
        return int(not stages.is_current(experiment))
    workers, address = getattr(arguments, "workers", 0), getattr(arguments, "dask", None)
    small_jobs = arguments.step in ("download", "prepare", "probe")
    with stages.executor(workers, address, small_jobs) as executor:
        if arguments.step == "train":
            return _train(experiment, arguments.cells, executor)
        result = _steps(arguments, executor)[arguments.step](experiment)
    if result is not None:
        print(_told(arguments.step, result, experiment))
    return 0


def _train(experiment: "Experiment", pattern: str, executor: "Executor | None") -> int:
    from mammo_lib import stages
    from mammo_lib.training.experiments import UNFINISHED

    outcomes = stages.train(experiment, pattern=pattern, executor=executor)
    nothing = outcomes[~outcomes.state.isin(("done", "skipped"))]
    print("; ".join(f"{count} {state}" for state, count in Counter(outcomes.state).items()))
    for _, cell, state, message in nothing.itertuples():
        print(f"{state}: {cell}: {message}")
    return int(outcomes.state.isin(UNFINISHED).any())


def _steps(arguments: argparse.Namespace, executor: "Executor | None") -> "dict[str, Callable[[Experiment], object]]":
    """What each step does that needs no more than an experiment and prints what comes of it."""
    from mammo_lib import stages

    steps: dict[str, Callable[[Experiment], object]] = {
        "check": stages.check,
        "integrity": stages.integrity,
        "download": lambda of: stages.download(of, executor, arguments.stream, arguments.yes),
        "prepare": partial(stages.prepare, executor=executor),
        "split": stages.split,
        "probe": partial(
            stages.choose_reading if getattr(arguments, "choose", False) else stages.probe, executor=executor
        ),
        "map": stages.map_masses,
        "tune": partial(stages.tune, executor=executor),
        "controls": stages.controls,
        "gates": lambda of: f"{_text(stages.first_steps(of))}\n{_text(stages.gates(of))}",
        "status": stages.status,
        "evaluate": stages.evaluate,
        "explain": partial(stages.explain, executor=executor),
        "figures": stages.draw_everything,
        "audit": stages.audit,
        "overview": stages.overview,
        "report": stages.report,
        "remember": stages.remember,
        "forget": stages.forget,
    }
    if getattr(arguments, "learnt_on", None) is not None:
        source = stages.Experiment.of(arguments.learnt_on, "official", arguments.seed)
        steps |= {
            "probe": partial(stages.transfer_probe, source=source, executor=executor),
            "map": partial(stages.transfer_map, source=source),
            "transfer": partial(stages.transfer_cells, source=source),
        }
    return steps


def _told(step: str, result: Any, experiment: "Experiment") -> str:
    """What a step returned, as far as a terminal holds it, and the file that has the rest."""
    if step == "integrity":
        return f"{_text(result.drop(columns='ids'))}\nthe cases behind each: {experiment.results / 'integrity.csv'}"
    if step == "explain":
        every = result[result["group"] == "all"]
        return f"{_text(every)}\nby decision: {experiment.results / 'localisation.csv'}"
    if step == "overview":
        root = experiment.places.root
        return f"{len(result)} comparisons: {root}/results/overview.csv, drawn in {root}/figures/overview.png"
    if step == "report":
        return f"the report: {result}"
    if step == "evaluate":
        return f"made in {experiment.results}: {', '.join(result)}"
    return _text(result)


def _text(result: object) -> str:
    """A table whole, several tables by name, files a line each."""
    if isinstance(result, dict):
        return f"made: {', '.join(result)}"
    if isinstance(result, list):
        return "\n".join(str(path) for path in result)
    return result.to_string(index=False) if hasattr(result, "to_string") else str(result)


def main() -> int:
    """Entry point: an error that the library foresees is one sentence on standard error and exit status 1."""
    arguments = parser().parse_args()
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output, `head` for instance, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell has it for a process that a closed pipe ended
    except (ValueError, OSError, RuntimeError) as error:
        if arguments.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if arguments.traceback:
            raise
        print(f"error: step {arguments.step} needs {error.name}, which is not installed here", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130  # as a shell has it for a process that an interrupt ended


if __name__ == "__main__":
    sys.exit(main())
