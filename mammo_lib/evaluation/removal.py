"""Does the decision rest on what a map points at? Take it away, and see how far the probability falls (ROAD).

Takes a network, its input and maps of any origin; knows no file, no case and no box. Pixels are taken away from the
most relevant downwards and replaced by what their neighbours suggest, plus a little noise (Rong et al. 2022, "remove
and debias", as the package grad-cam has it): a black hole would itself be a sign, a smooth patch is less of one.

The measure, `removal`: area between the probability of malignancy of the intact image and the curve of the probability
over the removed share, divided by the greatest share: the mean fall. In -1..1; greater is better; 0: what the map
points at does not matter. It is about the network, not about the lesion: a map can be faithful and the network wrong.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.integrate import trapezoid
from torch import nn

MEASURE = "removal"
MALIGNANT = 1  # the class whose probability is followed
SHARES = (0.02, 0.05, 0.1)  # ours: of the image; a mass with its surroundings is about that large, and time grows fast
BATCH = 16  # ours: images at once; bounds the memory


def removal(
    network: nn.Module, x: torch.Tensor, maps: np.ndarray, seed: int = 0, shares: Sequence[float] = SHARES
) -> np.ndarray:
    """Mean fall of p(malignant) when the pixels that each map ranks highest are removed; float (N,).

    network: in evaluation mode. x: float (N, 3, S, S), normalised, on the network's device. maps: float (N, S, S), only
    their order counts; pixels of equal value are removed in an order drawn from `seed`, so a map that is the same
    everywhere is the control "anywhere". shares: rising, within 0..1. The same seed gives the same numbers. ValueError
    when the network is in training mode, shapes differ or shares do not rise.
    """
    if network.training:
        raise ValueError("the network is in training mode, where images of a batch touch one another: call eval()")
    if maps.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"maps must be {(len(x), *x.shape[2:])} as the images are, got {maps.shape}")
    steps = np.array([0.0, *shares])
    if len(steps) < 2 or (np.diff(steps) <= 0).any() or steps[-1] >= 1:
        raise ValueError(f"removed shares must rise within 0..1, got {tuple(shares)}")
    ranks = _ranks(maps, seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the package's noise, made on the CPU; a GPU's is left alone
        curve = np.array([_probability(network, x, ranks, share) for share in steps])
    return trapezoid(curve[0] - curve, steps, axis=0) / steps[-1]


def _ranks(maps: np.ndarray, seed: int) -> np.ndarray:
    """Each map's pixels numbered by rising value, float32 in 0..1: no two are equal, so a share is a share."""
    flat = maps.reshape(len(maps), -1)
    chance = np.random.default_rng(seed).random(flat.shape[1])  # who goes first among equals
    order = np.array([np.lexsort((chance, row)) for row in flat])
    ranks = np.empty(flat.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1], dtype=np.float32) / flat.shape[1], axis=1)
    return ranks.reshape(maps.shape)


def _probability(network: nn.Module, x: torch.Tensor, ranks: np.ndarray, share: float) -> np.ndarray:
    """p(malignant) of every image without the `share` of its pixels that ranks highest; float (N,)."""
    found = []
    for start in range(0, len(x), BATCH):
        batch, order = x[start : start + BATCH], ranks[start : start + BATCH]
        if share == 0:  # the package would remove one pixel
            with torch.no_grad():
                found.append(network(batch).softmax(dim=1)[:, MALIGNANT].float().cpu().numpy())
        else:
            remove = ROADMostRelevantFirst(percentile=100 * (1 - share))
            targets = [ClassifierOutputSoftmaxTarget(MALIGNANT)] * len(batch)
            found.append(remove(batch, order, targets, network, return_diff=False))
    return np.concatenate(found)
