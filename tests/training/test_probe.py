"""The probe's parts against cases counted by hand and written out in loops; the whole on descriptions that say it."""

import numpy as np
import pytest
from scipy.special import expit, logit

from mammo_lib.config import Probe
from mammo_lib.training import probe

SETTINGS = Probe()


def test_a_summary_is_mean_and_maximum_of_the_cells_inside():
    description = np.array([[[1.0, 8.0], [3.0, 2.0]], [[5.0, 5.0], [100.0, 100.0]]])
    inside = np.array([[True, True], [True, False]])
    assert probe.summary(description, inside).tolist() == [3.0, 5.0, 5.0, 8.0]
    assert probe.summary(description, np.zeros((2, 2), bool)).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1.0, 2.0, 1.0, 1.0), [2], [1]),
        ((0.9, 1.5, 1.2, 1.0), [1, 2], [0, 1, 2]),
        ((-3.0, -3.0, 3.5, 3.2), [0], [0]),
        ((3.9, 3.2, 5.0, 5.0), [3], [3]),
        ((9.0, 9.0, 1.0, 1.0), [3], [3]),
    ],
)
def test_cells_that_a_box_touches(box, rows, columns):
    expected = np.zeros((4, 4), bool)
    expected[np.ix_(rows, columns)] = True
    assert np.array_equal(probe.box_cells((4, 4), box), expected)


def test_a_neighbourhood_is_that_of_nine_cells_without_those_outside():
    rng = np.random.default_rng(0)
    description, inside = rng.random((5, 4, 3)).astype(np.float32), rng.random((5, 4)) < 0.7
    found = probe.neighbourhood(description, inside)
    for row, column in np.argwhere(inside):
        place = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        cells = description[place][inside[place]]
        assert np.allclose(found[row, column], np.concatenate([cells.mean(0), cells.max(0)]), atol=1e-6)


def test_cells_are_labelled_by_the_core_of_their_box():
    inside = np.ones((5, 8), bool)
    inside[0] = False
    labels = probe.cell_labels(inside, [(0, 1, 3, 3), (4, 2, 2, 2)], [1, 0], core=1 / 3)
    assert labels.tolist() == [
        [-1, -1, -1, -1, -1, -1, -1, -1],
        [-1, -1, -1, 0, 0, 0, 0, 0],
        [-1, 2, -1, 0, 1, 1, 0, 0],
        [-1, -1, -1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    drawn = probe.sample(labels, Probe(mass_cells=3, background_cells=7), np.random.default_rng(0))
    kinds = labels[tuple(drawn.T)]
    assert (kinds > 0).sum() == 3
    assert (kinds == 0).sum() == 7
    assert len({tuple(cell) for cell in drawn}) == 10


def test_log_odds_are_averaged_where_a_mass_is_likely():
    logits = np.array([[0.0, 0.0, 2.0], [5.0, 1.0, 0.0]])
    mass = 1 - np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1)
    weights = mass**2
    expected = (weights * [2.0, -1.0]).sum() / weights.sum()
    assert probe.focused(logits, 2.0) == pytest.approx(expected)
    assert probe.focused(np.array([[900.0, 0.0, 1.0]]), 8.0) == 0  # no cell looks like a mass
    both = probe.probability(np.array([[logit(0.9), logit(0.1)], [1.0, 3.0]]))
    assert both == pytest.approx([0.5, expit(2.0)])


def test_a_probe_reads_what_is_there_to_read():
    """Channel 0 marks a mass, channel 1 a malignant one; images differ in nothing else."""
    rng = np.random.default_rng(0)

    def image(label):
        description = rng.random((8, 8, 4)) * 0.3
        description[2:5, 3:6, :2] += (1, label)
        return description, np.ones((8, 8), bool)

    labels = np.arange(40) % 2
    images = [image(label) for label in labels]
    kinds = [
        probe.cell_labels(inside, [(3, 2, 3, 3)], [label], 1.0)
        for (_, inside), label in zip(images, labels, strict=True)
    ]
    around = np.concatenate([probe.neighbourhood(*each)[kind >= 0] for each, kind in zip(images, kinds, strict=True)])
    fitted = probe.ImageProbe(
        probe.classifier(1.0).fit([probe.summary(*each) for each in images], labels),
        probe.classifier(1.0, balanced=True).fit(around, np.concatenate([kind[kind >= 0] for kind in kinds])),
        SETTINGS,
    )
    fresh = np.array([fitted.log_odds(*image(label)) for label in labels])
    assert (fresh[labels == 1].min(axis=0) > 0).all()
    assert (fresh[labels == 0].max(axis=0) < 0).all()
