"""A residual U-Net for the tests of both packages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ResUNet(nn.Module):
    """U-Net of 20 convolutions whose three skips are additions; ``width`` channels at full resolution, no norms."""

    LEVELS, CONVOLUTIONS = 3, 3

    def __init__(self, width: int = 32):
        super().__init__()

        def convolution(channels_in: int, channels: int) -> nn.Module:
            return nn.Conv2d(channels_in, channels, 3, padding=1)

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
        """Logits of the image ``[batch, 1, size, size]``; ``size`` a multiple of 8."""
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
