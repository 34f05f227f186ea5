"""The audit against hand-counted rows, a brute-force search, and the round trip from real confusion matrices."""

import re
from collections import Counter
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo_lib import config
from mammo_lib.evaluation import audit, audit_auc, audit_chance, hypotheses

MODES = {"rounding": (ROUND_HALF_UP, ROUND_HALF_EVEN), "truncation": (ROUND_DOWN,)}
MODES["either"] = MODES["rounding"] + MODES["truncation"]


def printed(count: int, total: int, decimals: int, mode: str) -> str:
    """As a decimal library prints it. 28 digits: a tie is exact, and what is not a tie stays off it."""
    return str((Decimal(count) / Decimal(total)).quantize(Decimal(1).scaleb(-decimals), rounding=mode))


def brute_force(row: audit.PrintedRow, bound: int, convention: str, decimals: int) -> set[tuple[int, int]]:
    """Every TP of P and TN of N, printed and compared as strings."""
    prints = {
        (count, total): {printed(count, total, decimals, mode) for mode in MODES[convention]}
        for total in range(1, 2 * bound + 1)
        for count in range(total + 1)
    }
    found = set()
    for malignant in range(1, bound + 1):
        hits = [count for count in range(malignant + 1) if row.sensitivity in prints[count, malignant]]
        for benign in range(1, bound + 1) if hits else []:
            clears = [count for count in range(benign + 1) if row.specificity in prints[count, benign]]
            if any(row.accuracy in prints[hit + clear, malignant + benign] for hit in hits for clear in clears):
                found.add((malignant, benign))
    return found


@pytest.mark.parametrize("convention", audit.CONVENTIONS)
@pytest.mark.parametrize("numbers", [("0.75", "0.50", "0.62"), ("0.67", "0.90", "0.83"), ("0.9", "0.4", "0.6")])
def test_search_equals_brute_force(numbers: tuple[str, str, str], convention: str) -> None:
    row, decimals = audit.PrintedRow("row", *numbers), len(numbers[0]) - 2
    found = {tuple(pair) for pair in audit.fits(row, 24, convention).tolist()}
    assert found == brute_force(row, 24, convention, decimals)


def test_ties_by_hand() -> None:
    """1 of 8 is 0.125: half up prints 0.13, half to even 0.12, truncation 0.12; 3 of 8 is 0.375: 0.38, 0.38, 0.37."""

    def possible(text: str, convention: str) -> list[int]:
        low, high = audit.counts_that_print(text, np.array([8]), convention)
        return list(range(low[0], high[0] + 1))

    assert possible("0.13", "rounding") == [1]
    assert possible("0.12", "rounding") == [1]
    assert possible("0.13", "truncation") == []
    assert possible("0.38", "rounding") == [3]
    assert possible("0.37", "rounding") == []
    assert possible("0.37", "truncation") == [3]
    assert possible("1.00", "either") == [8]
    assert possible("0.00", "either") == [0]


@settings(deadline=None)
@given(st.data(), st.sampled_from(audit.CONVENTIONS[:2]), st.sampled_from([2, 3, 4]))
def test_every_real_confusion_matrix_is_found(data: st.DataObject, convention: str, decimals: int) -> None:
    malignant, benign = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    hits, clears = data.draw(st.integers(0, malignant)), data.draw(st.integers(0, benign))
    mode = data.draw(st.sampled_from(MODES[convention]))
    shares = ((hits, malignant), (clears, benign), (hits + clears, malignant + benign))
    row = audit.PrintedRow("row", *(printed(*share, decimals, mode) for share in shares))
    for tried in (convention, "either"):
        assert audit.explains(row, malignant, benign, tried)
        low, high = audit.malignant_share(row, tried)
        assert low <= Fraction(malignant, malignant + benign) <= high
    assert (audit.fits(row, 300, convention) == [malignant, benign]).all(axis=1).any()


