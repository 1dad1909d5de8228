"""The task of the search recipe: a small ResNet that recognises digits, or the clothes of Fashion-MNIST."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from ..datasets.digits import load_digits
from ..datasets.fashion_mnist import load_fashion_mnist
from ..experiments.files import replacing

TASK_VARIABLE = "AUTOCOMPRESS_SEARCH_TASK"
"""Environment variable with the folder of the task: trials are processes of their own, and inherit it."""

IMAGE_PX = 28
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Task:
    """Sizes of the task.

    Attributes:
        width: channels of the first stage of the network.
        train_images, validation_images: how many, without overlap.
        finetuning_epochs: passes over the training images after a network was compressed.
        learning_rate: Adam's, after compression.
        batch_size: images a step.
        fashion_mnist: folder for `load_fashion_mnist`; None for the embedded digits.
    """

    width: int
    train_images: int
    validation_images: int
    finetuning_epochs: int
    learning_rate: float = 5e-3
    batch_size: int = 32
    fashion_mnist: str | None = None

    @property
    def name(self) -> str:
        """What the images show."""
        return "Fashion-MNIST" if self.fashion_mnist else "MNIST digits (10,000, embedded)"

    def write(self, folder: Path) -> None:
        """Keep the sizes where trials find them."""
        with replacing(folder / "task.json") as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Of a folder that `write` was given."""
        return cls(**json.loads((folder / "task.json").read_text()))

    def data(self) -> tuple[TensorDataset, TensorDataset]:
        """Training and validation images ``[n, 1, 28, 28]`` in 0..1 with their labels."""
        if self.fashion_mnist:
            images, labels = load_fashion_mnist(self.fashion_mnist)
            images = images.float() / 255
        else:
            images, labels = load_digits()
        needed = self.validation_images + self.train_images
        if len(images) < needed:
            raise ValueError(f"there are {len(images)} images, fewer than the {needed} of this preset")
        images = images[:needed].unsqueeze(1)
        parts = (self.validation_images, self.train_images)
        validation, training = (
            TensorDataset(*pair) for pair in zip(images.split(parts), labels[:needed].split(parts), strict=True)
        )
        return training, validation


class SmallResNet(nn.Module):
    """A ResNet (He et al. 2016) of three stages, one basic block each, for small images ``[batch, channels, h, w]``.

    Args:
        width: channels of the first stage; the second and third have two and four times as many.
        image_channels: of the images.
        classes: how many.
    """

    def __init__(self, width: int, image_channels: int = 1, classes: int = CLASSES):
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
    """Two convolutions and a shortcut."""

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
