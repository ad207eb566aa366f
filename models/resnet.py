"""ResNet encoders whose intermediate maps make hypercolumns.

[spec 2; He et al. 2016 for the network; Cheng et al. 2020, Sec. 3.2 for the hypercolumn.]
Letters: B images, C channels, H and W rows and columns. Layer numbers are those of ``--layer``:
0 the pixels, 1 the max pool, 2 to 5 the four stages, 6 the pooled vector, 7 the unit embedding.
`STEM`, which no flag names, is the map that the max pool is taken of.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hypercolumn import SHAPE, hypercolumn
from models.parallel import DataParallel
from models.rematerialization import rematerialized

STEM, PIXELS = -1, 0
MAPS = (5, 4, 3, 2, 1)  # that the published hypercolumn is made of
VECTOR_LAYER, EMBEDDING_LAYER = 6, 7


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3x3 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def build_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's 1x1 convolution, or None where the identity fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = build_shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions and a shortcut (ResNet-50 up)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = build_shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet(nn.Module):
    """ResNet v1 that returns any of its layers, or their hypercolumn.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: blocks in each of the four stages.
        low_dim: length of the unit embedding.
        in_channel: channels of the input image.
        width: multiplies the stages' channels (the first convolution keeps 64).
        pool_size: side of the average pool, the last stage's map: input side / 32.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        low_dim: int = 128,
        in_channel: int = 3,
        width: float = 1,
        pool_size: int = 7,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channel, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, out_channels, stages = 64, [], []
        for stage, count in enumerate(layers):
            inside, blocks = int(64 * width) * 2**stage, []
            for place in range(count):
                blocks.append(block(channels, inside, stride=2 if stage and not place else 1))
                channels = inside * block.expansion
            stages.append(nn.Sequential(*blocks))
            out_channels.append(channels)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AvgPool2d(pool_size, stride=1)
        self.fc = nn.Linear(channels, low_dim)
        self.channels = {STEM: 64, PIXELS: in_channel, 1: 64, **dict(enumerate(out_channels, 2))}
        self.saves_memory = False  # where gradients are wanted, keep one map a block alone
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(
        self,
        x: Tensor,
        layer: int = EMBEDDING_LAYER,
        use_hypercol: bool = False,
        output_shape: tuple[int, int] = SHAPE,
        *,
        levels: Sequence[int] | None = None,
    ) -> Tensor | list[Tensor]:
        """Return the outputs of some layers; or, as published, of one, or a hypercolumn.

        Args:
            x: (B, 3, H, W), normalised images.
            layer: see the module; 0 or less returns ``x`` itself.
            use_hypercol: stack the first ``layer`` of `MAPS`.
            output_shape: rows and columns of the hypercolumn.
            levels: the layers, deepest first, each of whose outputs is wanted as it is. The three
                arguments above have no part in it.
        """
        if levels is not None:
            return self.compute(x, levels)
        if layer <= 0:
            return x
        if use_hypercol:
            return hypercolumn(self.compute(x, MAPS[:layer]), output_shape)
        return self.compute(x, (layer,))[0]

    def compute(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Return the outputs of layers, given deepest first; nothing deeper is computed."""
        deepest = levels[0]
        if deepest == PIXELS:
            return [x]
        stem = self.relu(self.bn1(self.conv1(x)))
        found = {STEM: stem, 1: self.maxpool(stem)}
        for level, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), 2):
            if level <= deepest:
                found[level] = self._run(stage, found[level - 1])
        if deepest >= VECTOR_LAYER:
            found[VECTOR_LAYER] = self.avgpool(found[5]).flatten(1)  # (B, C)
        if deepest >= EMBEDDING_LAYER:
            embedding = self.fc(found[VECTOR_LAYER])
            if embedding.dtype in (torch.float16, torch.bfloat16):
                embedding = embedding.float()  # under autocast: a unit vector to float32's accuracy
            found[EMBEDDING_LAYER] = F.normalize(embedding, dim=1)
        return [found[level] for level in levels]

    def _run(self, stage: nn.Sequential, x: Tensor) -> Tensor:
        if not (self.saves_memory and torch.is_grad_enabled()):
            return stage(x)
        for block in stage:
            x = rematerialized(block, x)
        return x


class InsResNet(nn.Module):
    """A ResNet behind `DataParallel`, under the names the published checkpoints use [spec 2].

    For the arguments see `ResNet`.
    """

    levels = (*MAPS, STEM)  # all maps

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        width: float = 1,
        pool_size: int = 7,
    ) -> None:
        super().__init__()
        self.encoder = DataParallel(ResNet(block, layers, width=width, pool_size=pool_size))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor | list[Tensor]:
        """Return what `ResNet.forward` does, of the same arguments."""
        return self.encoder(x, *args, **kwargs)

    def feature_channels(self, levels: Sequence[int]) -> int:
        """Return how many channels these maps have together."""
        return sum(self.encoder.module.channels[level] for level in levels)

    def unused_parameters(self, levels: Sequence[int]) -> list[nn.Parameter]:
        """Return the parameters on which no map depends: those of the vector head."""
        return list(self.encoder.module.fc.parameters())


# As published, these take width and pool_size [spec 1].
InsResNet18 = partial(InsResNet, BasicBlock, (2, 2, 2, 2))
InsResNet34 = partial(InsResNet, BasicBlock, (3, 4, 6, 3))
InsResNet50 = partial(InsResNet, Bottleneck, (3, 4, 6, 3))
InsResNet101 = partial(InsResNet, Bottleneck, (3, 4, 23, 3))
InsResNet152 = partial(InsResNet, Bottleneck, (3, 8, 36, 3))
RESNETS = {  # by their names for --model
    "resnet50": InsResNet50,
    "resnet50x2": partial(InsResNet50, width=2),
    "resnet50x4": partial(InsResNet50, width=4),
    "resnet18": InsResNet18,
    "resnet34": InsResNet34,
    "resnet101": InsResNet101,
    "resnet152": InsResNet152,
}
