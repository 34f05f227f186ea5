"""One training: against a plain loop, killed and resumed, interrupted, repeated, fed with bad input."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from mammo_lib import config
from mammo_lib.training import checkpoint, loop, step


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training that was never stopped."""
    place = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    return place, tiny.train(place)


# ----------------------------------------------------------------------------- what is computed


def plain_input(images):
    """numpy: grey in 0..1, three times, each minus its mean over its standard deviation."""
    grey = images[:, None].astype(np.float32) / 255
    mean, std = (np.array(x, np.float32)[None, :, None, None] for x in (config.NORMALISE_MEAN, config.NORMALISE_STD))
    return torch.from_numpy((grey.repeat(3, 1) - mean) / std)


def without_dropout(seed=0):
    return nn.Sequential(*[layer for layer in tiny.network(seed) if not isinstance(layer, nn.Dropout)])


@pytest.mark.parametrize("stage", ["P", "G"])
def test_training_equals_a_plain_loop(tmp_path, stage):
    """Whole-set batches, so that the order does not matter; Adam or SGD with momentum, cross entropy, eager."""
    settings = replace(config.PROFILES["paper"].training(stage), batch_size=26, max_epochs=4, stop_patience=10)
    settings = replace(settings, weight_decay=0.1)
    images, labels, _, parts = tiny.data()
    ours = without_dropout()
    history = tiny.train(tmp_path, settings=settings, augmentation=tiny.UNCHANGED, network=ours)

    plain = without_dropout()
    optimiser = {
        "P": torch.optim.Adam(plain.parameters(), lr=1e-3, weight_decay=0.1, foreach=False),
        "G": torch.optim.SGD(plain.parameters(), lr=1e-2, momentum=0.9, weight_decay=0.1, foreach=False),
    }[stage]
    x, y = plain_input(images), torch.from_numpy(labels)
    for row in history.epochs:
        plain.train()
        optimiser.zero_grad()
        loss = nn.CrossEntropyLoss()(plain(x[parts["train"]]), y[parts["train"]])
        loss.backward()
        optimiser.step()
        plain.eval()
        with torch.no_grad():
            output, truth = plain(x[parts["validation"]]), y[parts["validation"]]
        assert row.train_loss == pytest.approx(loss.item(), rel=1e-4)
        assert row.validation_loss == pytest.approx(nn.functional.cross_entropy(output, truth).item(), rel=1e-4)
        assert row.validation_accuracy == pytest.approx((output.argmax(1) == truth).float().mean().item())
        assert row.validation_auc == pytest.approx(roc_auc_score(truth, output.softmax(1)[:, 1]))
    last = checkpoint.load(tmp_path / "last.pt")["network"]
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(last[key], tensor, rtol=1e-3, atol=1e-5)


def test_an_epochs_loss_and_accuracy_are_means_over_its_images(tmp_path):
    """A rate of 0 and no batch statistics: every image of three full batches and one of two has the same weight."""
    images, labels, _, parts = tiny.data()
    torch.manual_seed(1)
    still = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5 * 5, 2))
    settings = replace(tiny.SETTINGS, learning_rate=0.0, max_epochs=1)
    row = tiny.train(tmp_path, settings=settings, augmentation=tiny.UNCHANGED, network=still).epochs[0]
    with torch.no_grad():
        output, truth = still(plain_input(images)[parts["train"]]), torch.from_numpy(labels)[parts["train"]]
    assert len(truth) % settings.batch_size == 2
    assert row.train_loss == pytest.approx(nn.functional.cross_entropy(output, truth).item(), rel=1e-5)
    assert row.train_accuracy == pytest.approx(np.mean(output.argmax(1).numpy() == truth.numpy()))
    assert row.train_accuracy != 0.5


