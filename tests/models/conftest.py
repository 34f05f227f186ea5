"""torchvision's VGG16, once for all tests of what is made from its convolutions."""

import pytest
import torch
from torch import nn
from torchvision import models


@pytest.fixture(scope="session")
def vgg():
    """As torchvision draws it; of its linear layers, 124 million weights that nobody here reads, the names alone."""
    with torch.device("meta"):
        network = models.vgg16(weights=None)
    network.features.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return network.eval()
