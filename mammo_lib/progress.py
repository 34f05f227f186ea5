"""A progress bar where somebody watches, and nothing anywhere else. Knows tqdm."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(iterable: Iterable[Any] | None = None, name: str = "", **options: Any) -> "tqdm[Any]":
    """tqdm of `iterable`, shown in a terminal and in a notebook opened in Jupyter.

    Not in a log, in a worker process that JupyterLab started, or in papermill's kernels, which have no session.
    """
    watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "JPY_SESSION_NAME" in os.environ)
    return tqdm(iterable, name, disable=not watched, **options)
