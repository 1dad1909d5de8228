"""Batches of a loader, on the device of a network, with the images resized to what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from ..cnn.resized_conv import resize_maps
from ..ground.sizes import Size


class ResizedBatch(NamedTuple):
    """One batch on the device."""

    full: torch.Tensor
    """The images of the loader, ``[batch, channels, height, width]``; the reference reads them."""
    resized: torch.Tensor
    """The same images at the size that the model reads."""
    labels: torch.Tensor | None
    """The second item of the loader's batch; None if there is none."""


class ResizedBatches:
    """Iterates over a loader, again and again.

    Args:
        loader: yields images, or ``(images, labels, ...)``.
        device: the device of the model.
        size: the size that the model reads, px; None for the images as they are.
    """

    def __init__(self, loader: Iterable[Any], device: torch.device, size: Size | None):
        self.loader, self.device, self.size = loader, device, size

    def __iter__(self) -> Iterator[ResizedBatch]:
        """The batches, in the order of the loader.

        Raises:
            ValueError: the loader yields no batch.
        """
        empty = True
        for batch in self.loader:
            empty = False
            images, labels, *_ = (*batch, None) if isinstance(batch, (tuple, list)) else (batch, None)
            images = images.to(self.device)
            labels = labels.to(self.device) if isinstance(labels, torch.Tensor) else labels
            yield ResizedBatch(
                images, images if self.size is None else resize_maps(images, self.size, "bilinear"), labels
            )
        if empty:
            raise ValueError("loader yields no batch; expected at least one")
