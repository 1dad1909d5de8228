"""The hologram reconstruction network and the digit classifier of the spatial-mask paper (sections 4.2 and 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ResUNet(nn.Module):
    """U-Net of 20 convolutions whose three skips are additions.

    Three encoder levels of three 3x3 convolutions with max pooling, one convolution at the bottom, three decoder
    levels of three with nearest upsampling, one output convolution. Each skip adds the output of an encoder level to
    the output of the first convolution of the decoder level. All activations are ReLU. The paper's last sigmoid is left
    to the loss (``binary_cross_entropy_with_logits``, which mixed precision allows) and to the caller.

    The paper does not give the numbers of channels; ``width`` at full resolution, doubled at each level, is ours.

    Args:
        width: number of channels at full resolution.
        norms: whether batch norms follow all convolutions but the last; the paper has none.
    """

    LEVELS, CONVOLUTIONS = 3, 3

    def __init__(self, width: int = 32, norms: bool = False):
        super().__init__()

        def convolution(channels_in: int, channels: int) -> nn.Module:
            layer = nn.Conv2d(channels_in, channels, 3, padding=1)
            return nn.Sequential(layer, nn.BatchNorm2d(channels)) if norms else layer

        def level(channels_in: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList(convolution(i, channels) for i in [channels_in] + [channels] * (self.CONVOLUTIONS - 1))

        widths = [width << i for i in range(self.LEVELS + 1)]
        self.encoder = nn.ModuleList(level(i, o) for i, o in zip([1, *widths], widths[:-1], strict=False))
        self.bottom = convolution(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(level(2 * o, o) for o in reversed(widths[:-1]))
        self.output = nn.Conv2d(width, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, hologram: torch.Tensor) -> torch.Tensor:
        """Logits of the image, ``[batch, 1, size, size]``; ``size`` is a multiple of 8."""
        x, skips = hologram, []
        for level in self.encoder:
            for convolution in level:
                x = F.relu(convolution(x))
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = F.relu(self.bottom(x))
        for level in self.decoder:
            first, *others = level
            x = F.relu(first(F.interpolate(x, scale_factor=2.0, mode="nearest"))) + skips.pop()
            for convolution in others:
                x = F.relu(convolution(x))
        return self.output(x)


def digit_classifier() -> nn.Sequential:
    """The paper's classifier of ``[batch, 1, 28, 28]``: convolutions of 32 and 64 filters, 100 and 10 neurons."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 5 * 5, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
