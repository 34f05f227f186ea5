"""Initial weights of a network: from ImageNet files, or from another cell's state.

Knows no training and no image, and downloads nothing. ImageNet weights are torchvision's IMAGENET1K_V1, pinned, found
by file name in a given folder or in torch's own cache. Where torchvision's file is not at hand, a file of trunk weights
called `<trunk>_imagenet_<anything>.pth` in the given folder stands in for it, and `ImageNetWeights.source` says so; it
has torchvision's names and expects inputs scaled as torchvision's weights do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision import models

from mammo_lib import config, paths
from mammo_lib.models.networks import Classifier

IMAGENET = {  # trunk -> torchvision's weights; DEFAULT would change with torchvision's version
    "vgg16": models.VGG16_Weights.IMAGENET1K_V1,
    "inception_v3": models.Inception_V3_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
}

# Names, ours and torchvision's, of what a state may hold beside the trunk that it is taken for.
_NOT_OF_THE_TRUNK = ("attention.", "head.", "fc.", "classifier.", "AuxLogits.")
_COUNTER = "num_batches_tracked"  # of batch normalisation: old files have none, and nothing uses it


class WeightsNotAvailable(FileNotFoundError):
    """No file of ImageNet weights for this network; the message says which file, from where, and where to put it."""


@dataclass(frozen=True)
class ImageNetWeights:
    """Weights as read from a file: fp32 on the CPU, under torchvision's names."""

    state: dict[str, Tensor]
    file: Path
    source: str  # what the file is, in words, for records and tables
    sha256: str


@dataclass(frozen=True)
class TransferReport:
    """What a state gave to a network, by the network's own names; `unexpected` are names of the state."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # in the network, not in the state: kept as they were
    unexpected: tuple[str, ...]  # in the state, not in the network: not used
    mismatched: tuple[str, ...]  # in both, with different shapes: kept as they were

    def __str__(self) -> str:
        """One line: "26 entries loaded; left at random: ...; not used: ..."."""
        left = [name for name in (*self.missing, *self.mismatched) if not name.endswith(_COUNTER)]
        parts = [f"{len(self.loaded)} entries loaded"]
        parts += [f"left at random: {', '.join(left)}"] if left else []
        parts += [f"not used: {', '.join(self.unexpected)}"] if self.unexpected else []
        return "; ".join(parts)


def transfer(network: Classifier, state: Mapping[str, Tensor]) -> TransferReport:
    """Copy into `network`, in place, every entry of `state` that fits by name and shape, the classifier's included.

    Section 2.5 starts the G network from "the weights" of the P network, without leaving any out, and the adaptive
    pooling makes all of them fit. Names are the project's ("features.0.weight") or torchvision's, which lack the
    leading "features." or "head.". Values are converted to the network's dtype and device.

    ValueError when the trunk is not filled whole, or the state has more layers than it: the state is another network's,
    of a deeper one of the family too, and a cell started from a part of it would carry a wrong label. BatchNorm's step
    counters may be missing.
    """
    own = network.state_dict()
    given = {_own_name(name, own): value for name, value in state.items()}
    loaded = tuple(name for name in own if name in given and given[name].shape == own[name].shape)
    report = TransferReport(
        loaded=loaded,
        missing=tuple(name for name in own if name not in given),
        unexpected=tuple(name for name in given if name not in own),
        mismatched=tuple(name for name in own if name in given and name not in loaded),
    )
    empty = [name for name in (*report.missing, *report.mismatched) if name.startswith("features.")]
    empty = [name for name in empty if own[name].is_floating_point()]
    if empty:
        raise ValueError(
            f"these weights do not fit the trunk of {network.name}: {empty[0]} and {len(empty) - 1} more entries "
            f"are absent or of another shape (given: {next(iter(state), 'nothing')}, for instance); give weights of "
            "the same trunk, under the names that its layers have"
        )
    foreign = [name for name in report.unexpected if not name.startswith(_NOT_OF_THE_TRUNK)]
    if foreign:
        raise ValueError(
            f"these weights are not those of {network.name}: they hold {foreign[0]} and {len(foreign) - 1} more "
            "entries that it does not have; give the weights of the same trunk"
        )
    network.load_state_dict({name: given[name] for name in loaded}, strict=False)
    return report


def imagenet(name: str, folder: Path) -> ImageNetWeights:
    """ImageNet weights of the network `name` (with or without "_cbam"), ready for `transfer`.

    Looked for in this order: torchvision's file in `folder`, in torch's cache (`torch.hub`), then a stand-in in
    `folder`. A file whose name ends in a hash ("-397923af.pth") must have that SHA-256.

    WeightsNotAvailable when there is none; ValueError when a file is damaged, or when several could stand in.
    """
    trunk = name.removesuffix(config.CBAM_SUFFIX)
    file, source = find(trunk, Path(folder))
    sha256 = _checked_hash(file)
    state = {key: value.float() if value.is_floating_point() else value for key, value in _read(file).items()}
    if trunk == "inception_v3":
        state |= _inception_scale()
    return ImageNetWeights(state, file, source, sha256)


def _own_name(name: str, own: Mapping[str, Tensor]) -> str:
    """The network's name of an entry that torchvision calls `name`; `name` itself when the network has none."""
    return next((known for known in (name, f"features.{name}", f"head.{name}") if known in own), name)


