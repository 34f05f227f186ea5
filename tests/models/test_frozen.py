"""The frozen trunk against torchvision's own VGG16."""

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.transforms import v2

from mammo_lib.models import frozen


@pytest.fixture(scope="module")
def layers(vgg):
    return frozen.trunk(vgg.state_dict())


def bright(size=96, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (size, size), dtype=np.uint8)


def test_descriptions_are_the_activations_of_vgg16(vgg, layers):
    image, seen = bright(), {}
    hooks = [
        vgg.features[layer].register_forward_hook(lambda _, __, output, name=layer: seen.update({name: output}))
        for layer in (23, 29)  # the pooling after the fourth block; the last ReLU of the fifth
    ]
    prepare = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Lambda(lambda x: x.repeat(3, 1, 1))])
    normalise = v2.Normalize(models.VGG16_Weights.IMAGENET1K_V1.transforms().mean, [0.229, 0.224, 0.225])
    with torch.inference_mode():
        vgg.features(normalise(prepare(image))[None])
    for hook in hooks:
        hook.remove()
    wanted = torch.cat([seen[23], seen[29]], dim=1)[0].permute(1, 2, 0).log1p().numpy()
    found = frozen.describe(layers, image)
    assert found.shape == (6, 6, 1024)
    assert found.dtype == np.float16
    assert wanted.std() > 0.01
    assert np.allclose(found, wanted, atol=2e-3)


def test_black_around_a_breast_is_not_looked_at(layers):
    image = np.zeros((160, 160), np.uint8)
    image[64:128, 0:64] = bright(64)
    found = frozen.describe(layers, image)
    assert np.array_equal(found[4:8, 0:4], frozen.describe(layers, bright(64)))
    found[4:8, 0:4] = 0
    assert not found.any()
    assert not frozen.describe(layers, np.zeros((64, 64), np.uint8)).any()


def test_autocast_is_another_arithmetic_of_the_same(layers):
    exact, fast = (frozen.describe(layers, bright(), precision).astype(float) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(exact - fast).max() < 0.02 * exact.max()  # bf16 keeps eight bits; 0.0098 found


@pytest.mark.parametrize("image", [bright(100), bright(96).astype(np.float32), np.zeros((96, 96, 3), np.uint8)])
def test_other_images_are_refused(layers, image):
    with pytest.raises(ValueError, match="image must be uint8"):
        frozen.describe(layers, image)
