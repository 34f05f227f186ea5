"""The six networks of section 3.1 and the one builder that makes them (2.4).

Knows no image, no weight file and no training. A network is a torchvision trunk (`features`), one CBAM after its last
feature layer or nothing (`attention`), and a classifier (`head`).

"After its last feature layer" is after everything that comes before torchvision's own `avgpool`: VGG16's `features`
with the last max-pooling, ResNet50 through `layer4`, InceptionV3 through `Mixed_7c` (ours for VGG16: the text says
only that all feature layers come before the CBAM).

To add a network: write one function that returns a `Trunk` and give it one entry in TRUNKS; `build` then knows it with
and without CBAM. Its tables need a label in `config.NETWORK_LABELS`; its ImageNet weights, an entry in
`weights.IMAGENET`, which fit if the trunk keeps torchvision's names.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torchvision import models
from torchvision.models import vgg

from mammo_lib import config
from mammo_lib.models.cbam import Cbam

CLASSES = len(config.CLASSES)
CBAM = config.Cbam()


@dataclass(frozen=True)
class Trunk:
    """Parts of a network before a CBAM is put between them."""

    features: nn.Module  # (N, 3, S, S) -> (N, channels, H, W)
    channels: int
    head: nn.Module  # (N, channels, H, W) -> logits (N, 2), for any H and W
    least_size: int  # pixels: at this S, H and W are 1


class Classifier(nn.Module):
    """A trunk, an attention module (or nn.Identity) and a classifier in a row."""

    def __init__(self, name: str, features: nn.Module, attention: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.features = features
        self.attention = attention
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (N, 3, S, S) -> logits (N, 2) in the order of config.CLASSES."""
        logits: Tensor = self.head(self.attention(self.features(images)))
        return logits

    @property
    def cam_target(self) -> nn.Module:
        """Module whose output Grad-CAM explains: the CBAM's; without one, the last feature layer's, passed through."""
        return self.attention


class Rescale(nn.Module):
    """Channel-wise x * scale + offset with fixed buffers; nothing happens until a state dict brings other values.

    torchvision's ImageNet weights for InceptionV3 were trained on inputs scaled otherwise than the project's one
    normalisation (its `transform_input`). They bring the change of scale along, and checkpoints keep it.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3, 1, 1))
        self.register_buffer("offset", torch.zeros(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.offset


def build(name: str, *, size: int, vgg_hidden: int = 4096, cbam: config.Cbam = CBAM, seed: int = 0) -> Classifier:
    """Build one network in fp32 with random weights, in training mode.

    `name` is a key of TRUNKS, with "_cbam" behind it for the one with a CBAM; `size` is the side S of its inputs in
    pixels; `vgg_hidden` the width of VGG16's two hidden layers.
    Weights are torchvision's random ones (each trunk function says which), a function of `seed` alone: the state of
    torch's generators is left as it was. At one seed, the networks with and without CBAM have equal trunks and heads.

    ValueError: unknown name; size below the trunk's least.
    """
    base = name.removesuffix(config.CBAM_SUFFIX)
    if base not in TRUNKS:
        known = ", ".join(f"{trunk}[{config.CBAM_SUFFIX}]" for trunk in TRUNKS)
        raise ValueError(f"unknown network {name!r}: choose one of {known}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        trunk = TRUNKS[base](vgg_hidden)
        attention: nn.Module = nn.Identity()
        if name != base:
            attention = Cbam(trunk.channels, cbam.reduction, cbam.spatial_kernel, cbam.normalised)
    if size < trunk.least_size:
        raise ValueError(f"{name} needs images of at least {trunk.least_size} pixels a side, got size {size}")
    return Classifier(name, trunk.features, attention, trunk.head)


def _vgg16(hidden: int) -> Trunk:
    """VGG16 with two hidden layers of `hidden` units (torchvision's and the original's: 4096).

    Convolutions: He normal, fan out; linear layers: normal, deviation 0.01; biases 0: torchvision's rule. Written out
    here because torchvision's constructor has no width, and draws its 120 million linear weights twice.
    """
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    classifier = nn.Sequential(
        skip_init(nn.Linear, 512 * 7 * 7, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        skip_init(nn.Linear, hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        skip_init(nn.Linear, hidden, CLASSES),
    )
    for parameter in (*features.parameters(), *classifier.parameters()):
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, 0, 0.01)
        else:
            nn.init.zeros_(parameter)
    head = OrderedDict(avgpool=nn.AdaptiveAvgPool2d((7, 7)), flatten=nn.Flatten(), classifier=classifier)
    return Trunk(features, channels=512, head=nn.Sequential(head), least_size=32)


def _inception_v3(_hidden: int) -> Trunk:
    """InceptionV3 without its auxiliary classifier (ours), dropout before the last layer as in torchvision.

    Convolutions and the last layer: normal, deviation 0.1, cut at 2: torchvision's rule.
    """
    features, head = _cut(models.inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=True))
    return Trunk(nn.Sequential(OrderedDict(rescale=Rescale(), **features)), channels=2048, head=head, least_size=75)


def _resnet50(_hidden: int) -> Trunk:
    """ResNet50. Convolutions: He normal, fan out; last layer: torch's uniform one: torchvision's rule."""
    features, head = _cut(models.resnet50(num_classes=CLASSES))
    return Trunk(nn.Sequential(features), channels=2048, head=head, least_size=32)


def _cut(model: nn.Module) -> tuple[OrderedDict[str, nn.Module], nn.Sequential]:
    """Layers of a torchvision network, under their names, before `avgpool`, and the head from there to `fc`."""
    features = OrderedDict(model.named_children())
    names = list(features)
    head = OrderedDict((name, features.pop(name)) for name in names[names.index("avgpool") :])
    last = head.pop("fc")
    return features, nn.Sequential(OrderedDict(**head, flatten=nn.Flatten(), fc=last))


TRUNKS: dict[str, Callable[[int], Trunk]] = {  # name -> function of the hidden width, which only VGG16 uses
    "vgg16": _vgg16,
    "inception_v3": _inception_v3,
    "resnet50": _resnet50,
}
