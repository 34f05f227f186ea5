"""How easily would a test set explain this many printed rows by chance?

Null model (ours): the rows have nothing to do with any common test set. The last `digits` decimals of sensitivity and
specificity are random, each value equally likely, and the accuracy follows from a share of malignant cases that the row
itself allows, so that the null is given the table's own level and class balance and differs in its fine digits only.
Two answers: `tail_bound` for a test set named in advance, above the true probability, and `simulate` for the best of a
complete search, which repeats the search. (A bound for the search, the sum of every size's own, says nothing: large
sizes print almost any row.)
Knows printed rows only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd

from mammo_lib.evaluation import audit

DIGITS = 2  # of four: values within 0.01 of the printed ones, wide beside 1/P and narrow beside the table's spread


@dataclass(frozen=True)
class Simulation:
    """Tables drawn from the null: `best` (simulations,) is the number of rows that the best (P, N) explains in each."""

    best: np.ndarray

    def p(self, explained: int) -> float:
        """Share of null tables in which some test set explains as many rows, one added to count and total."""
        return float((1 + (self.best >= explained).sum()) / (1 + len(self.best)))


def _ending(text: str, ending: int, digits: int) -> str:
    """`text` with its last decimals replaced by `ending`; no other ending is possible of a printed 1."""
    numerator, scale = audit.parse(text)
    if numerator == scale:
        return text
    percent = "%" if text.strip().endswith("%") else ""
    bare = text.strip().rstrip("%").rstrip()
    return f"{bare[: len(bare) - digits]}{ending:0{digits}d}{percent}"


def _random_digits(row: audit.PrintedRow, digits: int) -> int:
    """At most `digits`, and one less than a number has decimals; one at the least."""
    decimals = [len(getattr(row, field).rstrip("% ").partition(".")[2]) for field in audit.FIELDS[:2]]
    return max(1, min([digits, *(count - 1 for count in decimals)]))


@cache  # asked of every test set for every other: of the same row and size again and again
def fit_chance(row: audit.PrintedRow, malignant: int, benign: int, convention: str, digits: int = DIGITS) -> float:
    """Probability under the null that (P, N) can print the row's sensitivity and specificity (accuracy not counted).

    An upper bound of the probability that it explains the row. Counted over all endings, not simulated.
    """
    used = _random_digits(row, digits)
    shares = []
    for text, total in ((row.sensitivity, malignant), (row.specificity, benign)):
        endings = [_ending(text, ending, used) for ending in range(10**used)]
        ranges = [audit.counts_that_print(ending, np.array([total]), convention) for ending in endings]
        shares.append(np.mean([low[0] <= high[0] for low, high in ranges]))
    return float(np.prod(shares))


def tail_bound(
    rows: Sequence[audit.PrintedRow],
    malignant: int,
    benign: int,
    explained: int,
    convention: str = "either",
    digits: int = DIGITS,
) -> float:
    """Upper bound of the null probability that (P, N) explains at least so many rows.

    Rows are independent under the null, so the number explained is Poisson-binomial.
    """
    distribution = np.ones(1)
    for row in rows:
        chance = fit_chance(row, malignant, benign, convention, digits)
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(min(1.0, distribution[explained:].sum()))


def simulate(
    rows: Sequence[audit.PrintedRow],
    bound: int = audit.BOUND,
    convention: str = "either",
    simulations: int = 199,
    seed: int = 0,
    digits: int = DIGITS,
) -> Simulation:
    """Repeat the complete search on tables drawn from the null; its p count the search itself as part of the luck."""
    generator = np.random.default_rng(seed)
    drawn = ([_drawn(row, generator, convention, digits) for row in rows] for _ in range(simulations))
    best = np.array([_most_explained(table, bound, convention) for table in drawn])
    return Simulation(best)


def _drawn(row: audit.PrintedRow, generator: np.random.Generator, convention: str, digits: int) -> audit.PrintedRow:
    used = _random_digits(row, digits)
    hit, clear = (_ending(text, int(generator.integers(10**used)), used) for text in (row.sensitivity, row.specificity))
    allowed = audit.malignant_share(row, convention) or (Fraction(0), Fraction(1))
    share = generator.uniform(float(allowed[0]), float(allowed[1]))
    right = share * float(Fraction(*audit.parse(hit))) + (1 - share) * float(Fraction(*audit.parse(clear)))
    decimals = len(row.accuracy.rstrip("% ").partition(".")[2])
    percent = row.accuracy.strip().endswith("%")
    text = f"{min(right, 1) * (100 if percent else 1):.{decimals}f}{'%' if percent else ''}"
    return replace(row, sensitivity=hit, specificity=clear, accuracy=text)


def _most_explained(rows: Sequence[audit.PrintedRow], bound: int, convention: str) -> int:
    found = np.concatenate([audit.fits(row, bound, convention) for row in rows])
    keys = found[:, 0] * (bound + 1) + found[:, 1]
    return int(np.bincount(keys).max()) if len(keys) else 0


def hypothesis_chances(
    rows: Sequence[audit.PrintedRow], hypotheses: Sequence[audit.Hypothesis], convention: str = "either"
) -> pd.DataFrame:
    """One line per named test set: how many rows it explains, which, by name, and `chance`: a bound of the probability
    that any of the sets named explains as many (union bound: the sum of their own).

    Columns `hypothesis, malignant, benign, explained, rows, chance, which`.
    """
    lines = []
    for test in hypotheses:
        size = test.malignant, test.benign
        which = [row.name for row in rows if audit.explains(row, *size, convention)]
        tails = [tail_bound(rows, other.malignant, other.benign, len(which), convention) for other in hypotheses]
        lines.append((test.name, *size, len(which), len(rows), min(1.0, sum(tails)), "; ".join(which)))
    columns = ["hypothesis", "malignant", "benign", "explained", "rows", "chance", "which"]
    return pd.DataFrame(lines, columns=columns)
