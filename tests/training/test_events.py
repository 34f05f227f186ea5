"""TensorBoard events of a training that was interrupted and went on, read back by TensorBoard itself."""

import pandas as pd
import pytest
import tiny_training as tiny

from mammo_lib.training import events

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard comes with the extra 'tensorboard'"
)


def scalars(folder):
    """name -> [(step, value)] of everything in the folder, nothing left out and nothing purged."""
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_every_epoch_is_there_once_after_an_interrupt(tmp_path):
    def stop(line):
        if line.startswith("epoch"):
            events.write(tmp_path)
        if line.startswith("epoch 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, progress=stop)
    assert [step for step, _ in scalars(tmp_path)["train_loss"]] == [1, 2, 3]
    tiny.train(tmp_path, progress=lambda line: events.write(tmp_path))
    history, found = pd.read_csv(tmp_path / "history.csv").set_index("epoch"), scalars(tmp_path)
    assert set(found) == set(history)
    for name, values in found.items():
        assert [step for step, _ in values] == list(range(1, tiny.SETTINGS.max_epochs + 1))
        assert [value for _, value in values] == pytest.approx(history[name].tolist(), rel=1e-6)
    assert len(list(tmp_path.glob(events.FILES))) == 1


def test_what_is_not_known_is_no_event(tmp_path):
    pd.DataFrame({"epoch": [1, 2], "validation_auc": [None, 0.5], "seconds": [2.0, 3.0]}).to_csv(
        tmp_path / "history.csv", index=False
    )
    events.write(tmp_path)
    assert scalars(tmp_path)["validation_auc"] == [(2, 0.5)]
