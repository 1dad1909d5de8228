"""Statistics of the channels at the inputs of the layers that read them, summed over the calibration data."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
import torch.nn.functional as F

from .places.cells import Cells
from .regions import RegionMasks

CELLS = ("auto", "pure", "coverage")
CHUNK_ELEMENTS = 2**21
"""The largest number of elements in a temporary copy of activations."""


@dataclass(frozen=True)
class Reading:
    """The input of a layer, for a few images.

    Attributes:
        layer: the layer that reads the input.
        x: the input, ``[images, channels, *grid]``, also for layers whose own layout is different.
        weights: the weights of the cells in the means of the regions, ``[images, 2, regions, cells]`` (see
            `RegionMasks.weights`); None if no measurement needs regions.
        number: the number of the batch in this pass, and the position of the first image in the batch.
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
        return (
            x if x.device.type == "cpu" and x.amin() >= 0 else x.abs()
        )  # after ReLU, this check is faster than a copy


def readings(
    layer: nn.Module, x: torch.Tensor, regions: RegionMasks | None, batch: int, cells: Cells | None = None
) -> Iterator[Reading]:
    """Split the input of a layer into a few images at a time, so that temporary tensors fit into the cache.

    Args:
        layer: the layer.
        x: its input, ``[batch, channels, *grid]``.
        regions: the regions of the batch. Cells whose position is unknown belong to every region.
        batch: the number of the batch.
        cells: where the cells of the input lie, if they do not cover the images evenly.
    """
    weights = None
    if regions is not None:
        weights = regions.weights(len(x), tuple(x.shape[2:])) if cells is None else regions.weights_of(cells)
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
    """A statistic of the channels that a layer reads, computed from a running sum over the batches.

    Measurements are compared by value, so that criteria share a measurement that they both need.
    """

    needs_regions: ClassVar[bool] = False
    depends_on_layer: ClassVar[bool] = False
    """Whether the statistic depends on the reading layer. If so, two layers that read one tensor are measured apart."""

    @abstractmethod
    def measure(self, reading: Reading) -> Any:
        """The contribution of a few images to the sum; any type that has ``+``."""

    @abstractmethod
    def result(self, total: Any, present: torch.Tensor, reader: str) -> Any:
        """Compute the values of the input channels, on the CPU, from the sum over all batches.

        Args:
            total: the sum.
            present: which regions have at least one pixel in the calibration data, ``[regions]`` bool.
            reader: the name of the layer, for messages.
        """

    @staticmethod
    def is_finite(values: Any) -> bool:
        """Whether the values are free of NaN and infinity."""
        return bool(values.isfinite().all())


@dataclass(frozen=True)
class _ChannelMean(Measurement):
    """A mean over the cells of all images: ``[1, channels]`` float64."""

    def measure(self, reading: Reading) -> torch.Tensor:
        """The sum of each channel, followed by the number of cells."""
        total = self._value(reading.magnitude).sum(2).sum(0, dtype=torch.float64)
        return F.pad(total, (0, 1), value=reading.x.numel() / reading.x.shape[1])

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The mean."""
        return (total[:-1] / total[-1]).cpu().unsqueeze(0)

    @staticmethod
    @abstractmethod
    def _value(magnitude: torch.Tensor) -> torch.Tensor:
        """The values to average, computed from ``|activation|``; both ``[images, channels, cells]``."""


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
    """Running sums of activations and of weights, over pure cells and weighted by coverage (float64, O(channels))."""

    def __init__(self, activation: torch.Tensor, weight: torch.Tensor):
        self.activation, self.weight = activation, weight  # [2, regions, channels], [2, regions]

    def __add__(self, other: _RegionSums) -> _RegionSums:
        mine, theirs = self.for_regions(other.weight.shape[1]), other.for_regions(self.weight.shape[1])
        return _RegionSums(mine.activation + theirs.activation, mine.weight + theirs.weight)

    def for_regions(self, count: int) -> _RegionSums:
        """The sums, padded to at least ``count`` regions: the label maps of a later batch may have new regions."""
        return _RegionSums(pad(self.activation.mT, count).mT, pad(self.weight, count))


def pad(values: torch.Tensor, length: int) -> torch.Tensor:
    """Append zeros along the last dimension, up to at least ``length``."""
    missing = length - values.shape[-1]
    return F.pad(values, (0, missing)) if missing > 0 else values


@dataclass(frozen=True)
class RegionMeans(Measurement):
    """Means of ``|activation|`` over the cells of each region, then of all cells: ``[regions + 1, channels]`` float64.

    Attributes:
        cells: which cells of a feature map are averaged for a region. ``"pure"``, the paper's rule: those that lie
            wholly inside the region. ``"coverage"``: all, weighted by the share of the cell that the region covers.
            ``"auto"``: pure cells, or coverage for a region that has no pure cell on that grid in the whole
            calibration data.
    """

    cells: str = "auto"
    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> _RegionSums:
        """Sums over pure cells, and over all cells weighted by coverage."""
        weights = cast(torch.Tensor, reading.weights)  # needs_regions
        sums = torch.bmm(weights.flatten(1, 2), reading.magnitude.mT).sum(0, dtype=torch.float64)
        return _RegionSums(sums.unflatten(0, (2, -1)), weights.sum((0, 3), dtype=torch.float64))

    def result(self, total: _RegionSums, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The means of the regions that are present, and the overall mean.

        Raises:
            ValueError: ``cells="pure"``, and a region has no pure cell.
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
