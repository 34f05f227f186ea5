"""The convolutional block attention module, equations (1) to (4) of section 2.4.2.

Knows no backbone and no input size: any feature map (N, C, H, W) goes in, one of the same shape comes out.
N images, C channels, H rows, W columns, as in the paper. The circled operator of (3) and (4) is the element-wise
product, with the gate broadcast; the text's "convolution" is a slip.
"""

import torch
from torch import Tensor, nn


class Cbam(nn.Module):
    """Channel gate, then spatial gate, each multiplied into the features.

    `channels` is C, `reduction` is r of (1), `kernel` the side of the convolution of (2): 7 in the paper, odd.
    `normalised` puts a batch normalisation behind that convolution, as the code of Woo et al. does and neither paper's
    equations do. Without it the gate may close for good: its input grows with the features, and where the sigmoid is 0
    nothing passes forward or back.
    No layer has a bias: the equations show none. The ReLU between the layers of the MLP is ours: the paper names no
    activation, Woo et al. 2018 use this one. The layers start as torch initialises them (uniform, 1 / sqrt(fan in)).
    """

    def __init__(self, channels: int, reduction: int, kernel: int, normalised: bool = False) -> None:
        super().__init__()
        if reduction < 1 or channels % reduction:
            raise ValueError(f"CBAM reduction {reduction} does not divide {channels} channels: choose one that does")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"CBAM kernel {kernel} is not odd, so the spatial gate would not fit: choose 7, say")
        hidden = channels // reduction
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),  # W0 of (1)
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),  # W1 of (1)
        )
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)  # f of (2)
        self.norm = nn.BatchNorm2d(1) if normalised else nn.Identity()

    def channel_gate(self, features: Tensor) -> Tensor:
        """Equation (1): (N, C, H, W) -> (N, C, 1, 1) in 0..1, sigmoid(MLP(average) + MLP(maximum))."""
        average = self.mlp(features.mean(dim=(2, 3)))
        maximum = self.mlp(features.amax(dim=(2, 3)))
        return torch.sigmoid(average + maximum)[:, :, None, None]

    def spatial_gate(self, features: Tensor) -> Tensor:
        """Equation (2): (N, C, H, W) -> (N, 1, H, W) in 0..1, sigmoid(conv([average; maximum] over channels))."""
        average = features.mean(dim=1, keepdim=True)
        maximum = features.amax(dim=1, keepdim=True)
        return torch.sigmoid(self.norm(self.conv(torch.cat((average, maximum), dim=1))))

    def forward(self, features: Tensor) -> Tensor:
        """Equations (3) and (4): (N, C, H, W) -> (N, C, H, W)."""
        features = self.channel_gate(features) * features
        return self.spatial_gate(features) * features
