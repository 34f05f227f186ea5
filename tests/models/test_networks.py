"""The six networks against torchvision's own."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import nn
from torchvision import models

from mammo_lib import config
from mammo_lib.models import networks
from mammo_lib.models.cbam import Cbam


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def small(name, **changes):
    return networks.build(name, **{"size": 112, "vgg_hidden": 16, **changes})


@pytest.fixture(scope="module")
def made():
    """`small` by name, each made once, in evaluation mode: for reading only."""
    return cache(lambda name: small(name).eval())


def test_builder_knows_the_networks_of_the_tables():
    both = {name for trunk in networks.TRUNKS for name in (trunk, trunk + config.CBAM_SUFFIX)}
    assert both == set(config.NETWORK_LABELS)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("vgg16", models.vgg16),
        ("inception_v3", partial(models.inception_v3, aux_logits=False, init_weights=False)),
        ("resnet50", models.resnet50),
    ],
)
def test_same_numbers_as_torchvision(name, original):
    """torchvision's own network, given our weights under names without our first word, gives our logits."""
    ours = networks.build(name, size=112).eval()
    with torch.device("meta"):  # no weights of its own
        theirs = original(num_classes=2).eval()
    state = {key.removeprefix("head.").removeprefix("features."): value for key, value in ours.state_dict().items()}
    if hasattr(theirs, "features"):  # torchvision has the word too
        state = {key if key.startswith("classifier") else f"features.{key}": value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith("rescale")}
    theirs.load_state_dict(state, assign=True)
    images = torch.rand(2, 3, 107, 107)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", config.NETWORK_LABELS)
def test_one_attention_module_between_trunk_and_head(name, made):
    network = made(name)
    cbams = [module for module in network.modules() if isinstance(module, Cbam)]
    assert cbams == ([network.attention] if name.endswith("_cbam") else [])
    assert [child for child, _ in network.named_children()] == ["features", "attention", "head"]
    assert network.name == name
    for size in (112, 128):  # the size is not built in
        assert network(torch.rand(2, 3, size, size)).shape == (2, 2)


@pytest.mark.parametrize("trunk", networks.TRUNKS)
def test_cbam_gets_the_last_feature_map_and_feeds_the_head(trunk, made):
    """Logits are the head of the equations' output on the trunk's output."""
    network = made(f"{trunk}_cbam")
    images = torch.rand(1, 3, 112, 112)
    with torch.inference_mode():
        features = network.features(images)
        refined = network.attention.channel_gate(features) * features
        refined = network.attention.spatial_gate(refined) * refined
        torch.testing.assert_close(network(images), network.head(refined))


def test_cbam_settings_reach_the_module():
    network = small("resnet50_cbam", cbam=replace(config.Cbam(), reduction=64, spatial_kernel=3))
    assert network.attention.mlp[0].weight.shape == (2048 // 64, 2048)
    assert network.attention.conv.weight.shape == (1, 2, 3, 3)


def test_weights_are_a_function_of_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (small("resnet50_cbam", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.conv1.weight"], other["features.conv1.weight"])
    assert not torch.equal(first["attention.conv.weight"], other["attention.conv.weight"])


@pytest.mark.parametrize("trunk", networks.TRUNKS)
def test_a_pair_starts_from_the_same_trunk_and_head(trunk, made):
    plain, with_cbam = made(trunk).state_dict(), made(f"{trunk}_cbam").state_dict()
    assert all(torch.equal(value, with_cbam[name]) for name, value in plain.items())


def test_vgg_starts_as_torchvision_starts_it():
    """Moments of torchvision's rule: He normal, fan out, for convolutions; 0.01 for linear layers; biases 0."""
    network = networks.build("vgg16", size=64, vgg_hidden=64)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 50_000:
            expected = (2 / (layer.out_channels * 9)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
        if isinstance(layer, nn.Linear) and layer.weight.numel() > 1_000:
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias.abs().max() == 0


def test_dropout_follows_the_global_seed():
    for name in ("vgg16", "inception_v3"):
        network = small(name)
        features = torch.rand(2, 512 if name == "vgg16" else 2048, 2, 2)
        logits = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            logits.append(network.head(features))
        assert torch.equal(logits[0], logits[1])
        assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("inception_v3", 74, "inception_v3 needs images of at least 75 pixels a side, got size 74"),
        ("inception_v3_cbam", 64, "at least 75"),
        ("vgg16", 31, "at least 32"),
        ("lenet", 224, r"unknown network 'lenet': choose one of vgg16\[_cbam\]"),
        ("_cbam", 224, "unknown network '_cbam'"),
        ("vgg16_cbam_cbam", 224, "unknown network"),
    ],
)
def test_bad_names_and_sizes_end_in_a_sentence(name, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        networks.build(name, size=size, vgg_hidden=16)


@pytest.mark.parametrize("trunk", networks.TRUNKS)
def test_last_map_has_one_position_at_the_least_size(trunk):
    parts = networks.TRUNKS[trunk](16)
    images = torch.rand(1, 3, parts.least_size, parts.least_size)
    with torch.inference_mode():
        assert parts.features.eval()(images).shape == (1, parts.channels, 1, 1)


def test_network_is_one_graph():
    """Nothing in Python depends on the data, so a step can be compiled or captured whole."""
    compiled = torch.compile(small("vgg16_cbam"), backend="eager", fullgraph=True)
    assert compiled(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)).shape == (2, 2)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_gate_of_a_network_is_normalised_where_it_is_asked_for(normalised):
    """Features far from 0 and weights below it shut the gate of equation (2), and not the normalised one."""
    asked = config.Cbam(normalised=normalised)
    network = networks.build("vgg16_cbam", size=32, vgg_hidden=8, cbam=asked)
    with torch.no_grad():
        network.attention.conv.weight.abs_().neg_()
        gate = network.attention.spatial_gate(1e4 * torch.rand(2, 512, 3, 3))
    assert (float(gate.max()) > 0.01) == normalised
