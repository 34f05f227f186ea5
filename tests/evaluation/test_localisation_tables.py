"""The localisation tables as people read them: every number of the long table once, in its row and column."""

import numpy as np
import pandas as pd

from mammo_lib.evaluation import localisation, localisation_tables

METHODS = ("Grad-CAM", "breast centre", "a control")  # not in alphabetical order
MEASURES = ("energy", "pointing", "iou", "best_iou", "removal")


def long_rows():
    """Two images of two patients, one right and one wrong, with numbers that tell where they belong."""
    rng = np.random.default_rng(0)
    about = {"image_id": ["a", "b"], "patient_id": ["1", "2"], "group": ["benign, correct", "malignant, wrong"]}
    frames = [pd.DataFrame(about).assign(method=method, empty=0.5) for method in METHODS]
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(**{measure: rng.random(len(rows)) for measure in MEASURES})


def test_one_row_a_method_in_its_order_and_every_mean_in_its_column():
    rows = long_rows()
    summary = localisation.summary(rows, 100, 0.95, 0, MEASURES)
    table = localisation_tables.overall(summary, "95%", "Data: made up.")
    assert list(table.shown["method"]) == list(METHODS)
    assert list(table.shown["images"]) == ["2"] * 3
    assert list(table.shown["empty"]) == ["1"] * 3
    for measure in MEASURES:
        cells = table.shown.set_index("method")[localisation_tables.LABELS[measure]]
        for method, mean in rows.groupby("method")[measure].mean().items():
            assert cells[method].startswith(f"{mean:.3f} [")
    assert "Unit: image" in table.caption
    assert "95%" in table.notes


def test_decisions_stand_in_their_order_and_an_empty_group_says_so():
    summary = localisation.summary(long_rows(), 100, 0.95, 0, MEASURES)
    shown = localisation_tables.by_decision(summary, "95%", "Data: made up.").shown
    assert list(dict.fromkeys(shown["group"])) == list(localisation.GROUPS[1:])
    assert len(shown) == 4 * len(METHODS)
    empty = shown[shown["group"] == "benign, wrong"]
    assert (empty["Energy in lesion"] == "no such image").all()
    alone = shown[(shown["group"] == "benign, correct") & (shown["method"] == "Grad-CAM")].iloc[0]
    assert "[" not in alone["Fall on removal"], "one patient has no interval"


def test_an_interval_of_one_point_is_left_out():
    """Both maps miss: 0 of 2 is no proof of 0."""
    summary = localisation.summary(long_rows().assign(pointing=0.0), 100, 0.95, 0, MEASURES)
    assert (summary.query("measure == 'pointing' and group == 'all'")["high"] == 0).all()
    table = localisation_tables.overall(summary, "95%", "Data: made up.")
    assert list(table.shown["Pointing game"]) == ["0.000"] * 3
    assert any("is no proof of the value" in note for note in table.notes)


def test_differences_carry_their_sign():
    found = localisation.differences(long_rows(), "Grad-CAM", 100, 0.95, 0, MEASURES)
    shown = localisation_tables.against_controls(found, "Grad-CAM", "95%", "Data: made up.").shown
    assert list(shown.iloc[:, 0]) == ["Grad-CAM − breast centre", "Grad-CAM − a control"]
    cells = shown[list(localisation_tables.LABELS.values())].to_numpy().ravel()
    assert all(cell[0] in "+-" and "[" in cell for cell in cells)
