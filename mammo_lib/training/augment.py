"""Augmentation of section 2.3, batched on the device, and the normalisation of a network's input.

Knows no file, no label and no network. One sample gets one affine map, composed of all steps in the paper's order
(horizontal flip, vertical flip, rotation, deformation and zoom), and is interpolated once. Parameters are drawn apart
from the warp, so that a captured step can be fed new matrices.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mammo_lib import config


def draw(count: int, settings: config.Augmentation, generator: Generator) -> Tensor:
    """Random parameters of `count` samples, float32 (count, 5), on the generator's device.

    Columns: horizontal flip (-1 flipped, 1 not), vertical flip, rotation (degrees, counter-clockwise as seen: ours,
    the paper gives no sense), zoom (above 1 magnifies), shear (degrees). All are uniform in the ranges of `settings`.
    """
    uniform = torch.rand(5, count, generator=generator, device=generator.device)
    horizontal = torch.where(uniform[0] < settings.horizontal_flip, -1.0, 1.0)
    vertical = torch.where(uniform[1] < settings.vertical_flip, -1.0, 1.0)
    ranges = (settings.rotation_degrees, settings.zoom, settings.shear_degrees)
    rest = [low + (high - low) * share for (low, high), share in zip(ranges, uniform[2:], strict=True)]
    return torch.stack((horizontal, vertical, *rest), dim=1)


def affine_matrices(parameters: Tensor) -> Tensor:
    """Maps from output to input positions, float32 (N, 2, 3), of parameters as `draw` gives them.

    Positions are (x, y) from the image's centre, x right, y down, in half image sides. Content moves by
    zoom * Shear @ Rotation @ Vertical @ Horizontal, the order of section 2.3 read from the right; this is its inverse,
    written out. Shear moves rows along x by tan(angle) * y. The last column, the shift, is 0.
    """
    horizontal, vertical, rotation, zoom, shear = parameters.unbind(dim=1)
    rotation, slope = torch.deg2rad(rotation), torch.tan(torch.deg2rad(shear))
    cosine, sine = torch.cos(rotation) / zoom, torch.sin(rotation) / zoom
    none = torch.zeros_like(zoom)
    across = torch.stack((horizontal * cosine, -horizontal * (sine + slope * cosine), none), dim=1)
    down = torch.stack((vertical * sine, vertical * (cosine - slope * sine), none), dim=1)
    return torch.stack((across, down), dim=1)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images, uint8 (N, S, S), moved by `affine_matrices`, (N, 2, 3): float32 (N, 1, S, S) in 0..1, bilinear.

    What comes from outside the image is its mirror image (ours: the paper says nothing). Black corners or drawn-out
    border pixels would put straight edges beside a mass, and its margin, spicules above all, is what the classes differ
    by; beside the breast, the mirror of black is black.

    ValueError: images that are not square.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be (N, S, S), S the same twice, got {tuple(images.shape)}: crop or pad them")
    grey = images.unsqueeze(1) / 255
    grid = _grid(matrices, images.shape[-1])
    return functional.grid_sample(grey, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def normalise(grey: Tensor) -> Tensor:
    """Network input, float (N, 3, S, S): grey, (N, 1, S, S) in 0..1, three times, each (grey - mean) / std.

    Mean and std are `config.NORMALISE_MEAN` and `config.NORMALISE_STD`, a pair for each channel. Their tensors are
    filled on the device: made of a list they would be copied there, which a CUDA graph cannot capture.
    """
    pairs = (config.NORMALISE_MEAN, config.NORMALISE_STD)
    mean, std = (torch.cat([grey.new_full((1, 1, 1, 1), value) for value in values], dim=1) for values in pairs)
    return (grey - mean).div_(std)


def network_input(images: Tensor) -> Tensor:
    """Images, uint8 (N, S, S), as a network sees them when they are not augmented: float32 (N, 3, S, S)."""
    return normalise(images.unsqueeze(1).float() / 255)


def _grid(matrices: Tensor, size: int) -> Tensor:
    """Input positions (x, y) of every output pixel, (N, S, S, 2), as functional.affine_grid gives them.

    Products element by element, not its matrix product: that runs in bf16 under autocast and in TF32 where it is
    allowed, which would move pixels by up to a quarter of a pixel at S = 512 (TF32) or by whole pixels (bf16).
    """
    centres = (torch.arange(size, device=matrices.device) * 2 + 1) / size - 1
    across, down, shift = matrices[..., None, None].unbind(dim=2)  # each (N, 2, 1, 1)
    return (across * centres + (down * centres[:, None] + shift)).permute(0, 2, 3, 1)
