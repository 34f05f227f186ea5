"""Audit of printed results: which test sets could have produced the numbers of a table?

A row of sensitivity, specificity and accuracy comes from whole numbers: TP of P malignant and TN of N benign cases.
Given the row as printed, this module finds every (P, N) that can have printed it, the share of malignant cases it
implies, and the single-digit misprints that would repair it. Exact integer arithmetic throughout; usable for any paper.
It knows no data set, and a row that no test set explains is a finding of arithmetic, not of cause: misprints, averages
over runs and rows from different test sets all leave the same trace.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Ranges = tuple[Integers, Integers, Integers]

CONVENTIONS = ("rounding", "truncation", "either")  # "rounding": half up or half to even; "either": each number its own
FIELDS = ("sensitivity", "specificity", "accuracy")
BOUND = 1000  # cases per class in the complete search


@dataclass(frozen=True)
class PrintedRow:
    """One row as printed: "0.7619" or "76.19%", each number with its own number of decimals."""

    name: str
    sensitivity: str
    specificity: str
    accuracy: str

    def __post_init__(self) -> None:
        for field in FIELDS:
            parse(getattr(self, field), f"{self.name}, {field}")


@dataclass(frozen=True)
class Hypothesis:
    """A test set with a name: `malignant` and `benign` cases."""

    name: str
    malignant: int
    benign: int

    def __post_init__(self) -> None:
        if min(self.malignant, self.benign) < 1:
            raise ValueError(f"hypothesis {self.name!r}: malignant and benign must be at least 1")


def parse(text: str, where: str = "printed number") -> tuple[int, int]:
    """Numerator and denominator (a power of ten) of a printed share: "0.7619" and "76.19%" give 7619, 10000."""
    found = re.fullmatch(r"\s*(\d*)\.?(\d*)\s*(%?)\s*", text)
    if not found or not found[1] + found[2]:
        raise ValueError(f"{where}: {text!r} is not a printed share such as 0.7619 or 76.19%")
    numerator, scale = int(found[1] + found[2]), 10 ** len(found[2]) * (100 if found[3] else 1)
    if numerator > scale:
        raise ValueError(f"{where}: {text!r} is above 1")
    return numerator, scale


def counts_that_print(text: str, totals: Integers, convention: str) -> tuple[Integers, Integers]:
    """For each total the lowest and highest count whose share of it prints as `text`; low > high where none does.

    Every count between the two prints so, too. Rounding s = numerator: (2s - 1) t <= 2 k S <= (2s + 1) t, the upper
    end only for even s (half to even). Truncation: s t <= k S < (s + 1) t.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}: choose one of {', '.join(CONVENTIONS)}")
    numerator, scale = parse(text)
    tie = numerator % 2  # an odd last digit is never what half-to-even rounds down to
    low_rounded = _ceiling((2 * numerator - 1) * totals, 2 * scale)
    high_rounded = ((2 * numerator + 1) * totals - tie) // (2 * scale)
    low_cut = _ceiling(numerator * totals, scale)
    high_cut = _ceiling((numerator + 1) * totals, scale) - 1
    low, high = {
        "rounding": (low_rounded, high_rounded),
        "truncation": (low_cut, high_cut),
        "either": (np.minimum(low_rounded, low_cut), np.maximum(high_rounded, high_cut)),
    }[convention]
    return np.maximum(low, 0), np.minimum(high, totals)