@pytest.mark.parametrize(
    ("numbers", "convention", "low", "high"),
    [
        # least share: 0.8005 p + 0.6005 (1 - p) = 0.6995 -> 0.099 / 0.2; most: 0.7995 p + 0.5995 (1 - p) = 0.7005
        (("0.800", "0.600", "0.700"), "rounding", Fraction(99, 200), Fraction(101, 200)),
        # cut off, a number is up to a unit more: 0.801 p + 0.601 (1 - p) = 0.700, 0.800 p + 0.600 (1 - p) = 0.701
        (("0.800", "0.600", "0.700"), "truncation", Fraction(99, 200), Fraction(101, 200)),
        # and of either kind half a unit less, too: 0.801 p + 0.601 (1 - p) = 0.6995, 0.7995 p + 0.5995 (1 - p) = 0.701
        (("0.800", "0.600", "0.700"), "either", Fraction(985, 2000), Fraction(1015, 2000)),
        # no number is above 1: p + 0.505 (1 - p) = 0.745, 0.995 p + 0.495 (1 - p) = 0.755
        (("1.00", "0.50", "0.75"), "rounding", Fraction(240, 495), Fraction(260, 500)),
        # or below 0: 0.505 p + 0.005 (1 - p) = 0.245, 0.495 p = 0.255
        (("0.50", "0.00", "0.25"), "rounding", Fraction(240, 500), Fraction(255, 495)),
        (("0.70", "0.70", "0.70"), "either", 0, 1),
    ],
)
def test_share_by_hand(numbers: tuple[str, str, str], convention: str, low: Fraction, high: Fraction) -> None:
    """0.8 p + 0.6 (1 - p) = 0.7 gives one half; half a unit in the last digit of each moves it by 0.05 at most."""
    assert audit.malignant_share(audit.PrintedRow("row", *numbers), convention) == (low, high)


def test_row_findings_by_hand() -> None:
    """3 of 4 and 3 of 6 are 6 of 10: share 0.1 / 0.25; its ends: 0.595 = 0.755 p + 0.505 (1 - p), and the other way."""
    row = audit.PrintedRow("row", "0.75", "0.50", "0.60")
    finding = audit.row_findings([row], 24, "rounding").iloc[0]
    possible = brute_force(row, 24, "rounding", 2)
    assert (finding["row"], finding["finding"], finding["test_sets"]) == ("row", "possible", len(possible))
    assert finding[["share", "share_low", "share_high"]].tolist() == pytest.approx([0.4, 0.09 / 0.25, 0.11 / 0.25])
    assert (finding["least_malignant"], finding["least_benign"]) == min(possible, key=sum) == (4, 6)
    alike = audit.row_findings([audit.PrintedRow("row", "0.70", "0.70", "0.70")], 12).iloc[0]
    assert alike[["share", "share_low", "share_high"]].tolist() == [pd.NA, 0, 1]


def test_accuracy_outside_the_two_is_impossible_at_any_size() -> None:
    for numbers in (("0.80", "0.70", "0.85"), ("0.70", "0.70", "0.90"), ("0.70", "0.70", "0.50")):
        row = audit.PrintedRow("row", *numbers)
        assert all(audit.malignant_share(row, convention) is None for convention in audit.CONVENTIONS)
        finding = audit.row_findings([row], 60).iloc[0]
        assert finding["test_sets"] == 0
        assert finding["finding"].startswith("impossible at any size")
    few = audit.row_findings([audit.PrintedRow("row", "0.7619", "0.7748", "0.7698")], 100).iloc[0]
    assert few["finding"] == "no test set up to 100 per class"


def test_percent_and_bad_numbers() -> None:
    assert audit.parse("76.19%") == audit.parse("0.7619") == audit.parse(".7619") == (7619, 10_000)
    percent = audit.PrintedRow("row", "75%", "50%", "62.5%")
    assert audit.explains(percent, 4, 4, "rounding")
    for text in ("", "1.2", "-0.5", "0,76", "nan"):
        with pytest.raises(ValueError, match="row, sensitivity"):
            audit.PrintedRow("row", text, "0.5", "0.5")
    with pytest.raises(ValueError, match="unknown convention"):
        audit.fits(percent, 10, "ceiling")