def test_no_step_has_the_random_numbers_of_another(tmp_path, monkeypatch):
    seeds = [seed for step in np.ndindex(3, 20, 20) for seed in loop.step_seeds(*step)]
    assert len(set(seeds)) == len(seeds)
    drawn, draw = [], loop.augment.draw
    monkeypatch.setattr(loop.augment, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    tiny.train(tmp_path, settings=replace(tiny.SETTINGS, max_epochs=2))
    assert len({float(parameters[0, 2]) for parameters in drawn}) == len(drawn) == 8


def test_predict_equals_a_plain_loop():
    images, _, _, _ = tiny.data()
    network, indices = tiny.network(), np.array([5, 0, 33, 7, 7])
    found = loop.predict(network, images, indices, batch_size=2)
    network.eval()
    with torch.no_grad():
        expected = [float(network(plain_input(images[[i]])).softmax(1)[0, 1]) for i in indices]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert loop.predict(network, images, np.array([], int), batch_size=2).shape == (0,)


def test_sure_cases_keep_their_order():
    """Logits 20 and 30 apart: in float32 both probabilities are 1."""

    class Sure(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), 20.0 + 10 * (x.mean((1, 2, 3)) > 0)], dim=1)

    images = np.stack([np.zeros((12, 12), np.uint8), np.full((12, 12), 255, np.uint8)])
    low, high = loop.predict(Sure(), images, np.arange(2), batch_size=2)
    assert 1 - low == pytest.approx(np.exp(-20.0), rel=1e-3)
    assert low < high < 1


def test_a_network_learns_sixteen_images_by_heart(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, 12, 12), dtype=np.uint8), rng.permutation(np.arange(16) % 2)
    settings = replace(tiny.SETTINGS, learning_rate=1e-2, max_epochs=40, stop_patience=40, plateau_patience=40)
    parts = {"train": np.arange(16), "validation": np.arange(16)}
    history = tiny.train(
        tmp_path, settings=settings, augmentation=tiny.UNCHANGED,
        images=images, labels=labels, ids=[str(i) for i in range(16)], parts=parts,
    )  # fmt: skip
    assert history.best.validation_accuracy == 1
    assert history.epochs[0].validation_accuracy < 1


def test_the_network_comes_back_with_the_best_weights(tmp_path):
    network = tiny.network()
    history = tiny.train(tmp_path, network=network)
    kept = checkpoint.load(tmp_path / "best.pt", {"training": tiny.SETTINGS, "seed": 0, "precision": "fp32"})
    assert kept["epoch"] == history.best.epoch == min(
        history.epochs, key=lambda row: (-row.validation_accuracy, row.validation_loss)
    ).epoch  # fmt: skip
    assert set(kept) == {"config", "epoch", "network"}
    images, labels, _, parts = tiny.data()
    probability = loop.predict(network, images, parts["validation"], 8)
    assert np.mean((probability > 0.5) == labels[parts["validation"]]) == history.best.validation_accuracy


