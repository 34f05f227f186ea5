"""The audit of the printed numbers, as a whole."""

import math

import pandas as pd
import pytest

from mammo_lib import stages
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
