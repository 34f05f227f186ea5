"""Initial weights: files found, checked and refused; what a transfer gives and what it says."""

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision import models
from torchvision.models.inception import Inception3

from mammo_lib import config
from mammo_lib.models import networks, weights

REAL = Path(__file__).parents[3] / "shared" / "weights" / "vgg16_imagenet_features_fp16.pth"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache of torch's, so that the machine's does not decide."""
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def small(name, **changes):
    return networks.build(name, **{"size": 80, "vgg_hidden": 16, **changes})


def save_hashed(state, folder, prefix, monkeypatch, trunk):
    """Save `state` as torchvision would publish it, and make it the pinned file of `trunk`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "draft")
    name = f"{prefix}-{hashlib.sha256((folder / 'draft').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "draft").rename(folder / name)

    class Pinned:
        url = f"https://download.pytorch.org/models/{name}"

    monkeypatch.setitem(weights.IMAGENET, trunk, Pinned)
    return folder / name


def vgg_features(**changes):
    """State of a VGG16 trunk alone, as a stand-in file holds it."""
    return {f"features.{name}": value for name, value in small("vgg16", **changes).features.state_dict().items()}


def test_pinned_files_are_torchvisions_first_weights():
    names = {trunk: entry.url.rsplit("/", 1)[1] for trunk, entry in weights.IMAGENET.items()}
    papers = {
        "vgg16": "vgg16-397923af.pth",
        "inception_v3": "inception_v3_google-0cc3c7bd.pth",
        "resnet50": "resnet50-0676ba61.pth",
    }
    assert papers.items() <= names.items()
    assert weights.IMAGENET.keys() <= networks.TRUNKS.keys()


@pytest.mark.parametrize("name", config.NETWORK_LABELS)
def test_patch_weights_start_a_global_network_whole(name):
    """From P to G (another size): every entry, the classifier's too, and nothing else."""
    patch, other = small(name, seed=1), small(name, size=128, seed=2)
    report = weights.transfer(other, patch.state_dict())
    assert set(report.loaded) == set(other.state_dict())
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert all(torch.equal(value, patch.state_dict()[key]) for key, value in other.state_dict().items())


def test_transfer_lists_what_did_not_fit():
    network, other = small("vgg16_cbam"), small("vgg16", vgg_hidden=8, seed=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {**other.state_dict(), "AuxLogits.fc.bias": torch.zeros(1)}
    report = weights.transfer(network, state)
    assert set(report.missing) == {f"attention.{part}.weight" for part in ("mlp.0", "mlp.2", "conv")}
    assert report.unexpected == ("AuxLogits.fc.bias",)
    assert set(report.mismatched) == {
        f"head.classifier.{part}" for part in ("0.weight", "0.bias", "3.weight", "3.bias", "6.weight")
    }
    assert set(report.loaded) == set(before) - set(report.missing) - set(report.mismatched)
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key] if key in report.loaded else before[key])
    assert str(report).startswith("27 entries loaded; left at random: attention.mlp.0.weight,")
    assert str(report).endswith("not used: AuxLogits.fc.bias")


def test_another_trunks_state_is_refused_and_changes_nothing():
    network = small("vgg16")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for state in (small("resnet50").state_dict(), {}, {"features.0.weight": torch.zeros(64, 3, 3, 3)}):
        with pytest.raises(ValueError, match="do not fit the trunk of vgg16: features"):
            weights.transfer(network, state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_deeper_sisters_state_is_refused():
    """ResNet101 has every layer of ResNet50, in the same shapes, and more."""
    state = models.resnet101(num_classes=2).state_dict()
    network = small("resnet50_cbam")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"not those of resnet50_cbam: they hold layer3\.6\.conv1\.weight and \d+ more"
    ):
        weights.transfer(network, state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_old_files_without_step_counters_fit():
    whole = small("resnet50").state_dict()
    counters = {key for key in whole if key.endswith(".num_batches_tracked")}
    assert len(counters) == 53  # one a convolution
    state = {key: value for key, value in whole.items() if key not in counters}
    assert set(weights.transfer(small("resnet50"), state).missing) == counters


@pytest.mark.parametrize("where", ["folder", "hub/checkpoints"])
def test_torchvisions_file_starts_a_resnet(tmp_path, monkeypatch, where):
    """A file in torchvision's own layout (1000 classes) fills the trunk, under either network's name."""
    published = models.resnet50(num_classes=1000).state_dict()
    file = save_hashed(published, tmp_path / where, "resnet50", monkeypatch, "resnet50")
    found = weights.imagenet("resnet50_cbam", tmp_path / "folder")
    assert found.file == file
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "IMAGENET1K_V1" in found.source
    network = small("resnet50_cbam")
    report = weights.transfer(network, found.state)
    assert set(report.mismatched) == {"head.fc.weight", "head.fc.bias"}
    assert set(report.missing) == {f"attention.{part}.weight" for part in ("mlp.0", "mlp.2", "conv")}
    for key, value in network.features.state_dict().items():
        assert torch.equal(value, published[key])


def test_inception_starts_with_torchvisions_input_scale(tmp_path, monkeypatch):
    """Logits are those of torchvision's network with `transform_input`, which a checkpoint restores."""
    theirs = Inception3(num_classes=2, aux_logits=True, transform_input=True, init_weights=False).eval()
    save_hashed(theirs.state_dict(), tmp_path, "inception_v3_google", monkeypatch, "inception_v3")
    network = small("inception_v3").eval()
    report = weights.transfer(network, weights.imagenet("inception_v3", tmp_path).state)
    assert report.missing == ()
    assert set(report.unexpected) == {key for key in theirs.state_dict() if key.startswith("AuxLogits.")} != set()
    restored = small("inception_v3", seed=9).eval()
    restored.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 80, 80)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), theirs(images), rtol=1e-4, atol=1e-5)
        assert torch.equal(network(images), restored(images))
    fresh = small("inception_v3").features.rescale
    assert torch.equal(fresh(images), images)


