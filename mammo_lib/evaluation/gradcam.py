"""Where a network looks: Grad-CAM for the malignant score (section 3.2), and CBAM's own spatial gate.

Takes a network and a batch, gives maps. Knows no file, no case and no box. Grad-CAM itself is the package grad-cam
(Selvaraju et al. 2017: channel weights are the score's gradients averaged over positions; the rectified weighted sum
of channels is the map).

A map is scaled by the package, image by image: least value to 0, greatest to 1, enlarged bilinearly. So a map says
where, not how much: maps of two images cannot be compared in height. A map without any positive evidence is all zero,
and so is one of a single position (InceptionV3 below 107 pixels), which has nothing to compare.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

MALIGNANT = 1  # the class whose logit is explained
BATCH = 16  # ours: maps at once; bounds the memory, changes no map


@dataclass(frozen=True)
class Look:
    """What a network makes of N images, each of S x S pixels.

    probability: of malignancy, float32 (N,). heat: Grad-CAM of the malignant logit, float32 (N, S, S) in 0..1. gate:
    CBAM's spatial gate, equation (2), enlarged bilinearly, float32 (N, S, S) in 0..1, not rescaled and the same for
    either class; None for a network without CBAM.
    """

    probability: np.ndarray
    heat: np.ndarray
    gate: np.ndarray | None


def look(network: nn.Module, x: torch.Tensor, batch_size: int = BATCH) -> Look:
    """Score, Grad-CAM at `network.cam_target` and gate, from a single forward pass an image.

    x: float (N, 3, S, S), normalised, on any device. The network is used in evaluation mode, where no image of a batch
    touches another, and is left as it was: modes, hooks, gradients. ValueError when x has another shape.
    """
    _check(x)
    heat = np.zeros((len(x), *x.shape[2:]), np.float32)
    seen = Look(np.zeros(len(x), np.float32), heat, np.zeros_like(heat) if _has_gate(network) else None)
    target: Any = network.cam_target
    with _frozen(network), _gates(network) as gates, _gradient_starts_at(target):
        cam = GradCAM(network, [target])
        try:  # not `with cam`: the package's own __exit__ swallows an IndexError
            for start in range(0, len(x), batch_size):
                place = slice(start, start + batch_size)
                heat[place] = cam(x[place], [ClassifierOutputTarget(MALIGNANT)] * len(x[place]))
                seen.probability[place] = cam.outputs.detach().softmax(dim=1)[:, MALIGNANT].float().cpu().numpy()
                if seen.gate is not None:
                    seen.gate[place] = _enlarged(gates.pop(), x)
        finally:
            cam.activations_and_grads.release()
    return seen


def _has_gate(network: nn.Module) -> bool:
    return hasattr(network.attention, "spatial_gate")


def _enlarged(gate: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    larger = F.interpolate(gate, size=x.shape[2:], mode="bilinear", align_corners=False)
    return np.asarray(larger[:, 0].float().cpu().numpy())


@contextmanager
def _gates(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list that holds the spatial gate of the last forward pass; always empty for a network without CBAM."""
    kept: list[torch.Tensor] = []
    attention: Any = network.attention

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        with torch.no_grad():
            features = inputs[0] * attention.channel_gate(inputs[0])
            kept[:] = [attention.spatial_gate(features)]

    handle = attention.register_forward_pre_hook(keep) if _has_gate(network) else None
    try:
        yield kept
    finally:
        if handle is not None:
            handle.remove()


def _check(x: torch.Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != x.shape[3] or not x.is_floating_point():
        raise ValueError(f"images for a heat map must be float (N, 3, S, S), got {x.dtype} {tuple(x.shape)}")


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no parameter gathers a gradient; every flag is put back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    try:
        network.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, need in needs:
            parameter.requires_grad_(need)
        for parameter, gradient in gradients:
            parameter.grad = gradient  # the package's zero_grad() removed it


@contextmanager
def _gradient_starts_at(layer: nn.Module) -> Iterator[None]:
    """Make the layer's output the start of the recorded graph.

    Grad-CAM needs the gradient from the score back to this layer and no further. With frozen parameters nothing
    below is recorded, which makes a map cost about a forward pass in time and memory; the map is the same.
    """
    handle = layer.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_())
    try:
        with torch.enable_grad():
            yield
    finally:
        handle.remove()
