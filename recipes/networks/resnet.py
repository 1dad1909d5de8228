"""A small ResNet for images of few pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class SmallResNet(nn.Module):
    """A ResNet (He et al. 2016) of three stages with one basic block each, for images ``[batch, channels, h, w]``.

    Args:
        width: number of channels of the first stage; the second and third have two and four times as many.
        image_channels: number of channels of the images.
        classes: number of classes.
    """

    def __init__(self, width: int, image_channels: int = 1, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(image_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = BasicBlock(width, width, stride=1)
        self.layer2 = BasicBlock(width, 2 * width, stride=2)
        self.layer3 = BasicBlock(2 * width, 4 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, classes]``."""
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.fc(self.pool(maps).flatten(1))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or channels != out_channels:
            convolution = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """``[batch, channels, height, width]`` -> ``[batch, out_channels, height / stride, width / stride]``."""
        inner = F.relu(self.bn1(self.conv1(maps)))
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return F.relu(self.bn2(self.conv2(inner)) + shortcut)