def test_every_epoch_shows_every_image_once_in_another_order(tmp_path):
    """17 constant images in batches of 8: the last one joins the second batch. Grey values tell the images apart."""
    images = np.repeat(np.arange(20, dtype=np.uint8) * 10, 144).reshape(20, 12, 12)
    seen, network = [], tiny.network()

    def note(module, arguments):
        if module.training:
            grey = arguments[0][:, 0, 0, 0] * config.NORMALISE_STD[0] + config.NORMALISE_MEAN[0]
            seen.append((grey * 25.5).round().int().tolist())

    network.register_forward_pre_hook(note)
    tiny.train(
        tmp_path, network=network, images=images, labels=np.arange(20) % 2, ids=list(map(str, range(20))),
        parts={"train": np.arange(17), "validation": np.arange(17, 20)}, settings=replace(tiny.SETTINGS, max_epochs=3),
    )  # fmt: skip
    assert [len(batch) for batch in seen] == [8, 9] * 3
    orders = [seen[i] + seen[i + 1] for i in (0, 2, 4)]
    assert all(sorted(order) == list(range(17)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@given(count=st.integers(2, 200), size=st.integers(1, 40))
def test_batches_hold_everything_once_and_never_one_alone(count, size):
    batches = loop.split_batches(np.arange(count), size)
    assert np.concatenate(batches).tolist() == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) <= size + 1
    assert size == 1 or len(batches[-1]) > 1


def test_bf16_and_fp32_reach_the_same_result_within_the_spread_of_seeds(tmp_path):
    def final_losses(precision):
        settings = replace(tiny.SETTINGS, precision=precision)
        return np.array(
            [
                tiny.train(tmp_path / f"{precision}{seed}", seed, settings).epochs[-1].validation_loss
                for seed in range(4)
            ]
        )

    fp32, bf16 = final_losses("fp32"), final_losses("bf16")
    assert not np.array_equal(fp32, bf16)  # it is another arithmetic
    assert np.abs(fp32 - bf16).max() < fp32.max() - fp32.min()


def test_a_memory_map_is_as_good_as_an_array(tmp_path, undisturbed):
    images, *_ = tiny.data()
    np.save(tmp_path / "images.npy", images)
    tiny.train(tmp_path / "run", images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    tiny.assert_same_training(tmp_path / "run", undisturbed[0])


# ----------------------------------------------------------------------------- the same again


def test_the_same_seed_twice_is_identical_and_another_differs(tmp_path, undisturbed):
    torch.manual_seed(99)  # what was drawn before must not matter
    np.random.seed(99)  # noqa: NPY002
    tiny.train(tmp_path / "same")
    tiny.assert_same_training(tmp_path / "same", undisturbed[0])
    other = tiny.train(tmp_path / "other", seed=1, network=tiny.network(0))  # same initial weights
    assert other.epochs[0].train_loss != undisturbed[1].epochs[0].train_loss


def test_a_training_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.LazyLinear(2))
    network(torch.zeros(1, 3, 12, 12))
    torch.manual_seed(5)
    tiny.train(tmp_path, network=network, settings=replace(tiny.SETTINGS, max_epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_two_trainings_in_threads_of_one_process_are_those_of_two_processes(tmp_path, undisturbed):
    """They share torch's generator, as the cells on a cluster's worker with several threads would."""
    networks = {place: tiny.network() for place in ("one", "other")}  # drawn from the same generator too
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda place: tiny.train(tmp_path / place, network=networks[place]), networks))
    for place in networks:
        tiny.assert_same_training(tmp_path / place, undisturbed[0])


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path):
    """SIGKILL at random moments, before each kind of rename, and inside the writes of checkpoints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", tiny.__file__, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    at_random, kills = (int(word) for word in done.stdout.split())  # those that hit
    assert at_random >= 1
    assert kills == 12
    for place in ("random", "renames", "writes"):
        tiny.assert_same_training(tmp_path / place, tmp_path / "undisturbed")
        assert not list((tmp_path / place).glob(".*.part"))


@pytest.mark.parametrize(("epoch", "when"), [(3, "in epoch 4"), (tiny.SETTINGS.max_epochs, "after its last epoch")])
def test_an_interrupt_leaves_a_state_to_go_on_from(tmp_path, undisturbed, epoch, when):
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, progress=interrupt)
    assert lines[-1] == f"interrupted {when}: the same call goes on from the end of epoch {epoch}"
    assert checkpoint.load(tmp_path / "last.pt")["epoch"] == epoch
    tiny.train(tmp_path)
    tiny.assert_same_training(tmp_path, undisturbed[0])


def test_a_slow_disk_changes_nothing(tmp_path, undisturbed, monkeypatch):
    """An epoch is over while the one before is still to be written."""
    save, epochs, before = checkpoint.save, [], []

    def slow(path, state, keep_previous=True):
        patience = time.monotonic() + 5
        while len(epochs) == state["epoch"] < tiny.SETTINGS.max_epochs and time.monotonic() < patience:
            time.sleep(0.001)
        before.append(len(epochs) > state["epoch"])
        save(path, state, keep_previous)

    validate = loop._validate
    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(loop, "_validate", lambda run: epochs.append(validate(run)) or epochs[-1])
    tiny.train(tmp_path)
    assert any(before)
    tiny.assert_same_training(tmp_path, undisturbed[0])
    last, expected = (checkpoint.load(place / "last.previous.pt") for place in (tmp_path, undisturbed[0]))
    assert last["epoch"] == expected["epoch"]
    for kind in ("network", "optimiser"):
        torch.testing.assert_close(last[kind], expected[kind], rtol=0, atol=0)


def fill_disk(monkeypatch, at_epoch):
    save = checkpoint.save

    def full(path, state, keep_previous=True):
        if state["epoch"] == at_epoch:
            raise OSError("No space left on device")
        save(path, state, keep_previous)

    monkeypatch.setattr(checkpoint, "save", full)


@pytest.mark.parametrize("epoch", [1, 3, tiny.SETTINGS.max_epochs])
def test_what_cannot_be_written_ends_the_training(tmp_path, undisturbed, monkeypatch, epoch):
    lines = []
    fill_disk(monkeypatch, epoch)
    with pytest.raises(OSError, match="No space left"):
        tiny.train(tmp_path, progress=lines.append)
    assert len(lines) == epoch  # not the next, which was trained meanwhile
    if epoch > 1:
        assert checkpoint.load(tmp_path / "last.pt")["epoch"] == epoch - 1
    monkeypatch.undo()
    tiny.train(tmp_path)
    tiny.assert_same_training(tmp_path, undisturbed[0])


@pytest.mark.parametrize(("epoch", "place"), [(3, "from the end of epoch 2"), (1, "from the beginning")])
def test_an_interrupt_is_one_though_a_file_cannot_be_written(tmp_path, monkeypatch, epoch, place):
    """It ends the other cells, too, which an OSError would not; and says what there is to go on from."""
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt

    fill_disk(monkeypatch, epoch)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, progress=interrupt)
    lost = "(what came after could not be written: No space left on device)"
    assert lines[-1] == f"interrupted in epoch {epoch + 1}: the same call goes on {place} {lost}"


def test_a_history_without_a_checkpoint_is_begun_anew(tmp_path, monkeypatch):
    tiny.train(tmp_path, settings=replace(tiny.SETTINGS, max_epochs=2))
    for name in ("last.pt", "last.previous.pt"):
        (tmp_path / name).unlink()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path)
    assert not (tmp_path / "history.csv").exists()


def test_a_damaged_last_state_costs_one_epoch(tmp_path, undisturbed):
    tiny.train(tmp_path)
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:-200])
    lines = []
    with pytest.warns(UserWarning, match=r"last\.pt: damaged .*last\.previous\.pt"):
        tiny.train(tmp_path, progress=lines.append)
    assert len(lines) == 1
    tiny.assert_same_training(tmp_path, undisturbed[0])


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = tiny.train(tmp_path)
    lines, network = [], tiny.network(3)
    assert tiny.train(tmp_path, progress=lines.append, network=network) == first
    assert lines == []
    for key, tensor in checkpoint.load(tmp_path / "best.pt")["network"].items():
        assert torch.equal(network.state_dict()[key], tensor)


def test_another_config_does_not_go_on_from_a_checkpoint(tmp_path):
    tiny.train(tmp_path, settings=replace(tiny.SETTINGS, max_epochs=1))
    with pytest.raises(checkpoint.CheckpointMismatch, match=r"training\.max_epochs: was 1, is 8"):
        tiny.train(tmp_path)


def test_another_precision_does_not_go_on_from_a_checkpoint(tmp_path):
    """What None stands for differs between a CPU and a GPU."""
    settings = replace(tiny.SETTINGS, max_epochs=1)
    tiny.train(tmp_path, settings=settings, config={})
    with pytest.raises(checkpoint.CheckpointMismatch, match="precision: was 'fp32', is 'bf16'"):
        tiny.train(tmp_path, settings=replace(settings, precision="bf16"), config={})


def test_best_weights_of_another_history_are_not_taken(tmp_path):
    tiny.train(tmp_path)
    state = checkpoint.load(tmp_path / "best.pt")
    last = checkpoint.load(tmp_path / "last.pt")
    for row in last["epochs"]:
        row["validation_accuracy"] = 0.0
    last["epochs"][2]["validation_accuracy"] = 1.0
    checkpoint.save(tmp_path / "last.pt", last)
    checkpoint.save(tmp_path / "best.pt", {**state, "epoch": 5}, keep_previous=False)
    with pytest.raises(checkpoint.CheckpointDamaged, match=r"best\.pt is of epoch 5.*is 3"):
        tiny.train(tmp_path)


# ----------------------------------------------------------------------------- bad input


class NanOnWhite(nn.Module):
    """A white image has no finite feature."""

    def forward(self, x):
        white = x.flatten(1).amin(1) > 2
        return torch.where(white[:, None, None, None], torch.nan, x)


def test_a_loss_that_is_not_finite_names_its_images_and_keeps_the_last_good_state(tmp_path):
    images, *_ = tiny.data()
    images[3] = 255
    network = nn.Sequential(NanOnWhite(), *tiny.network())
    with pytest.raises(loop.TrainingDiverged, match=r"training loss is nan in epoch 1, step \d.*image3[,)]") as error:
        tiny.train(tmp_path, network=network, images=images)
    names = str(error.value).split("(images ")[1].split(")")[0].split(", ")
    assert len(names) in (8, 2)  # a batch, not the whole set
    assert not (tmp_path / "last.pt").exists()


def test_a_validation_loss_that_is_not_finite_names_its_image(tmp_path):
    images, *_ = tiny.data()
    images[33] = 255
    with pytest.raises(loop.TrainingDiverged, match=r"validation loss .* epoch 1 \(images image33\)"):
        tiny.train(tmp_path, network=nn.Sequential(NanOnWhite(), *tiny.network()), images=images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((34, 12, 12), np.float32)}, "uint8"),
        ({"images": np.zeros((34, 12, 10), np.uint8)}, "uint8 .N, S, S."),
        ({"ids": ["a"]}, "34 images, 34 labels and 1 ids"),
        ({"labels": np.full(34, 2)}, "labels must be 0 or 1"),
        ({"parts": {"train": np.arange(5)}}, "'validation' has 0 images"),
        ({"parts": {"train": [3], "validation": [1]}}, "'train' has 1 images: at least 2"),
        ({"parts": {"train": [3, 34], "validation": [1]}}, "outside the 34 images"),
        ({"settings": replace(tiny.SETTINGS, optimiser="lion")}, "unknown optimiser 'lion'"),
        ({"settings": replace(tiny.SETTINGS, precision="fp8")}, "unknown precision 'fp8'"),
    ],
)
def test_input_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.train(tmp_path / "run", **changes)
    assert not list(Path(tmp_path).glob("run/*.pt"))


def test_one_class_in_validation_has_no_auc(tmp_path):
    _, labels, _, parts = tiny.data()
    parts = {"train": parts["train"], "validation": np.flatnonzero(labels)[-4:]}
    history = tiny.train(tmp_path, parts=parts, settings=replace(tiny.SETTINGS, max_epochs=1))
    assert np.isnan(history.epochs[0].validation_auc)


# ----------------------------------------------------------------------------- CUDA


def test_a_host_that_cannot_compile_is_told_how_to_train_without(monkeypatch):
    def no_compiler(*_):
        raise TorchDynamoException("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(step, "capture", no_compiler)
    network = tiny.network()
    with pytest.raises(RuntimeError, match=r"C compiler\.\): install a C compiler, or set TORCH_COMPILE_DISABLE=1"):
        step.make_captured(network, step.make_optimiser(network, tiny.SETTINGS), "fp32", torch.zeros(2, 8, 8))


def test_a_long_training_is_compiled_on_cuda_and_a_short_one_is_not():
    """CBIS-DDSM's official training parts: 8504 patches, 985 images."""
    captured, compiled = "captured", "captured, compiled"
    for name, expected in (("paper", compiled), ("reduced-short", captured), ("reduced-imagenet", captured)):
        profile = config.PROFILES[name]
        for stage, images in (("P", 8504), ("G", 985)):
            training = profile.training(stage)
            assert loop.kind_of_step(training, images, "cuda") == expected, (name, stage)
            assert loop.kind_of_step(training, images, "cpu") == "eager"
            assert loop.kind_of_step(training, training.batch_size - 1, "cuda") == "eager"  # no batch is full
    with torch._dynamo.config.patch(disable=True):  # what TORCH_COMPILE_DISABLE=1 sets
        assert loop.kind_of_step(config.PROFILES["paper"].training("P"), 8504, "cuda") == captured


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("stage", ["P", "G"])
@pytest.mark.parametrize("compiled", [False, True])
def test_captured_training_equals_eager_training(tmp_path, stage, compiled, monkeypatch):
    """With a ragged last batch, a falling learning rate and a resume; float32, without dropout."""
    monkeypatch.setattr(step, "COMPILE_FROM", 0 if compiled else step.COMPILE_FROM)
    settings = replace(config.PROFILES["paper"].training(stage), batch_size=8, max_epochs=8, plateau_patience=2)
    short = replace(settings, max_epochs=8, precision="fp32")

    def run(place, **changes):
        return tiny.train(place, settings=short, network=without_dropout(), device="cuda", **changes)

    def stop(line):
        if line.startswith("epoch 4/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "captured", progress=stop)
    captured = run(tmp_path / "captured")
    monkeypatch.setattr(step, "make_captured", lambda *captured: step.make_step(*captured[:3]))
    eager = run(tmp_path / "eager")
    for one, other in zip(captured.epochs, eager.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-2)
        assert one.learning_rate == pytest.approx(other.learning_rate)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streaming to a GPU needs one")
def test_streamed_images_give_what_resident_ones_give(monkeypatch):
    images, *_ = tiny.data()
    resident = step.make_fetch(images, torch.device("cuda"))(np.array([3, 1]))
    monkeypatch.setattr(step, "RESIDENT_SHARE", 0.0)
    assert torch.equal(step.make_fetch(images, torch.device("cuda"))(np.array([3, 1])), resident)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_replayed_step_drops_out_what_its_seed_says():
    """At a learning rate of 0 the loss of a batch depends on the dropped features alone.

    A compiled network draws other ones from the same seed than an eager one.
    """
    images, labels, _, _ = tiny.data()
    network = tiny.network().to("cuda", memory_format=torch.channels_last).train()
    optimiser = step.make_optimiser(network, replace(tiny.SETTINGS, learning_rate=0.0))
    eager = step.make_step(network, optimiser, "fp32")
    batch = (
        torch.from_numpy(images[:8]).cuda(),
        torch.eye(2, 3).repeat(8, 1, 1).cuda(),
        torch.from_numpy(labels[:8]).cuda(),
    )
    captured = step.capture(eager, network, optimiser, batch[0])
    compiled = step.make_captured(network, optimiser, "fp32", batch[0])

    def loss(train_step, seed):
        torch.manual_seed(seed)
        return float(train_step(*batch)[0])

    for seed in (1, 2**64 - 1, 3):
        assert loss(captured, seed) == loss(captured, seed) == pytest.approx(loss(eager, seed), rel=1e-4)
        assert loss(compiled, seed) == loss(compiled, seed)
    for train_step in (captured, compiled):
        assert len({loss(train_step, seed) for seed in range(5)}) == 5
