"""What happens on the device: images there, one training step, the logits of many images.

Knows no epoch, no file and no rule of section 2.5.

On the CPU a step is eager, channels_last, float32 unless bfloat16 is asked for. On CUDA the images stay on the device,
and a step (augmentation, forward, backward and update; bfloat16 where autocast allows it; fused optimiser) is captured
once as a CUDA graph and replayed, because a batch of 4 is bound by kernel launches. For a long training the network in
it is compiled, because what is left is bound by memory, and compiled kernels pass over it less often: on an H200, torch
2.11, 1.4 times the images per second for ResNet50+CBAM at P and at G, 1.6 for InceptionV3 at P, for one to two minutes
of compiling before the first step (results/benchmarks/step_cuda.md). cuDNN's search gained nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mammo_lib.config import Training
from mammo_lib.training import augment

RESIDENT_SHARE = 0.5  # ours: of the device's free memory; a larger array is streamed, the rest is for the network
WARM_UP_STEPS = 3  # before a capture, as in torch's documentation
# Ours: steps of a training that win compiling back, on the device above 17 000 (ResNet50+CBAM, P), 21 000 (the same, G)
# and 23 000 (InceptionV3, P); fewer where other cells use the device meanwhile, or torch finds it on its disk.
COMPILE_FROM = 20_000
EAGER, CAPTURED, COMPILED = "eager", "captured", "captured, compiled"  # how the steps of a training run

Fetch = Callable[[np.ndarray], Tensor]  # indices (n,) -> uint8 (n, S, S) on the device
Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # see make_step


def choose_precision(wanted: str | None, device: str | torch.device) -> str:
    """ "fp32" or "bf16" as wanted; None is bf16 on CUDA and fp32 elsewhere."""
    if wanted not in (None, "fp32", "bf16"):
        raise ValueError(f"unknown precision {wanted!r}: choose fp32 or bf16")
    return wanted or ("bf16" if torch.device(device).type == "cuda" else "fp32")


def make_optimiser(network: nn.Module, settings: Training) -> Optimizer:
    """Adam or SGD (2.5) for a network that is on its device already."""
    device = next(network.parameters()).device
    captured = device.type == "cuda"  # a captured step reads the learning rate from a tensor, not from Python
    rate = torch.tensor(settings.learning_rate, device=device) if captured else settings.learning_rate
    weights, decay = network.parameters(), settings.weight_decay
    if settings.optimiser == "adam":
        return torch.optim.Adam(weights, rate, weight_decay=decay, fused=True, capturable=captured)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, settings.momentum, weight_decay=decay, fused=True)
    raise ValueError(f"unknown optimiser {settings.optimiser!r}: choose adam or sgd")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; on CUDA through pinned memory, so that the host need not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def make_fetch(images: np.ndarray, device: torch.device) -> Fetch:
    """A function that gives the images at some indices, on the device.

    On CUDA the whole array, uint8 (N, S, S), is kept there; one that is larger than RESIDENT_SHARE of the free memory
    is read from where it is (a memory map) batch by batch.
    """
    if device.type == "cuda" and images.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(images)).to(device)
        return lambda indices: resident[send(torch.from_numpy(indices), device)]
    return lambda indices: send(torch.from_numpy(images[indices]), device)


def make_step(network: Callable[[Tensor], Tensor], optimiser: Optimizer, precision: str) -> Step:
    """A function that updates the network by one batch.

    It takes images uint8 (n, S, S), affine matrices (n, 2, 3) and labels int64 (n,), on the network's device, and gives
    the mean cross entropy before the update and the number classified right, float (2,), on the device.
    """

    def step(images: Tensor, matrices: Tensor, labels: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        logits = _forward(network, augment.warp(images, matrices), precision)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimiser.step()
        return torch.stack([loss.detach(), (logits.argmax(1) == labels).sum().float()])

    return step


def make_captured(
    network: nn.Module, optimiser: Optimizer, precision: str, images: Tensor, compiled: bool = True
) -> Step:
    """The step of `make_step` with a compiled network, captured for batches shaped as `images`, uint8 (n, S, S).

    Needs what torch.compile needs on CUDA: Triton, which comes with torch on Linux, and a C compiler. Without them set
    torch's own TORCH_COMPILE_DISABLE=1: the graph alone is slower and as right. RuntimeError says so. `compiled` False:
    the graph alone.
    """
    if not compiled:
        return capture(make_step(network, optimiser, precision), network, optimiser, images)
    torch.compiler.reset()  # or the ninth network of a process would be left uncompiled (its recompile limit)
    try:
        return capture(make_step(torch.compile(network), optimiser, precision), network, optimiser, images)
    except TorchDynamoException as error:
        raise RuntimeError(
            f"the training step cannot be compiled here ({type(error).__name__}: {str(error).splitlines()[0]}): "
            "install a C compiler, or set TORCH_COMPILE_DISABLE=1 to train without"
        ) from error


def capture(step: Step, network: nn.Module, optimiser: Optimizer, images: Tensor) -> Step:
    """`step` as one CUDA graph for batches shaped as `images`, uint8 (n, S, S); the network is as it was afterwards.

    Its result lies in a fixed place and holds until the next call. A graph needs some eager steps first, on a side
    stream, in which libraries and optimiser allocate what they need. They change weights, batch statistics and moments;
    these are put back in place, since the graph knows their addresses. It is captured on the same side stream: what
    autograd remembers of the eager steps then belongs to the stream of the capture. Dropout follows `torch.manual_seed`
    as it does in an eager step, since a replay starts from seed and offset of the device's generator.
    """
    device, count = images.device, len(images)
    fixed = (
        images.clone(),
        torch.eye(2, 3, device=device).repeat(count, 1, 1),
        torch.zeros(count, dtype=torch.int64, device=device),
    )
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moments = {id(key): _cloned(state) for key, state in optimiser.state.items()}
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            step(*fixed)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):  # other threads may use the device
        result = step(*fixed)
    network.load_state_dict(weights)
    for key, state in optimiser.state.items():
        for name, tensor in state.items():  # no moments before: a first step from zeros is a first step
            tensor.copy_(moments[id(key)][name]) if id(key) in moments else tensor.zero_()
    return _Captured(graph, fixed, result, (network, optimiser))


@dataclass(frozen=True)
class _Captured:
    """A captured step. The graph knows addresses alone: what lies there, `owners` have, must live as long as it."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, Tensor, Tensor]
    result: Tensor
    owners: tuple[nn.Module, Optimizer]

    def __call__(self, *batch: Tensor) -> Tensor:
        for place, value in zip(self.inputs, batch, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.result


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@torch.inference_mode()
def logits(network: nn.Module, fetch: Fetch, indices: np.ndarray, batch_size: int, precision: str) -> Tensor:
    """Logits, float32 (n, 2) on the CPU, of the images at `indices` (n,), not augmented; sets evaluation mode."""
    network.eval()
    outputs = [torch.empty(0, 2)]
    for start in range(0, len(indices), batch_size):
        images = fetch(indices[start : start + batch_size])
        outputs.append(_forward(network, images.unsqueeze(1).float() / 255, precision))
    return torch.cat([output.cpu() for output in outputs])


def _forward(network: Callable[[Tensor], Tensor], greys: Tensor, precision: str) -> Tensor:
    """Greys, float (n, 1, S, S) in 0..1 -> logits, float32 (n, 2)."""
    batch = augment.normalise(greys).contiguous(memory_format=torch.channels_last)
    # no cache of cast weights: each is used once in a pass, and a cache must not outlive a captured graph
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
        output = network(batch)
    return output.float()