def _ceiling(above: Integers, below: int) -> Integers:
    return -(-above // below)


def fits(row: PrintedRow, bound: int = BOUND, convention: str = "either") -> Integers:
    """Every (P, N) with 1 <= P, N <= bound that can have printed the row: int64 (k, 2), by P, then N.

    Complete: TP and TN each run over an interval of integers, so TP + TN runs over one too, and it must meet the
    interval that prints the accuracy.
    """
    hits, clear = (_possible_up_to(text, bound, convention) for text in (row.sensitivity, row.specificity))
    return _meeting(row.accuracy, hits, clear, convention)


def explains(row: PrintedRow, malignant: int, benign: int, convention: str = "either") -> bool:
    """Whether a test set of this size can have printed the row."""
    hits = _possible(row.sensitivity, np.array([malignant]), convention)
    clear = _possible(row.specificity, np.array([benign]), convention)
    return len(_meeting(row.accuracy, hits, clear, convention)) > 0


def _meeting(accuracy: str, hits: Ranges, clear: Ranges, convention: str) -> Integers:
    """Pairs of totals with counts among the `hits` and the `clear` whose sum prints as the accuracy."""
    (malignant, hits_low, hits_high), (benign, clear_low, clear_high) = hits, clear
    low, high = counts_that_print(accuracy, np.add.outer(malignant, benign), convention)
    low, high = (
        np.maximum(low, np.add.outer(hits_low, clear_low)),
        np.minimum(high, np.add.outer(hits_high, clear_high)),
    )
    first, second = np.nonzero(low <= high)
    return np.stack([malignant[first], benign[second]], axis=1)


@cache  # a simulation draws the same endings of the same numbers over and over
def _possible_up_to(text: str, bound: int, convention: str) -> Ranges:
    return _possible(text, np.arange(1, bound + 1, dtype=np.int64), convention)


def _possible(text: str, totals: Integers, convention: str) -> Ranges:
    """The totals of which some share prints as `text`, and for each the lowest and highest count."""
    low, high = counts_that_print(text, totals, convention)
    kept = low <= high
    return totals[kept], low[kept], high[kept]


@cache  # a simulation asks it of the same rows for every table it draws
def malignant_share(row: PrintedRow, convention: str = "either") -> tuple[Fraction, Fraction] | None:
    """Lowest and highest share of malignant cases the row allows at any sample size; None if it allows none.

    accuracy = share x sensitivity + (1 - share) x specificity, each number anywhere in the interval that prints so.
    Both conditions are linear in the share, so the interval is exact (its ends closed). The whole of [0, 1] when
    sensitivity, specificity and accuracy print alike: such a row says nothing about the share.
    """
    (hit_low, hit_high), (clear_low, clear_high), (right_low, right_high) = (
        _printed_interval(getattr(row, field), convention) for field in FIELDS
    )
    low, high = Fraction(0), Fraction(1)
    for slope, offset in (  # slope x share <= offset
        (hit_low - clear_low, right_high - clear_low),
        (clear_high - hit_high, clear_high - right_low),
    ):
        if slope > 0:
            high = min(high, offset / slope)
        elif slope < 0:
            low = max(low, offset / slope)
        elif offset < 0:
            return None
    return (low, high) if low <= high else None


def _printed_interval(text: str, convention: str) -> tuple[Fraction, Fraction]:
    numerator, scale = parse(text)
    below = Fraction(0) if convention == "truncation" else Fraction(1, 2)
    above = Fraction(1, 2) if convention == "rounding" else Fraction(1)
    return max(Fraction(0), (numerator - below) / scale), min(Fraction(1), (numerator + above) / scale)


def row_findings(rows: Sequence[PrintedRow], bound: int = BOUND, convention: str = "either") -> pd.DataFrame:
    """What each row allows by itself.

    Columns: `row`, `share`, `share_low`, `share_high` (implied malignant share: of the printed numbers themselves, and
    its interval), `test_sets` (number of (P, N) up to bound), `least_malignant`, `least_benign` (the smallest of them)
    and `finding`: "possible", "no test set up to bound" or "impossible at any size". What does not exist is None.
    """
    columns = ["row", "share", "share_low", "share_high", "test_sets", "least_malignant", "least_benign", "finding"]
    findings = pd.DataFrame([_row_finding(row, bound, convention) for row in rows], columns=columns)
    return findings.astype(
        dict.fromkeys(columns[1:4], "Float64") | {"least_malignant": "Int64", "least_benign": "Int64"}
    )


def _row_finding(row: PrintedRow, bound: int, convention: str) -> dict[str, object]:
    share, found = malignant_share(row, convention), fits(row, bound, convention)
    least = found[np.argmin(found.sum(axis=1))].tolist() if len(found) else [None, None]
    possible = "possible" if len(found) else f"no test set up to {bound} per class"
    hit, clear, right = (Fraction(*parse(getattr(row, field))) for field in FIELDS)
    return {
        "row": row.name,
        "share": float((right - clear) / (hit - clear)) if hit != clear else None,
        "share_low": float(share[0]) if share else None,
        "share_high": float(share[1]) if share else None,
        "test_sets": len(found),
        "least_malignant": least[0],
        "least_benign": least[1],
        "finding": possible if share else "impossible at any size: accuracy is not between the two",
    }


def best_test_sets(rows: Sequence[PrintedRow], bound: int = BOUND, convention: str = "either") -> pd.DataFrame:
    """Every (P, N) up to bound that explains a row: columns `malignant, benign, explained`, most rows first.

    Of equals the smaller comes first; multiples of a test set explain at least what the test set itself does.
    """
    found = [fits(row, bound, convention) for row in rows]
    pairs, explained = np.unique(np.concatenate(found), axis=0, return_counts=True) if rows else (np.empty((0, 2)), [])
    frame = pd.DataFrame({"malignant": pairs[:, 0], "benign": pairs[:, 1], "explained": explained})
    frame["total"] = frame["malignant"] + frame["benign"]
    ordered = frame.sort_values(["explained", "total", "malignant"], ascending=[False, True, True], ignore_index=True)
    return ordered.drop(columns="total")


def misprints(row: PrintedRow, malignant: int, benign: int, convention: str = "either") -> pd.DataFrame:
    """Every change of one decimal digit after which (P, N) explains the row: columns `row, field, printed, repaired`.

    Nine alternatives for each digit of three numbers (108 for four decimals) make a repair by chance that many times as
    likely as a fit by chance: a repair is a possibility, not evidence.
    """
    repaired = [
        (row.name, field, getattr(row, field), text)
        for field in FIELDS
        for text in _one_digit_off(getattr(row, field))
        if explains(replace(row, **{field: text}), malignant, benign, convention)
    ]
    return pd.DataFrame(repaired, columns=["row", "field", "printed", "repaired"])


def _one_digit_off(text: str) -> list[str]:
    first = 0 if "%" in text else text.find(".") + 1  # the 0 before the point of a share is no misprint
    places = [place for place in range(first, len(text)) if text[place].isdigit()]
    changed = [text[:place] + digit + text[place + 1 :] for place in places for digit in "0123456789"]
    return [other for other in changed if other != text]
