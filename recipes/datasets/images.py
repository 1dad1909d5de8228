"""Labelled images for the classification recipes: ImageNet's layout, Fashion-MNIST, or the embedded digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import ImageFolder

from resolution_scaling.adapting.transforms import IMAGENET_MEAN, IMAGENET_STD

from .digits import load_digits
from .fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist

Transform = Callable[[object], torch.Tensor]
DIGITS_TEST = 2000
"""Number of test images among the embedded digits."""
SPLIT_SEED = 0
"""Seeds the choice of validation images. It is fixed: `--seed` varies networks, not data."""


class TransformedImages(Dataset):
    """Some images of a dataset, behind a transform.

    Args:
        images: a dataset of ``(image, label)``.
        indices: the images to use, in this order.
        transform: changes one image.
    """

    def __init__(self, images: Dataset, indices: Sequence[int], transform: Transform):
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[self.indices[index]]
        return self.transform(image), int(label)


class EqualImages(TransformedImages):
    """Images of one size in a `TensorDataset`, behind a transform that treats all alike and is called once a batch."""

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, int]]:
        """Make a batch for a `DataLoader`; for small images this is many times as fast as one by one."""
        images, labels = self.images[self.indices[indices]]
        return list(zip(self.transform(images), labels.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images in three parts, each read through a transform that the caller chooses.

    Attributes:
        name: the name in the report.
        classes: number of classes.
        mean, std: mean and standard deviation of each channel, for images in [0, 1].
        flip: probability of horizontal flips in training: one half for things, 0 for digits.
        training, validation, test: make a dataset of ``(image, label)`` for a transform. Validation images are training
            images that are set aside; ImageNet's own ``val`` is the test.
    """

    name: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: float
    training: Callable[[Transform], Dataset]
    validation: Callable[[Transform], Dataset]
    test: Callable[[Transform], Dataset]

    def __str__(self):
        counts = [len(part(None)) for part in (self.training, self.validation, self.test)]
        return "{}: {:,} training, {:,} validation and {:,} test images".format(self.name, *counts)


def load_images(
    folder: Path | None, train_images: int | None, validation_images: int, test_images: int | None = None
) -> ImageData:
    """Load the images in a folder, or those that are installed.

    Args:
        folder: a folder with ``train`` and ``val``, which have a folder for each class (ImageNet's layout), or a folder
            of Fashion-MNIST (see `load_fashion_mnist`). None for Fashion-MNIST if Debian's package is installed, else
            for the embedded digits.
        train_images: number of training images; None for all that are not validation images.
        validation_images: number of training images that are set aside.
        test_images: largest number of test images; None for all.

    Raises:
        FileNotFoundError: the folder holds no such images.
        ValueError: there are fewer training images than asked for, or the classes of ``val`` and ``train`` differ.
    """
    if folder is not None and (Path(folder) / "train").is_dir():
        return _image_folder(Path(folder), train_images, validation_images, test_images)
    if folder is not None or DEBIAN_FOLDER.is_dir():
        name, flip = "Fashion-MNIST", 0.5
        try:
            images, labels = load_fashion_mnist(folder or DEBIAN_FOLDER)
            test, test_labels = load_fashion_mnist(folder or DEBIAN_FOLDER, train=False)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}. There are no folders train and val either, as ImageNet has them"
            ) from error
    else:
        name, flip = "MNIST digits (10,000, embedded)", 0.0
        digits, digit_labels = load_digits()
        parts = (DIGITS_TEST, len(digits) - DIGITS_TEST)
        test, images = (255 * digits).round().byte().split(parts)
        test_labels, labels = digit_labels.split(parts)
    mean, std = float(images.float().mean() / 255), float(images.float().std() / 255)
    training, validation = _split(len(images), train_images, validation_images)
    train_set, test_set = _colour(images, labels), _colour(test, test_labels)
    return ImageData(
        name,
        10,
        (mean,) * 3,
        (std,) * 3,
        flip,
        partial(TransformedImages, train_set, training),
        partial(EqualImages, train_set, validation),
        partial(EqualImages, test_set, torch.arange(len(test))[:test_images]),
    )


def _image_folder(folder: Path, train_images: int | None, validation_images: int, test_images: int | None) -> ImageData:
    if not (folder / "val").is_dir():
        raise FileNotFoundError(
            f"{folder} has a folder train, but none named val; put the test images there, with a folder for each class"
        )
    train_set, test_set = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    if (found := test_set.classes) != (names := train_set.classes):
        raise ValueError(
            f"{folder}: val has the classes {found[:3]}..., but train {names[:3]}...; they must be the same"
        )
    training, validation = _split(len(train_set), train_images, validation_images)
    test = _shuffled(len(test_set))[:test_images]
    return ImageData(
        folder.name,
        len(names),
        IMAGENET_MEAN,
        IMAGENET_STD,
        0.5,
        partial(TransformedImages, train_set, training),
        partial(TransformedImages, train_set, validation),
        partial(TransformedImages, test_set, test),
    )


def _colour(images: torch.Tensor, labels: torch.Tensor) -> TensorDataset:
    """Give grey images ``[n, height, width]`` three equal channels, without a copy."""
    return TensorDataset(images.unsqueeze(1).expand(-1, 3, -1, -1), labels)


def _split(count: int, train_images: int | None, validation_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of training and validation images, in a fixed random order."""
    needed = validation_images + (train_images or 1)
    if count < needed:
        raise ValueError(f"there are {count} training images, but {needed} are asked for; use a smaller preset")
    order = _shuffled(count)
    end = None if train_images is None else validation_images + train_images
    return order[validation_images:end], order[:validation_images]


def _shuffled(count: int) -> torch.Tensor:
    """Indices in a fixed random order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
