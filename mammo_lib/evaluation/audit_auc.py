"""What a printed AUC can mean at a given sample size: its interval, and whether two of them can differ significantly.

A printed AUC comes without the scores behind it, so Hanley and McNeil's (1982) variance stands in, which needs only the
AUC and the numbers of cases; the correlation of two AUCs on the same cases is not known and is therefore what is solved
for. Both take cases for independent: several patches of a mass, or views of a breast, make every interval wider.
Knows numbers only.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm


def hanley_mcneil_error(auc: float, malignant: int, benign: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982, with Q1 = A / (2 - A) and Q2 = 2 A^2 / (1 + A))."""
    if not 0 <= auc <= 1:
        raise ValueError(f"auc is {auc}: it must lie in [0, 1]")
    if min(malignant, benign) < 1:
        raise ValueError(f"malignant is {malignant} and benign {benign}: at least one case of each is needed")
    both_malignant, both_benign = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    variance = auc * (1 - auc) + (malignant - 1) * both_malignant + (benign - 1) * both_benign
    return float(np.sqrt(variance / (malignant * benign)))


def interval(auc: float, malignant: int, benign: int, confidence: float = 0.95) -> tuple[float, float]:
    """Normal interval of a printed AUC, cut to [0, 1]."""
    half = norm.ppf((1 + confidence) / 2) * hanley_mcneil_error(auc, malignant, benign)
    return float(max(0.0, auc - half)), float(min(1.0, auc + half))


def correlation_needed(first: float, second: float, malignant: int, benign: int, confidence: float = 0.95) -> float:
    """Least correlation of the two AUCs at which their difference is significant on the same cases.

    Solves |A1 - A2| = z sqrt(s1^2 + s2^2 - 2 r s1 s2) for r. Below -1: significant at any correlation; above 1: at
    none. Equal AUCs give inf.
    """
    errors = [hanley_mcneil_error(auc, malignant, benign) for auc in (first, second)]
    if first == second:
        return float("inf")
    if min(errors) == 0:  # one AUC is 0 or 1: correlation plays no part
        significant = abs(first - second) >= norm.ppf((1 + confidence) / 2) * max(errors)
        return float("-inf") if significant else float("inf")
    allowed = ((first - second) / norm.ppf((1 + confidence) / 2)) ** 2
    return float((errors[0] ** 2 + errors[1] ** 2 - allowed) / (2 * errors[0] * errors[1]))


def intervals(printed: Mapping[str, float], malignant: int, benign: int, confidence: float = 0.95) -> pd.DataFrame:
    """Columns `row, auc, standard_error, low, high`: each printed AUC, by its row, at the inferred sample size."""
    return pd.DataFrame(
        [
            (row, auc, hanley_mcneil_error(auc, malignant, benign), *interval(auc, malignant, benign, confidence))
            for row, auc in printed.items()
        ],
        columns=["row", "auc", "standard_error", "low", "high"],
    )


def differences(
    printed: Mapping[str, float],
    malignant: int,
    benign: int,
    pairs: Sequence[tuple[str, str]],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Can two printed AUCs differ significantly? One line per pair (first, second) of rows.

    Columns `first, second, difference, p_independent` (two-sided, correlation 0), `correlation_needed` and `finding`.
    """
    lines = []
    for first, second in pairs:
        gap = printed[first] - printed[second]
        needed = correlation_needed(printed[first], printed[second], malignant, benign, confidence)
        errors = [hanley_mcneil_error(printed[name], malignant, benign) for name in (first, second)]
        error = float(np.hypot(errors[0], errors[1]))
        p = float(2 * norm.sf(abs(gap) / error)) if error > 0 else float(gap == 0)
        lines.append((first, second, gap, p, needed, _finding(needed)))
    return pd.DataFrame(
        lines, columns=["first", "second", "difference", "p_independent", "correlation_needed", "finding"]
    )


def _finding(needed: float) -> str:
    if needed > 1:
        return "significant at no correlation"
    if needed <= -1:
        return "significant at any correlation"
    return f"significant if the two AUCs correlate at {needed:.3f} or more"


def least_mcnemar_p(gap: int) -> float:
    """Lowest two-sided exact McNemar p where one of two has `gap` >= 0 more right calls on the same cases.

    Reached when every case on which the two differ goes to the better one: 2 x 0.5^gap.
    """
    return min(1.0, 2 * 0.5**gap)
