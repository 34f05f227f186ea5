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
from mammo_lib.config import CELL

CHANNELS = (512, 512)  # of the fourth block, pooled, and of the fifth
_FOURTH_POOLING, _FIFTH_BLOCK = 24, 30  # layers of torchvision's `features` up to there
_EVEN = 2 * CELL  # pixels; a side must be even in cells, as in an input without borders cut off


def trunk(state: Mapping[str, Tensor]) -> nn.Sequential:
    """VGG16's convolutions, not to be trained, with the weights of `state` under torchvision's names."""
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)[:_FIFTH_BLOCK]
    layers.load_state_dict({name: state[f"features.{name}"] for name in layers.state_dict()})
    return layers.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.inference_mode()
def describe(layers: nn.Sequential, image: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """uint8 (S, S), S a multiple of 32 -> float16 (S / 16, S / 16, 1024): log(1 + activation) in every cell.

    Only the part of the image that is not black is worked on; outside of it the description is 0. `precision` is "fp32"
    or "bf16" (autocast).
    """
    rows, columns = seen(image)
    found = np.zeros((image.shape[0] // CELL, image.shape[1] // CELL, sum(CHANNELS)), np.float16)
    if rows.stop == 0:
        return found
    batch = network_input(image[rows, columns])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        fourth = layers[:_FOURTH_POOLING](batch)
        fifth = layers[_FOURTH_POOLING:](fourth)
    both = torch.cat([fourth, fifth], dim=1)[0].float().log1p().permute(1, 2, 0)
    found[in_cells(rows), in_cells(columns)] = both.numpy()
    return found


def network_input(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W) -> float32 (1, 3, H, W), normalised as ImageNet weights expect."""
    grey = torch.from_numpy(image.copy())[None, None].float() / 255
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in (config.NORMALISE_MEAN, config.NORMALISE_STD))
    return ((grey - mean) / deviation).contiguous(memory_format=torch.channels_last)


def seen(image: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a square image, in pixels, from the first to the last that is not black; empty if all are.

    They are widened to an even number of cells. ValueError for an image that is not uint8 (S, S), S a multiple of 32.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] % _EVEN or image.shape[1] % _EVEN:
        raise ValueError(f"image must be uint8 (S, S), S a multiple of {_EVEN}: got {image.dtype} {image.shape}")
    return _not_black(image.max(axis=1)), _not_black(image.max(axis=0))


def _not_black(profile: np.ndarray) -> slice:
    bright = np.flatnonzero(profile)
    if not len(bright):
        return slice(0, 0)
    return slice(int(bright[0]) // _EVEN * _EVEN, -(-(int(bright[-1]) + 1) // _EVEN) * _EVEN)


def in_cells(pixels: slice) -> slice:
    """A range of pixels in cells."""
    return slice(pixels.start // CELL, pixels.stop // CELL)
