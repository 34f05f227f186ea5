"""What the printed rows of Tables 1 and 2 imply (notebook 06): the paper's numbers alone, no data and no network."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import PROPOSED, PUBLISHED, get_profile
from mammo_lib.stages.experiment import Experiment

if TYPE_CHECKING:
    from mammo_lib.evaluation.audit import PrintedRow

BEST = 5  # ours: test sets shown for each table
DRAWN = 999  # ours: tables drawn at random, to tell how many rows a search explains by luck
HEADLINES = (  # as (first, second) of a table's rows: what we take for the claims of the abstract and of section 3.1
    ("P", (PROPOSED, "scratch"), ("resnet50", "scratch")),
    ("P", (PROPOSED, "scratch"), ("vgg16", "scratch")),
    ("G", (PROPOSED, "patch"), (PROPOSED, "imagenet")),
    ("G", (PROPOSED, "patch"), ("resnet50", "patch")),
    ("G", ("resnet50", "patch"), ("resnet50", "imagenet")),
    # and of each question the largest difference that is printed
    ("G", ("inception_v3_cbam", "imagenet"), ("inception_v3", "imagenet")),
    ("G", ("inception_v3", "patch"), ("inception_v3", "imagenet")),
)


def audit(experiment: Experiment) -> dict[str, pd.DataFrame]:
    """The audit's tables by name; also written to results/published/. The same for every profile and seed.

    rows: what each printed row allows; test_sets: the sizes that explain the most rows, with the chance of such a fit,
    and how many they explain if every number was rounded, or every number cut;
    hypotheses: named test sets; repairs: single-digit misprints; auc, headlines: Hanley-McNeil. These three are at the
    size that explains the most rows, each case counted once.
    """
    from mammo_lib.evaluation.tables import NUMBERS

    made: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("rows", "test_sets", "hypotheses", "repairs", "auc", "headlines")
    }
    for stage, table in NUMBERS.items():
        for name, frame in _audit_table(stage).items():
            made[name].append(frame.assign(table=table)[["table", *frame.columns]])
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in made.items()}
    for name, frame in tables.items():
        paths.write_table(frame, experiment.places.root / "results" / "published" / f"{name}.csv")
    return tables


@cache
def _audit_table(stage: str) -> dict[str, pd.DataFrame]:
    from mammo_lib.evaluation import audit, audit_auc, audit_chance, hypotheses

    rows = hypotheses.printed_rows(stage)
    named = hypotheses.named_test_sets(get_profile("paper"))
    best = audit.best_test_sets(rows).head(BEST)
    malignant, benign = _counted_once(best)
    null = audit_chance.simulate(rows, simulations=DRAWN)
    best["chance"] = [null.p(explained) for explained in best["explained"]]
    unexplained = [row for row in rows if not audit.explains(row, malignant, benign)]
    printed = {hypotheses.row_name(row): row.auc for row in PUBLISHED if row.stage == stage}
    return {
        "rows": audit.row_findings(rows),
        "test_sets": best.assign(rows=len(rows), **_stricter(best, rows)),
        "hypotheses": audit_chance.hypothesis_chances(rows, named),
        "repairs": pd.concat([_repairs(row, malignant, benign) for row in unexplained], ignore_index=True),
        "auc": audit_auc.intervals(printed, malignant, benign).assign(malignant=malignant, benign=benign),
        "headlines": _with_accuracies(
            audit_auc.differences(printed, malignant, benign, _headlines(stage)), rows, malignant + benign
        ),
    }


def _stricter(best: pd.DataFrame, rows: "list[PrintedRow]") -> dict[str, list[int]]:
    """How many rows each size explains when the table keeps to one way of printing; it is searched with either."""
    from mammo_lib.evaluation import audit

    sizes = list(best[["malignant", "benign"]].astype(int).itertuples(index=False, name=None))
    return {
        name: [sum(audit.explains(row, malignant, benign, convention) for row in rows) for malignant, benign in sizes]
        for name, convention in (("all_rounded", "rounding"), ("all_cut", "truncation"))
    }


def _counted_once(best: pd.DataFrame) -> tuple[int, int]:
    """(malignant, benign) of the first of `best`, or of the smallest among them that it is a multiple of.

    Twice a test set explains every row that the test set does, and its intervals would be too narrow.
    """
    sizes = list(best[["malignant", "benign"]].astype(int).itertuples(index=False, name=None))
    (malignant, benign), *_ = sizes
    return min((p, n) for p, n in sizes if malignant % p == 0 and malignant // p * n == benign)


def _with_accuracies(headlines: pd.DataFrame, rows: "list[PrintedRow]", cases: int) -> pd.DataFrame:
    """Adds `least_p_accuracy`: the lowest McNemar p that the two printed accuracies allow on so many cases.

    Blank where no number of right calls among them prints as an accuracy does.
    """
    from mammo_lib.evaluation import audit, audit_auc

    accuracy = {row.name: row.accuracy for row in rows}
    least: list[float | None] = []
    for first, second in headlines[["first", "second"]].itertuples(index=False, name=None):
        right = [audit.counts_that_print(accuracy[name], np.array([cases]), "either") for name in (first, second)]
        (low, high), (other_low, other_high) = ((int(ends[0][0]), int(ends[1][0])) for ends in right)
        possible = low <= high and other_low <= other_high
        widest = max(high - other_low, other_high - low)
        least.append(audit_auc.least_mcnemar_p(widest) if possible else None)
    return headlines.assign(least_p_accuracy=pd.array(least, dtype="Float64"))


def _repairs(row: "PrintedRow", malignant: int, benign: int) -> pd.DataFrame:
    """The single-digit changes that make a row possible at this size; one line that says so when there is none."""
    from mammo_lib.evaluation import audit

    found = audit.misprints(row, malignant, benign)
    if found.empty:
        found = pd.DataFrame([{"row": row.name, "field": "none", "printed": "", "repaired": "no single digit does"}])
    return found.assign(malignant=malignant, benign=benign)


def _headlines(stage: str) -> list[tuple[str, str]]:
    from mammo_lib.evaluation import hypotheses

    names = {(row.network, row.initial): hypotheses.row_name(row) for row in PUBLISHED if row.stage == stage}
    return [(names[first], names[second]) for where, first, second in HEADLINES if where == stage]
