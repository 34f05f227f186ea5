"""The map network against torchvision's VGG16 and the sums written out."""

import numpy as np
import pytest
import torch
from scipy.special import logit, softmax

from mammo_lib.models import frozen, mass_map

KEPT = 10  # layers: the first two blocks


@pytest.fixture
def network(vgg):
    return mass_map.build(vgg.state_dict(), KEPT, dropout=0.5)


def grey(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width), dtype=np.uint8)


def test_logits_are_one_linear_classifier_of_what_vgg16_sees(vgg, network):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = vgg.features[:30](images)
        found = network.eval()(images)
    linear = network.classifier[1]
    wanted = torch.einsum("nchw,kc->nkhw", seen, linear.weight[:, :, 0, 0]) + linear.bias[:, None, None]
    assert found.shape == (2, 3, 4, 6)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_first_layers_keep_their_weights_and_all_others_are_taught(vgg, network):
    network(torch.randn(1, 3, 32, 32)).sum().backward()
    taught = {id(weight) for weight in network.parameters() if weight.grad is not None}
    kept = [weight for weight in network.parameters() if id(weight) not in taught]
    wanted = list(vgg.features[:KEPT].parameters())
    assert len(kept) == len(wanted) == 8
    assert all(torch.equal(one, other) for one, other in zip(kept, wanted, strict=True))


def test_random_weights_are_of_the_seed_alone(vgg):
    before = torch.random.get_rng_state()
    made = [mass_map.build(vgg.state_dict(), KEPT, 0.5, seed).classifier[1].weight for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_an_image_is_read_as_itself_and_as_its_mirror(network):
    image = grey(64, 64)
    found = mass_map.read(network, image)
    with torch.inference_mode():
        straight, mirrored = (
            network.eval()(frozen.network_input(each))[0].permute(1, 2, 0).numpy()
            for each in (image, np.ascontiguousarray(image[:, ::-1]))
        )
    assert found.dtype == np.float32
    assert not np.allclose(straight, mirrored[:, ::-1], atol=1e-4)
    assert np.allclose(found, (straight + mirrored[:, ::-1]) / 2, atol=1e-5)


def test_black_around_a_breast_is_not_looked_at(network):
    image = np.zeros((128, 128), np.uint8)
    image[64:128, 0:64] = grey(64, 64)
    found = mass_map.read(network, image)
    assert np.array_equal(found[4:8, 0:4], mass_map.read(network, grey(64, 64)))
    found[4:8, 0:4] = 0
    assert not found.any()
    assert not mass_map.read(network, np.zeros((64, 64), np.uint8)).any()


def test_malignancy_is_the_log_odds_of_the_third_kind():
    logits = np.random.default_rng(0).normal(0, 3, (4, 5, 3)).astype(np.float32)
    wanted = logit(softmax(logits.astype(float), axis=-1)[..., 2])
    assert np.allclose(mass_map.malignancy(logits), wanted)
    assert np.isfinite(mass_map.malignancy(np.array([0.0, 0.0, 200.0]))).all()
