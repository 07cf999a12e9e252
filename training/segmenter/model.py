"""The segmenter's network: a small residual U-Net on RGB-D features, with maps from which instances are grouped."""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from training.worlds.families import VOCABULARY
from wm_perception.segmentation.division import APART_PX
from wm_perception.segmentation.learned import CHANNELS, OUTPUTS

# Sizes of the shipped weights; larger ones cost time on the robot.
WIDTHS = (16, 32, 64, 96, 128)
"""Channels at each resolution, from that of the image downwards."""
EMBEDDING = 16
"""Length of an appearance vector."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., Deep Residual Learning, CVPR 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        same = channels_in == channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, channels, h / stride, w / stride)."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class Fusion(nn.Module):
    """Adds the features of the next deeper level to this level."""

    def __init__(self, shallow: int, deep: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(shallow + deep, shallow, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(shallow)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """(B, shallow, h, w) and (B, deep, h/2, w/2) to (B, shallow, h, w)."""
        deep = functional.interpolate(deep, size=shallow.shape[-2:], mode="bilinear", align_corners=False)
        return functional.relu(self.norm(self.mix(torch.cat([shallow, deep], dim=1))))


class BorderHead(nn.Module):
    """Log-odds that pixels and their neighbors ``APART_PX`` are of two objects.

    It sees the image itself beside the network's finest features, which are too few to keep every edge: of the borders
    within segments that homeware's validation images have, it finds 37 % where 2 % of the other pixels are called
    borders; without the image it found 26 %.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features + 4 * len(CHANNELS), 24, 3, 1, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, 1, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 4 * len(APART_PX), 1),
            nn.PixelShuffle(2),
        )

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """(B, 10, h, w) and (B, C, h/2, w/2) to (B, N, h, w)."""
        return self.of_folded(functional.pixel_unshuffle(image, 2), features)

    def of_folded(self, folded: Tensor, features: Tensor) -> Tensor:
        """The same of an image whose pixels were folded two by two, (B, 40, h/2, w/2)."""
        divided: Tensor = self.layers(torch.cat([features, folded], dim=1))
        return divided


class SegmenterNetwork(nn.Module):
    """Maps at full resolution (foreground, center, offset, apart) and at half (classes, embedding).

    Pixels are folded two by two into channels first and unfolded last (Shi et al., CVPR 2016), so that no pixel
    is lost and all convolutions work at half its size or less.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, classes: int = len(VOCABULARY)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * len(CHANNELS), widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        # One convolution at the finest level, the most expensive one; two blocks where they are cheap.
        self.encoder = nn.ModuleList(
            nn.Sequential(ResidualBlock(a, b, 2), *([ResidualBlock(b, b)] if b >= 64 else []))
            for a, b in itertools.pairwise(widths)
        )
        self.context = nn.Conv2d(widths[-1], widths[-1], 1)
        self.decoder = nn.ModuleList([Fusion(a, b) for a, b in itertools.pairwise(widths)])
        self.head = nn.Conv2d(widths[0], 24, 3, 1, 1)
        self.fine = nn.Sequential(nn.ReLU(), nn.Conv2d(24, 4 * 4, 1), nn.PixelShuffle(2))
        # What a thing is needs its surroundings more than its outline, and features that masks do not compete for.
        self.meaning = nn.Sequential(
            nn.Conv2d(widths[1], 48, 3, 1, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, classes + EMBEDDING, 1),
        )
        self.classes = classes
        # Few pixels are of objects and fewer are centers: the first outputs say so.
        with torch.no_grad():
            bias = self.fine[1].bias
            assert isinstance(bias, Tensor)
            bias[:4] = -2.0
            bias[4:8] = -3.0
        self.apart = BorderHead(widths[0])

    def for_runtimes(self) -> RuntimeNetwork:
        """The same function in evaluation, as runtimes take least time for it."""
        return RuntimeNetwork(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 10, h, w), h and w even, to the maps named in ``OUTPUTS``."""
        *maps, finest = self.features(image)
        return *maps, self.apart(image, finest)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The maps but for apart, and the features (B, widths[0], h/2, w/2) that it is made from."""
        h = self.stem(image)
        levels = [h]
        for block in self.encoder:
            h = block(h)
            levels.append(h)
        # A summary of the whole image is added to every pixel.
        h = functional.relu(h + self.context(h.mean(dim=(2, 3), keepdim=True)))
        for k in range(len(self.decoder) - 1, 0, -1):
            h = self.decoder[k](levels[k], h)
        meaning = functional.interpolate(self.meaning(h), size=levels[0].shape[-2:], mode="bilinear")
        finest = self.decoder[0](levels[0], h)
        fine = self.fine(self.head(finest))
        return (
            fine[:, 0:1],
            fine[:, 1:2],
            fine[:, 2:4],
            meaning[:, : self.classes],
            meaning[:, self.classes :],
            finest,
        )


class RuntimeNetwork(nn.Module):
    """A trained network as the same function, which folds the image once for the stem and the head, by a convolution.

    ONNX Runtime convolves faster than it transposes. The convolution's weights are 0 and 1, which eight bits hold
    exactly.
    """

    def __init__(self, network: SegmenterNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.network.stem[0] = nn.Identity()
        self.classes = network.classes
        self.fold = nn.Conv2d(len(CHANNELS), 4 * len(CHANNELS), 2, 2, bias=False)
        with torch.no_grad():
            self.fold.weight.copy_(torch.eye(4 * len(CHANNELS)).reshape(-1, len(CHANNELS), 2, 2))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """See ``SegmenterNetwork.forward``."""
        folded = self.fold(image)
        *maps, finest = self.network.features(folded)
        return *maps, self.network.apart.of_folded(folded, finest)


__all__ = ["EMBEDDING", "OUTPUTS", "WIDTHS", "RuntimeNetwork", "SegmenterNetwork"]
