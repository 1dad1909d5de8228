"""What can be measured where a layer reads its channels, added up over the calibration data."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F

from .regions import RegionMasks

CELLS = ("auto", "pure", "coverage")
CHUNK_ELEMENTS = 2**21
"""Size of the largest temporary copy of activations, in elements."""


@dataclass(frozen=True)
class Reading:
    """What a layer reads in one batch.

    Attributes:
        layer: the layer that reads.
        x: its input, ``[batch, channels, *grid]``, whatever layout the layer itself takes.
        regions: the regions of the batch; None if no measurement asked for them.
        batch: number of the batch in this pass.
        shared: whether several measurements read it, which makes it worth to keep ``|x|``.
    """

    layer: nn.Module
    x: torch.Tensor
    regions: RegionMasks | None
    batch: int
    shared: bool = False

    @property
    def cells(self) -> torch.Tensor:
        """The input as ``[batch, channels, cells]``."""
        return self.x.flatten(2) if self.x.ndim > 2 else self.x.unsqueeze(2)

    def magnitudes(self) -> Iterator[torch.Tensor]:
        """``|x|`` as ``[images, channels, cells]`` in float32 or better, a few images at a time."""
        return iter(self._magnitudes) if self.shared else self._chunks()

    @functools.cached_property
    def _magnitudes(self) -> list[torch.Tensor]:
        return list(self._chunks())

    def _chunks(self) -> Iterator[torch.Tensor]:
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        for part in self.cells.split(self.chunk):
            yield part.to(dtype).abs()

    @property
    def chunk(self) -> int:
        """How many images `magnitudes` takes at a time."""
        return max(1, CHUNK_ELEMENTS // self.x[0].numel())


class Measurement(ABC):
    """A statistic of the channels that a layer reads: a running sum over the batches, and what is made of it.

    Measurements are compared by value, so that criteria which ask for the same one share it.
    """

    needs_regions: ClassVar[bool] = False
    depends_on_layer: ClassVar[bool] = False
    """Whether the weights of the reading layer take part: two layers that read one tensor are then measured apart."""

    @abstractmethod
    def measure(self, reading: Reading) -> Any:
        """What one batch adds (anything with ``+``), or None where this layer has nothing to measure."""

    @abstractmethod
    def result(self, total: Any, present: torch.Tensor, reader: str) -> torch.Tensor:
        """Values of the input channels, made of the sum over all batches.

        Args:
            total: the sum.
            present: which regions have any pixel in the whole calibration data, ``[regions]`` bool.
            reader: name of the layer, for messages.
        """


@dataclass(frozen=True)
class _ChannelMean(Measurement):
    """Mean over all the cells of all the images: ``[1, channels]`` float64."""

    def measure(self, reading: Reading) -> torch.Tensor:
        """Sum of each channel, and behind them the number of cells."""
        total = sum(self._value(part).sum(2).sum(0, dtype=torch.float64) for part in reading.magnitudes())
        return F.pad(total, (0, 1), value=reading.x.numel() / reading.x.shape[1])

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The mean."""
        return (total[:-1] / total[-1]).cpu().unsqueeze(0)

    @staticmethod
    @abstractmethod
    def _value(magnitude: torch.Tensor) -> torch.Tensor:
        """``[images, channels, cells]`` -> the same shape."""


class MeanMagnitude(_ChannelMean):
    """Mean of ``|activation|`` of each channel."""

    @staticmethod
    def _value(magnitude: torch.Tensor) -> torch.Tensor:
        return magnitude


class NonzeroShare(_ChannelMean):
    """Share of the activations of each channel that are not exactly zero."""

    @staticmethod
    def _value(magnitude: torch.Tensor) -> torch.Tensor:
        return magnitude.sign()  # three times as fast as comparing and converting


class _RegionSums:
    """Running sums: activation and weight, over pure cells and by coverage (float64, O(channels))."""

    def __init__(self, activation: torch.Tensor, weight: torch.Tensor):
        self.activation, self.weight = activation, weight  # [2, regions, channels], [2, regions]

    def __add__(self, other: _RegionSums) -> _RegionSums:
        mine, theirs = self.for_regions(other.weight.shape[1]), other.for_regions(self.weight.shape[1])
        return _RegionSums(mine.activation + theirs.activation, mine.weight + theirs.weight)

    def for_regions(self, count: int) -> _RegionSums:
        """At least this many regions: a label map can bring new ones in a later batch."""
        return _RegionSums(pad(self.activation.mT, count).mT, pad(self.weight, count))


def pad(values: torch.Tensor, length: int) -> torch.Tensor:
    """Zeros behind the last dimension, up to at least ``length``."""
    return F.pad(values, (0, max(0, length - values.shape[-1])))


@dataclass(frozen=True)
class RegionMeans(Measurement):
    """Mean of ``|activation|`` over the cells of each region, and last of all: ``[regions + 1, channels]`` float64.

    Attributes:
        cells: which cells of a feature map make the mean of a region. ``"pure"``, the paper's rule: those that lie
            wholly inside; ``"coverage"``: all, weighted by the share that the region covers; ``"auto"``: pure cells,
            and coverage for a region that has no pure cell on that grid in the whole calibration data.
    """

    cells: str = "auto"
    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> _RegionSums:
        """Sums over the cells, pure ones and by coverage; where the position is unknown all the regions see all."""
        batch, channels = reading.x.shape[:2]
        weights = reading.regions.weights(batch, tuple(reading.x.shape[2:]))
        if weights is None:
            regions = reading.regions.planes.shape[1]
            weights = reading.x.new_ones(1, 1, 1, 1).expand(batch, 2, regions, reading.cells.shape[2])
        weights = weights.to(torch.promote_types(reading.x.dtype, torch.float32))
        activation = torch.zeros(2 * weights.shape[2], channels, dtype=torch.float64, device=reading.x.device)
        for weight, magnitude in zip(weights.flatten(1, 2).split(reading.chunk), reading.magnitudes(), strict=True):
            activation += torch.bmm(weight, magnitude.mT).sum(0, dtype=torch.float64)
        return _RegionSums(activation.unflatten(0, (2, -1)), weights.sum((0, 3), dtype=torch.float64))

    def result(self, total: _RegionSums, present: torch.Tensor, reader: str) -> torch.Tensor:
        """Means of the regions that are present, and overall.

        Raises:
            ValueError: ``cells="pure"`` where a region has no pure cell.
        """
        total = total.for_regions(len(present))
        activation, weight = total.activation[:, present].cpu(), total.weight[:, present].cpu()
        without_pure_cell = weight[0] == 0
        if self.cells == "pure" and without_pure_cell.any():
            raise ValueError(
                f"cells='pure' is undefined for region {present.nonzero()[without_pure_cell][0].item()} at the input "
                f"of {reader!r}: no cell of its feature map lies wholly inside the region in any image; use "
                "cells='auto' or cells='coverage'"
            )
        pure, covered = activation / weight.unsqueeze(2)
        by_coverage = without_pure_cell | (self.cells == "coverage")
        overall = activation[1].sum(0) / weight[1].sum()
        return torch.cat([torch.where(by_coverage.unsqueeze(1), covered, pure), overall.unsqueeze(0)])
