"""The task of the search recipe: recognising digits, or the clothes of Fashion-MNIST."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch.utils.data import TensorDataset

from resolution_scaling.ground.files import replacing

from ..datasets.digits import load_digits
from ..datasets.fashion_mnist import load_fashion_mnist

TASK_VARIABLE = "AUTOCOMPRESS_SEARCH_TASK"
"""Environment variable with the folder of the task. Trials are processes of their own, and inherit it."""

IMAGE_PX = 28
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Task:
    """Sizes of the task.

    Attributes:
        width: number of channels of the first stage of the network.
        train_images, validation_images: numbers of images; they do not overlap.
        finetuning_epochs: passes over the training images after compression.
        learning_rate: that of Adam after compression.
        batch_size: number of images in a step.
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
        """The name of the images."""
        return "Fashion-MNIST" if self.fashion_mnist else "MNIST digits (10,000, embedded)"

    def write(self, folder: Path) -> None:
        """Write the sizes to a folder where trials find them."""
        with replacing(folder / "task.json") as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Read the task that `write` wrote to a folder."""
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
