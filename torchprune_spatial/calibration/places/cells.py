"""Frames, in which places are numbers; and the cells of a feature map, which these numbers stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn

UNKNOWN = 0
"""The place of elements that belong to no pixel, such as a class token."""


@dataclass(frozen=True)
class Frame:
    """The pixels of a batch of images, with a margin of the size of an image around each; places are their numbers.

    Attributes:
        size: of an image, in half pixels, so that a convolution can look between two cells.
    """

    size: tuple[int, ...]

    @property
    def strides(self) -> list[int]:
        """By how much the place grows from one half pixel to the next along each dimension."""
        wide = [3 * size for size in self.size]
        return [math.prod(wide[dim + 1 :]) for dim in range(len(wide))]

    def even(self, batch: int, grid: Sequence[int]) -> torch.Tensor:
        """The places of the cells of a map ``[batch, *grid]`` that covers the images evenly."""
        places = 1 + torch.arange(batch).view(-1, *[1] * len(grid)) * math.prod(3 * size for size in self.size)
        for dim, (cells, size, stride) in enumerate(zip(grid, self.size, self.strides, strict=True)):
            begins = torch.arange(cells) * size // cells + size
            places = places + begins.view(-1, *[1] * (len(grid) - 1 - dim)) * stride
        return places

    def split(self, places: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The image of each place, and its coordinates in half pixels; those of the image go from 0 to ``size``."""
        rest, coordinates = places - 1, []
        image = rest // math.prod(3 * size for size in self.size)
        for size, stride in zip(self.size, self.strides, strict=True):
            coordinates.append(rest // stride % (3 * size) - size)
        return image, coordinates


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells of a feature map lie, if they do not cover the images evenly.

    Attributes:
        image: of each cell, ``[maps, cells]``; -1 if its place is unknown.
        begins: the first pixel of each cell along each dimension, ``[maps, cells]`` each.
        size: of the cells, in pixels.
    """

    image: torch.Tensor
    begins: tuple[torch.Tensor, ...]
    size: tuple[int, ...]

    def of_batch(self, images: int, batch: int) -> Cells | None:
        """The cells of a batch of another size; None if not each of the images has maps of its own, all alike.

        Args:
            images: the number of images here.
            batch: the number of images there.
        """
        whose, maps = self.image.amax(1), len(self.image)
        changes = (whose != whose[0]).nonzero()
        inner = int(changes[0]) if len(changes) else maps  # so many maps of an image stand beside each other
        outer = maps // (images * inner)
        if not torch.equal(whose, torch.arange(images).repeat_interleave(inner).repeat(outer)):
            return None
        known = self.image >= 0
        places = [known, *(begin.masked_fill(~known, 0) for begin in self.begins)]
        by_image = [part.unflatten(0, (outer, images, inner)) for part in places]
        mixed = bool((known & (self.image != whose.unsqueeze(1))).any())
        if mixed or any(not torch.equal(part, part[:, :1].expand_as(part)) for part in by_image):
            return None
        known, *begins = (part[:, :1].expand(-1, batch, -1, -1).flatten(0, 2) for part in by_image)
        image = torch.arange(batch).repeat_interleave(inner).repeat(outer).unsqueeze(1)
        return Cells(torch.where(known, image, -1), tuple(begins), self.size)


def cells_of(places: torch.Tensor, frame: Frame, grid: Sequence[int]) -> Cells | None:
    """The cells with these places; None for single cells, if none is known, or if they cover the images evenly.

    Evenly means up to half a cell: strided convolutions look up to half a cell to the side.

    Args:
        places: ``[maps, cells]``.
        frame: what the places refer to.
        grid: the spatial size of the maps.
    """
    if places.shape[1] == 1 or not bool((places != UNKNOWN).any()):
        return None
    if len(grid) == len(frame.size):
        places = spread(places.unflatten(1, grid), frame).flatten(1)
    image, begins = frame.split(places)
    image = image.masked_fill(places == UNKNOWN, -1)
    steps = [step_of(begin[image >= 0], size) for begin, size in zip(begins, frame.size, strict=True)]
    if len(grid) == len(frame.size):
        whose, evenly = frame.split(frame.even(len(places), grid).flatten(1))
        off = [(b - e).abs() * 2 < max(step, 2) for b, e, step in zip(begins, evenly, steps, strict=True)]
        if torch.equal(whose, image) and all(bool(part.all()) for part in off):
            return None
    pixels = tuple(begin.div(2, rounding_mode="floor") for begin in begins)
    return Cells(image, pixels, tuple(max(1, step // 2) for step in steps))


def step_of(coordinates: torch.Tensor, size: int) -> int:
    """The distance between neighbouring cells: the usual one between different coordinates."""
    different = coordinates.unique()
    return int(different.diff().mode().values) if len(different) > 1 else size


def spread(places: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Move apart cells ``[maps, *grid]`` that have one place because they were made of one cell."""
    for dim, (stride, size) in enumerate(zip(frame.strides, frame.size, strict=True), start=1):
        line = places.movedim(dim, -1).flatten(0, -2)
        line = line[int((line != UNKNOWN).sum(1).argmax())]
        starts = torch.cat([torch.ones(1, dtype=torch.bool), line.diff() != 0])
        if bool(starts.all()) or int(starts.sum()) == 1:
            continue
        run = starts.cumsum(0) - 1
        lengths = torch.bincount(run)
        within = torch.arange(len(line)) - starts.nonzero().flatten()[run]
        step = step_of(frame.split(line[line != UNKNOWN])[1][dim - 1], size)
        offsets = (within * step // lengths[run] * stride).view(-1, *[1] * (places.dim() - 1 - dim))
        places = torch.where(places == UNKNOWN, places, places + offsets)
    return places


def first_known(places: torch.Tensor, dim: int) -> torch.Tensor:
    """The smallest place that is known along a dimension, which then has size 1."""
    if places.shape[dim] == 1:
        return places
    largest = torch.iinfo(torch.long).max
    first = places.masked_fill(places == UNKNOWN, largest).amin(dim, keepdim=True)
    return first.masked_fill(first == largest, UNKNOWN)


@dataclass(frozen=True)
class Placed:
    """Where the cells of the maps lie that layers read, in one forward pass.

    Attributes:
        frame: the images.
        reads: for each layer, for each of its calls, the cells; None if these cover the images evenly or are unknown.
        outputs: the same for each floating-point tensor among the outputs.
        regions: where the regions' pixels lie that belong to an output of the same size, such as a cropped one; None if
            they cover the images.
    """

    frame: Frame
    reads: dict[nn.Module, list[Cells | None]]
    outputs: list[Cells | None]
    regions: Cells | None

    def of_batch(self, images: int, batch: int) -> Placed | None:
        """The places in a batch of another size; None if they do not follow from these. See `Cells.of_batch`."""
        if images == batch:
            return self
        made: dict[Cells | None, Cells | None] = {None: None}
        for cells in itertools.chain(*self.reads.values(), self.outputs, [self.regions]):
            if cells is not None and cells not in made:
                made[cells] = cells.of_batch(images, batch)
                if made[cells] is None:
                    return None
        reads = {layer: [made[cells] for cells in calls] for layer, calls in self.reads.items()}
        return Placed(self.frame, reads, [made[cells] for cells in self.outputs], made[self.regions])
