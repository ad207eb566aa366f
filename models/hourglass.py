"""The hourglass encoder of DVE checkpoints [spec 3; Newell et al. 2016; Thewlis et al. 2019].

Letters: B images, H and W input rows and columns (multiples of 32).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

DEPTH = 4  # of the hourglass: how often it halves its input
BLOCKS = 4  # at each place of it
HOURGLASS_CHANNELS, OUT_CHANNELS = 256, 64


class PreActBottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1 (expansion 2, biased convolutions) and a shortcut."""

    expansion = 2

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1)
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 2 * channels, H, W)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return self.conv3(F.relu(self.bn3(out))) + shortcut


def build_blocks() -> nn.Sequential:
    """Return the blocks of one place of the hourglass."""
    inside = HOURGLASS_CHANNELS // PreActBottleneck.expansion
    return nn.Sequential(*(PreActBottleneck(HOURGLASS_CHANNELS, inside) for _ in range(BLOCKS)))


class Hourglass(nn.Module):
    """One stack: down to 1 / 16 of the resolution and back, with a shortcut at each level.

    ``layer{n}_1`` is level n's shortcut, ``layer{n}_2`` and ``layer{n}_3`` enclose what lies
    below it, ``layer1_4`` is the bottom. They are registered from the outside in and back, the
    order of DVE's state dict.
    """

    def __init__(self) -> None:
        super().__init__()
        for level in range(DEPTH, 0, -1):
            setattr(self, f"layer{level}_1", build_blocks())
            setattr(self, f"layer{level}_2", build_blocks())
        self.layer1_4 = build_blocks()
        for level in range(1, DEPTH + 1):
            setattr(self, f"layer{level}_3", build_blocks())

    def forward(self, x: Tensor, level: int = DEPTH) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        up = getattr(self, f"layer{level}_1")(x)
        # [spec 3] DVE pools the shortcut's output, where the usual hourglass pools x.
        low = getattr(self, f"layer{level}_2")(F.max_pool2d(up, 2))
        low = self.layer1_4(low) if level == 1 else self.forward(low, level - 1)
        low = getattr(self, f"layer{level}_3")(low)
        return up + F.interpolate(low, scale_factor=2, mode="nearest")


class HourglassNet(nn.Module):
    """DVE's encoder: one hourglass on a stride-2 stem, a 64-channel map out."""

    levels = (1,)  # its map, whatever is asked for

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(PreActBottleneck(64, 64))
        self.layer2 = nn.Sequential(PreActBottleneck(128, 128))
        self.layer3 = nn.Sequential(PreActBottleneck(256, 128))
        self.hg = nn.ModuleList([Hourglass()])
        head = nn.Sequential(
            build_blocks(),
            nn.Conv2d(HOURGLASS_CHANNELS, HOURGLASS_CHANNELS, 1),
            nn.BatchNorm2d(HOURGLASS_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(HOURGLASS_CHANNELS, OUT_CHANNELS, 1),
        )
        self.output_layers = nn.ModuleList([head])

    def forward(
        self, x: Tensor, *_: object, levels: Sequence[int] | None = None, **__: object
    ) -> Tensor | list[Tensor]:
        """Map images (B, 3, H, W) to features (B, 64, H / 2, W / 2).

        The ResNets' layer and hypercolumn arguments are taken and ignored [spec 3]. With
        ``levels``, the features are a list of one map.
        """
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        features = self.output_layers[0](self.hg[0](out))
        return features if levels is None else [features]

    def feature_channels(self, levels: Sequence[int]) -> int:
        """Return 64."""
        return OUT_CHANNELS