def test_misprint_is_repaired() -> None:
    """3 of 4 and 5 of 8 is 0.75, 0.625, 0.667; the specificity is misprinted by one digit."""
    row = audit.PrintedRow("row", "0.750", "0.925", "0.667")
    assert not audit.explains(row, 4, 8)
    assert ["row", "specificity", "0.925", "0.625"] in audit.misprints(row, 4, 8).to_numpy().tolist()
    in_percent = audit.misprints(audit.PrintedRow("row", "75.0%", "92.5%", "66.7%"), 4, 8)
    assert "62.5%" in in_percent["repaired"].tolist()
    right = audit.misprints(audit.PrintedRow("row", "0.750", "0.625", "0.667"), 4, 8)
    assert (right["printed"] != right["repaired"]).all()


def test_hypotheses_and_best_by_hand() -> None:
    rows = [audit.PrintedRow("one", "0.750", "0.625", "0.667"), audit.PrintedRow("two", "0.500", "0.875", "0.750")]
    named = [audit.Hypothesis("right", 4, 8), audit.Hypothesis("wrong", 5, 8)]
    findings = audit_chance.hypothesis_chances(rows, named, "rounding")
    assert findings["explained"].tolist() == [2, 0]
    assert findings["which"].tolist() == ["one; two", ""]
    assert findings["rows"].tolist() == [2, 2]
    both = sum(audit_chance.tail_bound(rows, malignant, 8, 2, "rounding") for malignant in (4, 5))
    assert findings["chance"].tolist() == pytest.approx([both, 1])
    assert audit.best_test_sets(rows, 20).iloc[0].tolist() == [4, 8, 2]
    with pytest.raises(ValueError, match="at least 1"):
        audit.Hypothesis("empty", 0, 3)


def test_chance_of_a_fit_by_hand() -> None:
    """Of 0.0 to 0.9, a class of four prints 0, .25, .5, .75 (and 1.0, which is no ending of 0.7) as 0.0 .3 .5 .8 by
    half up or .2 .5 .8 to even: {0, .2, .3, .5, .8} of ten; one of two cases prints 0.0, 0.5: two of ten."""
    row = audit.PrintedRow("row", "0.7", "0.7", "0.7")
    assert audit_chance.fit_chance(row, 4, 2, "rounding", 1) == pytest.approx(0.5 * 0.2)
    # two rows, each explained with a chance of a tenth at most: none is certain, one or more 0.19, both 0.01
    tails = [audit_chance.tail_bound([row, row], 4, 2, explained, "rounding", 1) for explained in (0, 1, 2)]
    assert tails == pytest.approx([1, 1 - 0.9**2, 0.1**2])


def test_a_row_of_the_null_keeps_its_level_and_the_balance_of_its_classes() -> None:
    """Sensitivity 90, specificity 50, accuracy 60 %: a share of 0.25, to which the digits leave 0.0013 on either side.

    So of the accuracy 0.11 points are left open: 0.0013 of a gap of 40, and half a unit of its last digit.
    """
    row, generator = audit.PrintedRow("row", "90.000%", "50.000%", "60.0%"), np.random.default_rng(0)
    drawn = [audit_chance._drawn(row, generator, "rounding", 2) for _ in range(200)]
    for one in drawn:
        assert one.name == "row"
        printed_so = f"{one.sensitivity} {one.specificity} {one.accuracy}"
        assert re.fullmatch(r"90\.0\d\d% 50\.0\d\d% \d\d\.\d%", printed_so)
        hit, clear, right = (float(text.rstrip("%")) for text in (one.sensitivity, one.specificity, one.accuracy))
        assert right == pytest.approx((hit + 3 * clear) / 4, abs=0.11)
    assert len({one.sensitivity for one in drawn}) > 70  # of a hundred endings 87, when each is as likely
    assert len({one.specificity for one in drawn}) > 70
    coarse = audit.PrintedRow("row", "0.75", "0.5", "0.60")
    found = [audit_chance._drawn(coarse, generator, "rounding", 2) for _ in range(100)]
    assert {one.sensitivity for one in found} == {f"0.7{digit}" for digit in range(10)}


