"""The rules of section 2.5, against sequences counted by hand."""

from dataclasses import replace

import pytest
import torch

from mammo_lib.config import PATCH_TRAINING
from mammo_lib.training import schedule
from mammo_lib.training.schedule import Epoch, History


def epochs(accuracies, losses=None):
    losses = losses or [1.0] * len(accuracies)
    return [
        Epoch(number, 1e-3, 1.0, 0.5, loss, accuracy, 0.5, 2.0)
        for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1)
    ]


def rates(accuracies, settings=PATCH_TRAINING):
    """Learning rate of every epoch, and of the one after the last."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], settings.learning_rate)
    rule = schedule.plateau(optimiser, settings)
    found = [optimiser.param_groups[0]["lr"]]
    for row in epochs(accuracies):
        rule.step(row.validation_accuracy)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_learning_rate_falls_after_ten_epochs_without_a_rise():
    # best in epoch 1; epochs 2 to 11 are ten without a rise, so epoch 12 is the first at a fifth; 22 the next
    found = rates([0.6] + [0.5] * 20)
    assert found[:11] == [1e-3] * 11
    assert found[11:21] == pytest.approx([2e-4] * 10)
    assert found[21] == pytest.approx(4e-5)


def test_a_learning_rate_is_told_as_it_was_given_also_from_a_float32_tensor():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    for rate in (1e-5, 3e-5, 2e-3):
        assert float(torch.tensor(rate)) != rate
        assert schedule.learning_rate(torch.optim.Adam(parameters, torch.tensor(rate), capturable=True)) == rate
        assert schedule.learning_rate(torch.optim.SGD(parameters, rate)) == rate


def test_a_rise_starts_the_count_again():
    # epochs 2 to 10 are nine; epoch 11 rises by the least amount; 12 to 21 are ten, so epoch 22 is the first slower one
    found = rates([0.6] + [0.6] * 9 + [0.6 + 1e-9] + [0.6] * 10)
    assert found[:21] == [1e-3] * 21
    assert found[21] == pytest.approx(2e-4)


def test_an_equal_accuracy_is_no_rise():
    assert rates([0.6] * 11)[11] == pytest.approx(2e-4)


def test_the_rule_caught_up_with_a_history_goes_on_as_if_it_had_seen_it():
    accuracies = [0.5, 0.6, *[0.55] * 25, 0.7, *[0.1] * 12]
    for cut in (0, 5, 12, 13, 30):
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], PATCH_TRAINING.learning_rate)
        rule = schedule.plateau(optimiser, PATCH_TRAINING, epochs(accuracies[:cut]))
        found = [optimiser.param_groups[0]["lr"]]
        for accuracy in accuracies[cut:]:
            rule.step(accuracy)
            found.append(optimiser.param_groups[0]["lr"])
        assert found == rates(accuracies)[cut:]


def test_a_learning_rate_in_a_tensor_falls_in_place():
    """A captured CUDA step reads the rate from a tensor: the rule must write there."""
    rate = torch.tensor(1e-3)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)
    schedule.plateau(optimiser, PATCH_TRAINING, epochs([0.6] * 11))
    assert optimiser.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(2e-4)


def test_stop_after_twenty_epochs_without_a_rise():
    # best in epoch 1: epoch 21 is the twentieth without a rise and the last
    assert not schedule.finished(epochs([0.6] + [0.5] * 19), PATCH_TRAINING)
    assert schedule.finished(epochs([0.6] + [0.5] * 20), PATCH_TRAINING)
    assert not schedule.finished(epochs([0.6] + [0.5] * 19 + [0.61]), PATCH_TRAINING)


def test_stop_at_the_last_epoch_and_not_before_the_first():
    settings = replace(PATCH_TRAINING, max_epochs=3)
    assert [schedule.finished(epochs([0.1, 0.2, 0.3][:n]), settings) for n in range(4)] == [False, False, False, True]


def test_a_tie_with_a_lower_loss_is_kept_and_does_not_put_off_the_stop():
    rows = epochs([0.6, 0.6, 0.6, 0.5], [0.9, 0.7, 0.7, 0.1])
    assert schedule.best(rows).epoch == 2  # highest accuracy, then lowest loss, then first
    assert schedule.without_rise(rows) == 3


def test_history_counts_images_per_second_of_the_median_epoch():
    rows = [replace(row, seconds=seconds) for row, seconds in zip(epochs([0.5] * 3), (1.0, 2.0, 50.0), strict=True)]
    history = History(tuple(rows), train_images=100)
    assert history.images_per_second == 50
    assert list(history.frame().columns) == [
        "epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
        "validation_auc", "seconds",
    ]  # fmt: skip


def test_line_is_of_the_last_epoch_and_says_how_long_it_can_take_at_most():
    line = schedule.describe(epochs([0.6, 0.5, 0.7, 0.4]), replace(PATCH_TRAINING, max_epochs=10))
    assert line.startswith("epoch 4/10")
    assert "accuracy 0.4000 (best 0.7000, epoch 3)" in line
    assert line.endswith("at most 12 s left")  # 6 epochs of 2 s


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5940, "99 min"),
        (6000, "1 h 40 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_seconds_in_words(seconds, text):
    assert schedule.format_seconds(seconds) == text