def test_vgg_takes_torchvisions_hidden_layers_where_they_fit(tmp_path, monkeypatch):
    original = small("vgg16").state_dict()
    published = {key.removeprefix("head."): value for key, value in original.items()}
    published |= {"classifier.6.weight": torch.zeros(1000, 16), "classifier.6.bias": torch.zeros(1000)}
    save_hashed(published, tmp_path, "vgg16", monkeypatch, "vgg16")
    found = weights.imagenet("vgg16", tmp_path)
    assert set(weights.transfer(small("vgg16"), found.state).mismatched) == {
        "head.classifier.6.weight",
        "head.classifier.6.bias",
    }
    narrow = weights.transfer(small("vgg16", vgg_hidden=8), found.state)
    assert set(narrow.loaded) == {key for key in original if key.startswith("features.")} != set()


@pytest.mark.parametrize("name", ["vgg16", "vgg16_cbam"])
def test_real_half_precision_file_starts_vgg16(name):
    """Thirteen real ImageNet convolutions, value for value; the classifier, and a CBAM, start at random."""
    if not REAL.is_file():
        pytest.skip(f"real weights are not there: {REAL}")
    found = weights.imagenet(name, REAL.parent)
    assert "not torchvision's IMAGENET1K_V1" in found.source
    network, untouched = small(name), small(name)
    report = weights.transfer(network, found.state)
    real = torch.load(REAL, weights_only=True)
    assert set(report.loaded) == set(real)
    convolutions = {f"features.{key}": value for key, value in network.features.state_dict().items()}
    assert convolutions.keys() == real.keys()
    for key, value in convolutions.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, real[key].float())
    assert all(key.startswith(("head.", "attention.")) for key in report.missing)
    assert "left at random: " in str(report)
    assert "num_batches_tracked" not in str(report)  # a count, not random
    assert "head.classifier.6.weight" in str(report)
    for key in report.missing:
        assert torch.equal(network.state_dict()[key], untouched.state_dict()[key])


def test_pinned_file_goes_before_a_stand_in(tmp_path, monkeypatch):
    torch.save(vgg_features(), tmp_path / "vgg16_imagenet_mine.pth")
    assert weights.imagenet("vgg16", tmp_path).file.name == "vgg16_imagenet_mine.pth"
    file = save_hashed(vgg_features(seed=1), tmp_path / "hub" / "checkpoints", "vgg16", monkeypatch, "vgg16")
    assert weights.imagenet("vgg16", tmp_path).file == file


def test_absent_weights_say_which_where_from_and_where_to(tmp_path):
    with pytest.raises(weights.WeightsNotAvailable) as caught:
        weights.imagenet("inception_v3_cbam", tmp_path)
    message = str(caught.value)
    assert "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth" in message
    assert str(tmp_path) in message
    assert "\n" not in message
    with pytest.raises(FileNotFoundError, match="not lenet"):
        weights.imagenet("lenet", tmp_path)


def test_damaged_and_foreign_files_are_refused(tmp_path, monkeypatch):
    file = save_hashed(vgg_features(), tmp_path, "vgg16", monkeypatch, "vgg16")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"vgg16-.*\.pth is damaged: its SHA-256 begins with"):
        weights.imagenet("vgg16", tmp_path)
    file.unlink()
    stand_in = tmp_path / "vgg16_imagenet_mine.pth"
    for bad, sentence in (
        (b"no weights", "cannot be read"),
        (b"", "cannot be read"),
        (bytes(content[:5000]), "cannot be read"),
    ):
        stand_in.write_bytes(bad)
        with pytest.raises(ValueError, match=sentence):
            weights.imagenet("vgg16", tmp_path)
    for content, sentence in (([1], "not a state dict"), ({"a": 1}, "not a state dict"), (small, "cannot be read")):
        torch.save(content, stand_in)
        with pytest.raises(ValueError, match=sentence):
            weights.imagenet("vgg16", tmp_path)
    (tmp_path / "vgg16_imagenet_other.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"keep one of vgg16_imagenet_mine\.pth, vgg16_imagenet_other\.pth"):
        weights.imagenet("vgg16", tmp_path)