def test_what_is_printed_as_one_stays_so_in_the_null() -> None:
    """Every class prints 1.00, of its own or of all: that adds no luck to a specificity of 0.5 from two cases."""
    row = audit.PrintedRow("row", "1.00", "0.5", "0.75")
    assert audit_chance.fit_chance(row, 7, 2, "rounding", 1) == pytest.approx(0.2)
    drawn = audit_chance._drawn(replace(row, sensitivity="100.0%"), np.random.default_rng(0), "rounding", 1)
    assert drawn.sensitivity == "100.0%"


def test_chance_tells_a_true_test_set_from_noise() -> None:
    generator = np.random.default_rng(0)
    true = [_row_of(generator, 61, 89) for _ in range(5)]
    found = audit_chance.simulate(true, bound=150, simulations=50, seed=1)
    assert audit.best_test_sets(true, 150)["explained"].iloc[0] == 5
    assert found.p(5) == pytest.approx(1 / 51)
    assert found.p(0) == 1
    assert audit_chance.tail_bound(true, 61, 89, 5) < 1e-6
    noise = [_row_of(generator, *generator.integers(100, 150, size=2)) for _ in range(5)]
    found = audit_chance.simulate(noise, bound=150, simulations=50, seed=1)
    assert found.p(int(audit.best_test_sets(noise, 150)["explained"].iloc[0])) > 0.05


def _row_of(generator: np.random.Generator, malignant: int, benign: int) -> audit.PrintedRow:
    hits, clears = (int(total * generator.uniform(0.6, 0.9)) for total in (malignant, benign))
    shares = (hits / malignant, clears / benign, (hits + clears) / (malignant + benign))
    return audit.PrintedRow("row", *(f"{share:.4f}" for share in shares))


def test_hanley_mcneil_without_discrimination_is_the_exact_variance_of_mann_whitney() -> None:
    for malignant, benign in ((1, 1), (2, 3), (139, 209)):
        exact = np.sqrt((malignant + benign + 1) / (12 * malignant * benign))
        assert audit_auc.hanley_mcneil_error(0.5, malignant, benign) == pytest.approx(exact, rel=1e-12)


def test_hanley_mcneil_holds_for_the_exponential_scores_it_assumes() -> None:
    """Exponential scores with rate (1 - A) / A against rate 1 have AUC A, Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A)."""
    generator, auc, tables = np.random.default_rng(0), 0.8, 4000
    malignant = generator.exponential(auc / (1 - auc), size=(tables, 20, 1))
    simulated = (malignant > generator.exponential(size=(tables, 1, 30))).mean(axis=(1, 2))
    assert simulated.mean() == pytest.approx(auc, abs=0.005)
    assert audit_auc.hanley_mcneil_error(auc, 20, 30) == pytest.approx(simulated.std(), rel=0.04)


def test_auc_interval_stays_below_one() -> None:
    low, high = audit_auc.interval(0.99, 5, 5)
    assert 0 < low < high == 1
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        audit_auc.hanley_mcneil_error(1.2, 5, 5)


def test_a_perfect_auc_has_no_error() -> None:
    assert audit_auc.hanley_mcneil_error(1, 20, 30) == audit_auc.hanley_mcneil_error(0, 20, 30) == 0
    found = audit_auc.differences({"a": 1, "b": 1, "c": 0}, 20, 30, [("a", "b"), ("a", "c")])
    assert found["p_independent"].tolist() == [1, 0]


@pytest.mark.parametrize("pair", [(1.0, 0.9), (0.9, 1.0)])
def test_beside_a_perfect_auc_only_the_others_error_counts(pair: tuple[float, float]) -> None:
    """At 0.9 of 20 and 30 it is 0.0497: 0.1 is 2.01 of them, so significant at 95 % and not at 99 %."""
    assert 0.1 / audit_auc.hanley_mcneil_error(0.9, 20, 30) == pytest.approx(2.01, abs=0.005)
    assert audit_auc.correlation_needed(*pair, 20, 30) == -np.inf
    assert audit_auc.correlation_needed(*pair, 20, 30, confidence=0.99) == np.inf