def find(trunk: str, folder: Path) -> tuple[Path, str]:
    """File of a trunk's ImageNet weights, unread, and what it is. Errors as in `imagenet`."""
    if trunk not in IMAGENET:
        raise WeightsNotAvailable(
            f"torchvision's IMAGENET1K_V1 weights are known for {', '.join(IMAGENET)}, not {trunk}"
        )
    url = IMAGENET[trunk].url
    file_name = url.rsplit("/", 1)[1]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for place in (folder, cache):
        if (place / file_name).is_file():
            return place / file_name, f"{file_name} (torchvision, IMAGENET1K_V1)"
    stand_ins = sorted(folder.glob(f"{trunk}_imagenet_*.pth"))
    if len(stand_ins) > 1:
        names = ", ".join(file.name for file in stand_ins)
        raise ValueError(f"several files in {folder} could stand in for {file_name}: keep one of {names}")
    if stand_ins:
        return stand_ins[0], f"{stand_ins[0].name} (trunk weights given by the user, not torchvision's IMAGENET1K_V1)"
    raise WeightsNotAvailable(
        f"ImageNet weights of {trunk} are not available: download {url} and put {file_name} into {folder} or {cache}"
    )


def _checked_hash(file: Path) -> str:
    """SHA-256 of the file; ValueError when its name promises another."""
    sha256 = paths.file_hash(file)
    promised = re.search(r"-([0-9a-f]{8,})\.pth$", file.name)
    if promised and not sha256.startswith(promised[1]):
        raise ValueError(
            f"{file} is damaged: its SHA-256 begins with {sha256[:8]}, its name says {promised[1]}; replace it"
        )
    return sha256


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors of a state dict file, by name, on the CPU."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file, OSError among them
        raise ValueError(f"{file} cannot be read as a file of weights ({type(error).__name__}): replace it") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} is not a state dict (tensors by name): save network.state_dict() into it")
    return dict(state)


def _inception_scale() -> dict[str, Tensor]:
    """Buffers of `networks.Rescale` that turn our normalisation into that of torchvision's InceptionV3 weights.

    Those were trained on (x - 0.5) / 0.5 (torchvision's `transform_input`), x grey in 0..1; the project feeds
    (x - mean) / std.
    """
    mean = torch.tensor(config.NORMALISE_MEAN).view(3, 1, 1)
    std = torch.tensor(config.NORMALISE_STD).view(3, 1, 1)
    return {"features.rescale.scale": std / 0.5, "features.rescale.offset": (mean - 0.5) / 0.5}
