"""Labelled images for the classification recipes: ImageNet's layout, Fashion-MNIST, or the embedded digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset
from torchvision.datasets import ImageFolder

from resolution_scaling.transforms import IMAGENET_MEAN, IMAGENET_STD

from .digits import load_digits
from .fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist

Transform = Callable[[object], torch.Tensor]
SPLIT_SEED = 0
"""Which images are validation is the same in every run: `--seed` varies networks, not the data."""


class TensorImages(Dataset):
    """Grey images ``[n, height, width]`` uint8 held in memory, given to a transform with three channels.

    Args:
        images, labels: of the same length.
        transform: of one image ``[3, height, width]`` uint8.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index].expand(3, -1, -1)), int(self.labels[index])


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images in three parts, each read through a transform that the caller chooses.

    Attributes:
        name: for the report.
        classes: how many.
        mean, std: of each channel, for images in [0, 1].
        flip: probability with which a mirror image is still of its class: half for things, none for digits.
        training, validation, test: transform -> dataset of ``(image, label)``. Validation is a part of the training
            images that is not trained on; ImageNet's own ``val`` is the test.
    """

    name: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: float
    training: Callable[[Transform], Dataset]
    validation: Callable[[Transform], Dataset]
    test: Callable[[Transform], Dataset]


def load_images(
    folder: Path | None, train_images: int | None, validation_images: int, test_images: int | None = None
) -> ImageData:
    """The images in a folder, or those that are at hand.

    Args:
        folder: with ``train`` and ``val``, each of a folder a class (ImageNet's layout); or of Fashion-MNIST (see
            `load_fashion_mnist`); None takes Fashion-MNIST where Debian's package put it, else the embedded digits.
        train_images: how many to train on; None for all that are not validation.
        validation_images: how many of the training images are set aside.
        test_images: how many to test on; None for all.

    Raises:
        FileNotFoundError: the folder holds nothing of the kind.
        ValueError: there are fewer images than asked for.
    """
    if folder is not None and (Path(folder) / "train").is_dir():
        return _image_folder(Path(folder), train_images, validation_images, test_images)
    if folder is not None or DEBIAN_FOLDER.is_dir():
        folder = folder or DEBIAN_FOLDER
        name, flip, parts = "Fashion-MNIST", 0.5, (load_fashion_mnist(folder), load_fashion_mnist(folder, train=False))
        (images, labels), (test, test_labels) = parts
    else:
        digits, labels = load_digits()
        digits, test_count = (255 * digits).byte(), min(test_images or 2000, 2000)
        name, flip, images, labels = "MNIST digits (10,000, embedded)", 0.0, digits[test_count:], labels[test_count:]
        test, test_labels = digits[:test_count], load_digits()[1][:test_count]
    training, validation = _split(len(images), train_images, validation_images)
    mean, std = float(images.float().mean() / 255), float(images.float().std() / 255)
    chosen = slice(test_images)
    return ImageData(
        name,
        10,
        (mean,) * 3,
        (std,) * 3,
        flip,
        lambda transform: TensorImages(images[training], labels[training], transform),
        lambda transform: TensorImages(images[validation], labels[validation], transform),
        lambda transform: TensorImages(test[chosen], test_labels[chosen], transform),
    )


def _image_folder(folder: Path, train_images: int | None, validation_images: int, test_images: int | None) -> ImageData:
    if not (folder / "val").is_dir():
        raise FileNotFoundError(f"{folder} has a folder train, but none named val: the test images, a folder a class")
    names = ImageFolder(folder / "train").classes
    if (found := ImageFolder(folder / "val").classes) != names:
        raise ValueError(
            f"{folder}: val has the classes {found[:3]}..., but train {names[:3]}...; they must be the same"
        )
    training, validation = _split(len(ImageFolder(folder / "train")), train_images, validation_images)
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    test = torch.randperm(len(ImageFolder(folder / "val")), generator=generator)[:test_images].tolist()
    return ImageData(
        folder.name,
        len(names),
        IMAGENET_MEAN,
        IMAGENET_STD,
        0.5,
        lambda transform: Subset(ImageFolder(folder / "train", transform), training.tolist()),
        lambda transform: Subset(ImageFolder(folder / "train", transform), validation.tolist()),
        lambda transform: Subset(ImageFolder(folder / "val", transform), test),
    )


def _split(count: int, train_images: int | None, validation_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of training and validation images, in a fixed random order."""
    needed = validation_images + (train_images or 1)
    if count < needed:
        raise ValueError(f"there are {count} training images, but {needed} are asked for; use a smaller preset")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    end = None if train_images is None else validation_images + train_images
    return order[validation_images:end], order[:validation_images]