def test_correlation_needed_is_where_z_reaches_its_bound() -> None:
    needed = audit_auc.correlation_needed(0.80, 0.76, 139, 209)
    one, two = (audit_auc.hanley_mcneil_error(value, 139, 209) for value in (0.80, 0.76))
    assert 0.04 / np.sqrt(one**2 + two**2 - 2 * needed * one * two) == pytest.approx(1.959964, abs=1e-5)
    between = audit_auc.differences({"a": 0.80, "b": 0.76}, 139, 209, [("a", "b")])["finding"].tolist()
    assert between == [f"significant if the two AUCs correlate at {needed:.3f} or more"]
    assert audit_auc.correlation_needed(0.8, 0.8, 10, 10) == np.inf
    rows = {"a": 0.95, "b": 0.55, "c": 0.95}
    findings = audit_auc.differences(rows, 400, 400, [("a", "b"), ("a", "c"), ("b", "c")])["finding"].tolist()
    assert findings == [
        "significant at any correlation",
        "significant at no correlation",
        "significant at any correlation",
    ]


def test_printed_aucs_by_hand() -> None:
    """At 0.8, Q1 is 2 / 3 and Q2 1.28 / 1.8; at 0.5, the variance is the exact one of Mann and Whitney."""
    rows, normal = {"a": 0.8, "b": 0.5}, NormalDist()
    errors = [np.sqrt((0.16 + 19 * (2 / 3 - 0.64) + 29 * (1.28 / 1.8 - 0.64)) / 600), np.sqrt(51 / (12 * 600))]
    for confidence, tail in (({}, 0.975), ({"confidence": 0.9}, 0.95)):
        found = audit_auc.intervals(rows, 20, 30, **confidence)
        assert found["row"].tolist() == ["a", "b"]
        assert found["standard_error"].tolist() == pytest.approx(errors)
        for row, error in zip(found.itertuples(), errors, strict=True):
            half = normal.inv_cdf(tail) * error
            assert (row.low, row.high) == pytest.approx((row.auc - half, row.auc + half))
    assert audit_auc.differences(rows, 20, 30, []).empty
    one = audit_auc.differences(rows, 20, 30, [("b", "a")]).iloc[0]
    assert (one["first"], one["second"], one["difference"]) == ("b", "a", pytest.approx(-0.3))
    assert one["p_independent"] == pytest.approx(2 * normal.cdf(-0.3 / np.hypot(*errors)))


def test_least_mcnemar_p_by_hand() -> None:
    assert audit_auc.least_mcnemar_p(7) == 2 / 2**7
    assert audit_auc.least_mcnemar_p(0) == 1


def test_the_papers_tables() -> None:
    """Both tables, complete search to 1000 per class; the winners are checked row by row as fractions."""
    for stage, winner, explained in (("P", (294, 462), 4), ("G", (139, 209), 8)):
        rows = hypotheses.printed_rows(stage)
        best = audit.best_test_sets(rows).iloc[0]
        assert (best["malignant"], best["benign"], best["explained"]) == (*winner, explained)
        assert _explained_slowly(rows, *winner) == explained


def _explained_slowly(rows: list[audit.PrintedRow], malignant: int, benign: int) -> int:
    """Rounded or cut decimals of every fraction, kept in sets of strings."""
    count = Counter()
    for row in rows:
        hits = [k for k in range(malignant + 1) if row.sensitivity in _both(k, malignant)]
        clears = [k for k in range(benign + 1) if row.specificity in _both(k, benign)]
        right = {row.accuracy in _both(hit + clear, malignant + benign) for hit in hits for clear in clears}
        count[True in right] += 1
    return count[True]


def _both(count: int, total: int) -> set[str]:
    return {printed(count, total, hypotheses.DECIMALS, mode) for mode in (ROUND_HALF_UP, ROUND_DOWN)}


def test_printed_rows_are_the_papers() -> None:
    rows = hypotheses.printed_rows("G")
    assert len(rows) == 12
    assert (rows[1].name, rows[1].specificity) == ("VGG16, Patch data", "0.7380")
    assert len(hypotheses.printed_rows("P")) == sum(row.stage == "P" for row in config.PUBLISHED)
