"""What can be measured where a layer reads its channels, added up over the calibration data."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
import torch.nn.functional as F

from .regions import RegionMasks

CELLS = ("auto", "pure", "coverage")
CHUNK_ELEMENTS = 2**21
"""Size of the largest temporary copy of activations, in elements."""


@dataclass(frozen=True)
class Reading:
    """What a layer reads of a few images.

    Attributes:
        layer: the layer that reads.
        x: its input, ``[images, channels, *grid]``, whatever layout the layer itself takes.
        weights: of its cells in the means of the regions, ``[images, 2, regions, cells]`` (`RegionMasks.weights`); None
            if no measurement asked for regions.
        number: of its batch in this pass, and of its first image in the batch.
    """

    layer: nn.Module
    x: torch.Tensor
    weights: torch.Tensor | None
    number: tuple[int, int]

    @property
    def cells(self) -> torch.Tensor:
        """``x`` as ``[images, channels, cells]`` in float32 or better."""
        return _cells(self.x).to(torch.promote_types(self.x.dtype, torch.float32))

    @functools.cached_property
    def magnitude(self) -> torch.Tensor:
        """``|x|`` as ``[images, channels, cells]`` in float32 or better."""
        x = self.cells
        return x if x.device.type == "cpu" and x.amin() >= 0 else x.abs()  # after ReLU, to look is faster than a copy


def readings(layer: nn.Module, x: torch.Tensor, regions: RegionMasks | None, batch: int) -> Iterator[Reading]:
    """A batch that a layer reads, a few images at a time, so that what is made of them stays small and in the cache.

    Args:
        layer: the layer.
        x: its input, ``[batch, channels, *grid]``.
        regions: the regions of the batch. Where the position of a cell is unknown, every region sees it.
        batch: number of the batch.
    """
    weights = None
    if regions is not None:
        weights = regions.weights(len(x), tuple(x.shape[2:]))
        if weights is None:
            weights = x.new_ones(1, 1, 1, 1).expand(len(x), 2, regions.planes.shape[1], _cells(x).shape[2])
        weights = weights.to(torch.promote_types(x.dtype, torch.float32))
    step = max(1, CHUNK_ELEMENTS // x[0].numel())
    for first in range(0, len(x), step):
        images = slice(first, first + step)
        yield Reading(layer, x[images], None if weights is None else weights[images], (batch, first))


def _cells(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)


class Measurement(ABC):
    """A statistic of the channels that a layer reads: a running sum over the batches, and what is made of it.

    Measurements are compared by value, so that criteria which ask for the same one share it.
    """

    needs_regions: ClassVar[bool] = False
    depends_on_layer: ClassVar[bool] = False
    """Whether the weights of the reading layer take part: two layers that read one tensor are then measured apart."""

    @abstractmethod
    def measure(self, reading: Reading) -> Any:
        """What a few images add: anything with ``+``."""

    @abstractmethod
    def result(self, total: Any, present: torch.Tensor, reader: str) -> Any:
        """Values of the input channels on the CPU, made of the sum over all batches.

        Args:
            total: the sum.
            present: which regions have any pixel in the whole calibration data, ``[regions]`` bool.
            reader: name of the layer, for messages.
        """

    @staticmethod
    def is_finite(values: Any) -> bool:
        """Whether the values are free of NaN and infinity."""
        return bool(values.isfinite().all())


@dataclass(frozen=True)
class _ChannelMean(Measurement):
    """Mean over all the cells of all the images: ``[1, channels]`` float64."""

    def measure(self, reading: Reading) -> torch.Tensor:
        """Sum of each channel, and behind them the number of cells."""
        total = self._value(reading.magnitude).sum(2).sum(0, dtype=torch.float64)
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
    missing = length - values.shape[-1]
    return F.pad(values, (0, missing)) if missing > 0 else values


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
        """Sums over the cells, pure ones and by coverage."""
        weights = cast(torch.Tensor, reading.weights)  # needs_regions
        sums = torch.bmm(weights.flatten(1, 2), reading.magnitude.mT).sum(0, dtype=torch.float64)
        return _RegionSums(sums.unflatten(0, (2, -1)), weights.sum((0, 3), dtype=torch.float64))

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
