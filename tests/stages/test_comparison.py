"""From stored predictions to tables: which runs are read, which are refused, and what other data sets lack."""

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammo_lib import stages


def test_the_spread_takes_every_seed_and_the_tables_their_own(every_protocol: dict[str, stages.Experiment]) -> None:
    made = stages.evaluate(every_protocol["official"])
    spread = made["spread_G"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert (spread["seeds"], spread["runs"]) == (2, 2)
    folder = every_protocol["official"].results / "cells" / "G" / "resnet50" / "patch"
    tests = [pd.read_csv(folder / f"fold0-seed{seed}" / "predictions.csv").query("part == 'test'") for seed in (0, 1)]
    aucs = [roc_auc_score(test["label"], test["probability"]) for test in tests]
    assert (spread["least"], spread["most"]) == pytest.approx((min(aucs), max(aucs)))
    table = made["table2"].frame.query("network == 'ResNet50' and initial == 'Patch data'").iloc[0]
    assert table["auc"] == pytest.approx(aucs[0])
