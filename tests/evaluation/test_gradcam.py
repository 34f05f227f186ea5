"""Grad-CAM against plain autograd on a tiny network; the gate against equations (1) and (2); nothing left behind."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mammo_lib import config
from mammo_lib.evaluation import gradcam

torch.set_num_threads(1)
SIZE = 32


class TinyCbam(nn.Module):
    """Gates made by hand: per-channel sigmoid of the mean, per-position sigmoid of the channel sum."""

    def channel_gate(self, F):
        return torch.sigmoid(F.mean((2, 3), keepdim=True))

    def spatial_gate(self, F):
        return torch.sigmoid(F.sum(1, keepdim=True))

    def forward(self, F):
        F = F * self.channel_gate(F)
        return F * self.spatial_gate(F)


class TinyNetwork(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.name = "tiny"
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.MaxPool2d(4), nn.Conv2d(5, 6, 3)
        )
        self.attention = attention
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 6 * 6, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 2))

    @property
    def cam_target(self):
        return self.attention

    def forward(self, x):
        return self.head(self.attention(self.features(x)))


@pytest.fixture(params=["cbam", "identity"])
def network(request):
    torch.manual_seed(3)
    return TinyNetwork(TinyCbam() if request.param == "cbam" else nn.Identity()).train()


@pytest.fixture
def x():
    return torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def plain_map(network, image):
    """Equations (1) and (2) of Selvaraju et al. 2017, with torch.autograd.grad and no hook, scaled as the package does.

    Before it is enlarged and once more after.
    """
    network.eval()
    activation = network.attention(network.features(image[None]))
    (gradient,) = torch.autograd.grad(network.head(activation)[0, 1], activation)
    weights = gradient.mean((2, 3), keepdim=True)
    small = torch.relu((weights * activation).sum(1))[0].detach().numpy()
    small = (small - small.min()) / (small.max() - small.min())
    large = cv2.resize(small, image.shape[1:])
    return (large - large.min()) / (large.max() - large.min())


def test_a_map_is_what_plain_autograd_gives(network, x):
    maps = gradcam.look(network, x).heat
    assert maps.shape == (5, SIZE, SIZE)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.std(axis=(1, 2)).max() > 0.05  # a constant map would agree with anything
    for image, found in zip(x, maps, strict=True):
        np.testing.assert_allclose(found, plain_map(network, image), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_a_batch_equals_one_by_one(network, x, batch_size):
    together = gradcam.look(network, x, batch_size).heat
    apart = np.concatenate([gradcam.look(network, image[None], 1).heat for image in x])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_the_short_cut_gives_the_map_of_the_whole_graph(network, x):
    """The package used the plain way, with its gradient running through every layer, agrees."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(network, [network.cam_target]) as cam:
        expected = cam(x, [ClassifierOutputTarget(1)] * len(x))
    np.testing.assert_allclose(gradcam.look(network, x).heat, expected, atol=1e-5)


def test_the_network_is_left_as_it_was(network, x):
    network.features[1].eval()  # a mode of its own, which a plain train() would lose
    network.features[0].weight.requires_grad_(False)
    network(x).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    modes = [module.training for module in network.modules()]
    needs = [parameter.requires_grad for parameter in network.parameters()]
    gradcam.look(network, x)
    assert modes == [module.training for module in network.modules()]
    assert needs == [parameter.requires_grad for parameter in network.parameters()]
    assert not any(module._forward_hooks for module in network.modules())
    for old, parameter in zip(gradients, network.parameters(), strict=True):
        assert (old is None) == (parameter.grad is None)
        assert old is None or torch.equal(old, parameter.grad)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_it_works_where_the_caller_forbids_gradients(network, x):
    with torch.no_grad():
        inside = gradcam.look(network, x).heat
    np.testing.assert_array_equal(inside, gradcam.look(network, x).heat)


def test_hooks_go_when_the_network_fails(network, x):
    network.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 6 * 6, 1))  # no logit 1
    with pytest.raises(IndexError):
        gradcam.look(network, x)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_no_positive_evidence_is_an_empty_map(x):
    network = TinyNetwork(nn.Identity())
    nn.init.zeros_(network.head[-1].weight)
    assert gradcam.look(network, x).heat.max() == 0


def test_no_image_gives_no_map(network):
    assert gradcam.look(network, torch.zeros(0, 3, SIZE, SIZE)).heat.shape == (0, SIZE, SIZE)


def test_the_gate_is_the_one_that_the_forward_pass_applies(x):
    torch.manual_seed(3)
    network = TinyNetwork(TinyCbam()).eval()
    gates = gradcam.look(network, x, batch_size=2).gate
    with torch.no_grad():
        F = network.features(x)
        gated = F * TinyCbam().channel_gate(F)
        applied = (network.attention(F) / gated).numpy()[:, 0]  # what remains when the channel gate is divided out
    for small, found in zip(applied, gates, strict=True):
        np.testing.assert_allclose(found, cv2.resize(small, (SIZE, SIZE)), atol=1e-4)
    assert gates.shape == (5, SIZE, SIZE)
    assert gates.dtype == np.float32


def test_a_network_without_cbam_has_no_gate(x):
    assert gradcam.look(TinyNetwork(nn.Identity()), x).gate is None


def test_a_look_has_the_score_of_a_plain_forward_pass(network, x):
    seen = gradcam.look(network, x, batch_size=2)
    with torch.no_grad():
        expected = network.eval()(x).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(seen.probability, expected, atol=1e-6)


def test_a_look_asks_the_network_once(network, x):
    passes = []
    network.features.register_forward_hook(lambda *_: passes.append(1))
    gradcam.look(network, x)
    assert len(passes) == 1, "what an explorer's click costs"
    assert not network.attention._forward_pre_hooks


@pytest.mark.parametrize("shape", [(3, SIZE, SIZE), (2, 1, SIZE, SIZE), (2, 3, SIZE, SIZE + 1), (2, 3, SIZE, SIZE, 1)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"must be float \(N, 3, S, S\)"):
        gradcam.look(network, torch.zeros(shape))


@pytest.mark.parametrize("name", config.NETWORK_LABELS)
def test_a_map_of_the_networks_of_the_paper_is_what_plain_autograd_gives(name):
    from mammo_lib.models import networks

    size = 128  # at 80 InceptionV3 has a single position left, and its map is empty by the package's scaling
    network = networks.build(name, size=size, vgg_hidden=16)
    with torch.no_grad():  # every channel speaks for malignant: no map is empty
        [part for part in network.head.modules() if isinstance(part, nn.Linear)][-1].weight.abs_()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    maps = gradcam.look(network, x).heat
    assert (maps.std(axis=(1, 2)) > 0.05).all()
    for image, found in zip(x, maps, strict=True):
        np.testing.assert_allclose(found, plain_map(network, image), atol=1e-4)
    if name.endswith("cbam"):
        assert gradcam.look(network, x).gate.shape == (2, size, size)
