"""Run one numbered notebook without a browser, in its own kernel, and keep the executed copy.

Knows papermill; knows nothing of what the notebooks do.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


class NotebookFailed(RuntimeError):
    """A cell raised; the message names the executed copy that holds the traceback."""


def execute(name: str, parameters: Mapping[str, object], copies: Path) -> Path:
    """Execute notebooks/<name>.ipynb with `parameters`; return the executed copy, copies/<name>.ipynb.

    What cells print appears on standard output, and what they warn of on standard error, as it comes. ValueError
    for an unknown notebook or a parameter that the notebook does not declare (papermill itself would only warn);
    NotebookFailed when a cell raises.
    """
    import papermill

    source = FOLDER / f"{name}.ipynb"
    if not source.exists():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.ipynb")))
        raise ValueError(f"unknown notebook {name!r}: choose one of {known}")
    declared = papermill.inspect_notebook(str(source))
    unknown = sorted(set(parameters) - set(declared))
    if unknown:
        raise ValueError(f"{source.name} has no parameter {', '.join(unknown)}: it declares {', '.join(declared)}")
    copies.mkdir(parents=True, exist_ok=True)
    copy = copies / source.name
    try:
        papermill.execute_notebook(
            str(source),
            str(copy),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(FOLDER),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            # what the kernel itself reports, a warning on local sockets and at its end an interrupt, says nothing
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        message = f"{error.ename}: {error.evalue}".strip()
        raise NotebookFailed(f"{source.name} stopped: {message}\nthe traceback is in {copy}") from None
    return copy
