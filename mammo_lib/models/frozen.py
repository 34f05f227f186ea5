"""What an ImageNet VGG16 sees in each cell of an image, without any training on mammograms.

Knows no label and no box. A cell is 16 x 16 pixels, the step of VGG16 after its fourth pooling: its description are the
activations there (the fourth block's, pooled) and those of the fifth block, which has the same step.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import vgg

from mammo_lib import config

CELL = 16  # pixels
CHANNELS = (512, 512)  # of the fourth block, pooled, and of the fifth
_FOURTH_POOLING, _FIFTH_BLOCK = 24, 30  # layers of torchvision's `features` up to there
_EVEN = 2 * CELL  # pixels; a side must be even in cells, as in an input without borders cut off


def trunk(state: Mapping[str, Tensor]) -> nn.Sequential:
    """VGG16's convolutions, not to be trained, with the weights of `state` under torchvision's names."""
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)[:_FIFTH_BLOCK]
    layers.load_state_dict({name.removeprefix("features."): state[name] for name in _names(layers)})
    return layers.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _names(layers: nn.Sequential) -> list[str]:
    return [f"features.{name}" for name in layers.state_dict()]


@torch.inference_mode()
def describe(layers: nn.Sequential, image: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """uint8 (S, S), S a multiple of 32 -> float16 (S / 16, S / 16, 1024): log(1 + activation) in every cell.

    Only the part of the image that is not black is worked on; outside of it the description is 0. `precision` is "fp32"
    or "bf16" (autocast).
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] % _EVEN or image.shape[1] % _EVEN:
        raise ValueError(f"image must be uint8 (S, S), S a multiple of {_EVEN}: got {image.dtype} {image.shape}")
    found = np.zeros((image.shape[0] // CELL, image.shape[1] // CELL, sum(CHANNELS)), np.float16)
    rows, columns = (_seen(image.max(axis=axis)) for axis in (1, 0))
    if rows.stop == 0:
        return found
    grey = torch.from_numpy(image[rows, columns].copy())[None, None].float() / 255
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in (config.NORMALISE_MEAN, config.NORMALISE_STD))
    batch = ((grey - mean) / deviation).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        fourth = layers[:_FOURTH_POOLING](batch)
        fifth = layers[_FOURTH_POOLING:](fourth)
    both = torch.cat([fourth, fifth], dim=1)[0].float().log1p().permute(1, 2, 0)
    found[_cells(rows), _cells(columns)] = both.numpy()
    return found


def _seen(profile: np.ndarray) -> slice:
    """The pixels of a side from its first to its last that is not black, widened to an even number of cells."""
    bright = np.flatnonzero(profile)
    if not len(bright):
        return slice(0, 0)
    return slice(bright[0] // _EVEN * _EVEN, -(-(bright[-1] + 1) // _EVEN) * _EVEN)


def _cells(pixels: slice) -> slice:
    return slice(pixels.start // CELL, pixels.stop // CELL)
