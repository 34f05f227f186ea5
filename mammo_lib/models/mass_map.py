"""Beyond the paper: a fully convolutional VGG16 that says of every cell of an image what it shows.

Knows no box, no label and no file. A cell is 16 x 16 pixels, as in frozen.py; what it can show is config.KINDS.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mammo_lib.config import BACKGROUND, BENIGN, KINDS, MALIGNANT
from mammo_lib.models import frozen


class MassMap(nn.Module):
    """VGG16's convolutions, of which the first are not trained, and one linear classifier for every cell."""

    def __init__(self, layers: nn.Sequential, kept: int, dropout: float) -> None:
        super().__init__()
        self.kept = layers[:kept].requires_grad_(False)
        self.taught = layers[kept:].requires_grad_(True)
        self.classifier = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(frozen.CHANNELS[-1], len(KINDS), 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (N, 3, H, W), sides multiples of 16 -> logits of KINDS (N, 3, H / 16, W / 16)."""
        with torch.no_grad():
            low = self.kept(images)
        logits: Tensor = self.classifier(self.taught(low))
        return logits


def build(state: Mapping[str, Tensor], kept: int, dropout: float, seed: int = 0) -> MassMap:
    """A network with the trunk of `state` (torchvision's names for VGG16), in training mode, its classifier at random.

    `kept`: how many layers of torchvision's `features` keep their weights; `dropout`: the share of channels of the last
    layer left out in training. The random weights are a function of `seed` alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = MassMap(frozen.trunk(state), kept, dropout)
    return network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.inference_mode()
def read(network: MassMap, image: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """uint8 (S, S), S a multiple of 32 -> logits of KINDS, float32 (S / 16, S / 16, 3): the mean of it and its mirror.

    Only the part of the image that is not black is worked on; outside of it the logits are 0, and nothing is to be read
    from them. `precision` is "fp32" or "bf16" (autocast). Sets evaluation mode.
    """
    network.eval()
    rows, columns = frozen.seen(image)
    found = np.zeros((image.shape[0] // frozen.CELL, image.shape[1] // frozen.CELL, len(KINDS)), np.float32)
    if rows.stop == 0:
        return found
    device = next(network.parameters()).device
    batch = frozen.network_input(image[rows, columns]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = torch.stack([network(batch), network(batch.flip(3)).flip(3)]).float().mean(dim=0)[0]
    found[frozen.in_cells(rows), frozen.in_cells(columns)] = logits.permute(1, 2, 0).cpu().numpy()
    return found


def malignancy(logits: np.ndarray) -> np.ndarray:
    """Logits of KINDS, float (..., 3) -> log odds of malignant against everything else, float64 (...)."""
    others: np.ndarray = np.logaddexp(logits[..., BACKGROUND].astype(np.float64), logits[..., BENIGN])
    return logits[..., MALIGNANT] - others
