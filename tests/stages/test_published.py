"""The audit of the printed numbers, as a whole."""

import math
from fractions import Fraction

import pandas as pd
import pytest

from mammo_lib import stages
from mammo_lib.config import PUBLISHED
from mammo_lib.stages.published import _counted_once


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(294, 462), (588, 924), (147, 231), (441, 684)], (147, 231)),  # the first is twice the third
        ([(139, 209), (278, 418), (278, 209)], (139, 209)),  # others are multiples of the first, not divisors
        ([(294, 462), (147, 462), (294, 231)], (294, 462)),  # divides one of the two only
    ],
)
def test_a_test_set_counted_twice_is_taken_once(sizes: list[tuple[int, int]], size: tuple[int, int]) -> None:
    assert _counted_once(pd.DataFrame(sizes, columns=["malignant", "benign"])) == size


def test_the_printed_auc_of_table_1_has_the_interval_of_the_official_test_masses(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    made = stages.audit(stages.Experiment.of("quick", "official", 0))
    row = made["auc"].query("table == 'Table 1' and row == 'ResNet50+CBAM'").iloc[0]
    area, malignant, benign = 0.8607, 147, 231  # Hanley and McNeil 1982, eq. 2, written out
    pairs = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    variance = (area * (1 - area) + (malignant - 1) * pairs[0] + (benign - 1) * pairs[1]) / (malignant * benign)
    assert row["standard_error"] == pytest.approx(math.sqrt(variance))
    assert made["headlines"].query("first == 'ResNet50+CBAM' and second == 'ResNet50'")[
        "p_independent"
    ].item() == pytest.approx(0.40, abs=0.01)


def rounded(share: Fraction) -> int:
    return math.floor(share * 10_000 + Fraction(1, 2))


def cut(share: Fraction) -> int:
    return math.floor(share * 10_000)


def test_rows_explained_when_all_is_rounded_or_all_is_cut(tmp_path, monkeypatch) -> None:
    """Every pair of counts of the two test sets tried, digits compared; no count lies half way between two of them."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    found = stages.audit(stages.Experiment.of("quick", "official", 0))["test_sets"]
    found = found.set_index(["table", "malignant", "benign"])
    for stage, table, malignant, benign in (("P", "Table 1", 147, 231), ("G", "Table 2", 139, 209)):
        printed = [[round(10_000 * x) for x in (r.sensitivity, r.specificity, r.accuracy)] for r in PUBLISHED]
        printed = [row for row, of in zip(printed, PUBLISHED, strict=True) if of.stage == stage]
        for column, how in (("all_rounded", rounded), ("all_cut", cut)):
            explained = 0
            for sensitivity, specificity, accuracy in printed:
                hits = [n for n in range(malignant + 1) if how(Fraction(n, malignant)) == sensitivity]
                clear = [n for n in range(benign + 1) if how(Fraction(n, benign)) == specificity]
                right = {how(Fraction(hit + none, malignant + benign)) for hit in hits for none in clear}
                explained += accuracy in right
            assert found.loc[(table, malignant, benign), column] == explained
