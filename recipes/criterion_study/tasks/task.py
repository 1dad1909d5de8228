"""What a task of the study is: images with small objects, and how outputs are judged."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import torch
from torch import nn

from ...networks.unet import digit_classifier

DIGIT_PX = 28


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a task; all tensors have the same length.

    Attributes:
        inputs, targets: ``[n, 1, size, size]`` float32, ``size`` a multiple of 8; targets in 0..1.
        masks: where the objects are, ``[n, 1, size, size]`` bool.
        corners: row and column of the upper left corner of each digit's square of 28 px, ``[n, 2]``.
        labels: the digits, ``[n]``.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    masks: torch.Tensor
    corners: torch.Tensor
    labels: torch.Tensor

    def split(self, *sizes: int) -> list[Images]:
        """Consecutive parts of these sizes."""
        columns = [getattr(self, field.name)[: sum(sizes)].split(sizes) for field in dataclasses.fields(self)]
        return [Images(*parts) for parts in zip(*columns, strict=True)]

    def crops(self, images: torch.Tensor) -> torch.Tensor:
        """The squares of the digits, ``[n, 1, 28, 28]``, cut out of images of the same shape as the targets."""
        places = zip(images, self.corners.tolist(), strict=True)
        return torch.stack([image[:, y : y + DIGIT_PX, x : x + DIGIT_PX] for image, (y, x) in places])


class Task(ABC):
    """A task: a U-Net learns to make the targets of the inputs, with a sigmoid behind it and binary cross entropy.

    By default, accuracy is the share of the digits that a classifier recognises; for another accuracy, override
    `classifier` and `accuracies`.

    Attributes:
        name: on the command line and in the results.
        accuracy: what the accuracy is, in words for the report; empty for recognised digits.
    """

    name: ClassVar[str]
    accuracy: ClassVar[str] = ""

    @abstractmethod
    def images(self, count: int, seed: int) -> Images:
        """Make images. The seed is that of noise and the like; digits and their places are the same for every seed."""

    def classifier(self) -> nn.Module | None:
        """A new network that learns to recognise the digits in the targets; None if the task needs none."""
        return digit_classifier()

    def accuracies(self, outputs: torch.Tensor, images: Images, classifier: nn.Module | None) -> tuple[float, float]:
        """The accuracy of outputs, and the best that is possible, both in 0..1.

        Args:
            outputs: of a network behind the sigmoid, ``[n, 1, size, size]``.
            images: the images that they were made of.
            classifier: the trained network of `classifier`.
        """
        device = next(classifier.parameters()).device
        ours, best = (
            float((classifier(images.crops(which).to(device)).argmax(1).cpu() == images.labels).float().mean())
            for which in (outputs, images.targets)
        )
        return ours, best


TASKS: dict[str, type[Task]] = {}
"""The registered tasks by name."""
Kind = TypeVar("Kind", bound=type[Task])


def register_task(kind: Kind) -> Kind:
    """Class decorator that lets the command line find a task by its ``name``.

    Raises:
        ValueError: the class has no name that can be a part of a file's name, or another class has the same name.
    """
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of {kind.__name__} is {name!r}; expected letters, digits and underscores")
    if TASKS.setdefault(name, kind) is not kind:
        raise ValueError(f"name of {kind.__name__} is {name!r}, which {TASKS[name].__name__} has; choose another")
    return kind


def unregister_task(name: str) -> None:
    """Remove a task, so that the command line does not find it any more.

    Raises:
        ValueError: no task has this name.
    """
    if name not in TASKS:
        raise ValueError(f"no task is named {name!r}; known are {', '.join(map(repr, TASKS))}")
    del TASKS[name]
