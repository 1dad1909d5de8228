"""One image of the calibration data, with its regions, and the maps that a layer makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves, tree_map

from resolution_scaling.ground.arguments import whole_number
from resolution_scaling.ground.models import device_of, evaluating

from ..calibration.batches import CalibrationData
from ..calibration.regions import RegionMasks, token_grid
from ..calibration.statistics import Calibration
from ..graph.groups import members_that_read
from ..graph.layers import channel_dimension, watching_inputs
from .read_network import ReadNetwork


@dataclass(frozen=True)
class Example:
    """One image of the calibration data.

    Attributes:
        inputs: what the network reads, a batch of one.
        target: ``[*size]`` or ``[channels, *size]``, as the loader yields it; None if it yields none.
        planes: its regions, ``[regions, height, width]`` in 0..1.
        binary: whether the regions are an object and its background, and not those of a label map or of several planes.
    """

    inputs: Any
    target: torch.Tensor | None
    planes: torch.Tensor
    binary: bool

    @property
    def image(self) -> torch.Tensor:
        """The first image among the inputs, ``[channels, height, width]``, float32."""
        images = [leaf for leaf in tree_leaves(self.inputs) if isinstance(leaf, torch.Tensor) and leaf.ndim == 4]
        if not images:
            raise ValueError("the loader's inputs hold no images to draw; expected [batch, channels, height, width]")
        return images[0][0].float()

    def coverage(self, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Which cells of a grid are pure, and what share of each cell a region covers: ``[regions, *grid]`` each.

        Args:
            grid: (rows, columns).

        Raises:
            ValueError: the grid has one cell.
        """
        weights = RegionMasks(self.planes.unsqueeze(0)).weights(1, grid)
        if weights is None:
            raise ValueError("grids holds a grid of one cell, which has no positions; expected at least two cells")
        pure, covered = weights[0]
        return pure.unflatten(1, grid), covered.unflatten(1, grid)


def examples_in(calibration: Calibration, model: nn.Module | None = None) -> Iterator[Example]:
    """The images of the calibration data, one at a time, on the model's device.

    Raises:
        ValueError: the data are not usable (see `CalibrationData.batches`), hold no image, or are no images of two
            dimensions.
    """
    data = calibration.data
    device = torch.device("cpu") if model is None else device_of(model)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None) if model is not None else None
    empty = True
    for batch in data.loader:
        parts = (*batch, None, None)[:3] if isinstance(batch, (tuple, list)) else (batch, None, None)
        masks = [parts[2]]

        def masks_of(inputs: Any, target: Any, given: Any = data.masks, masks: list[Any] = masks) -> Any:
            masks.append(given(inputs, target))
            return masks[-1]

        one = CalibrationData([batch], data.threshold, masks_of if data.masks else None)
        inputs, _, regions = next(one.batches(device, dtype or torch.get_default_dtype()))
        planes = cast(RegionMasks, regions).planes
        if planes.ndim != 4:
            raise ValueError(
                f"the calibration data have {planes.ndim - 2} spatial dimensions; only images of two are drawn"
            )
        count, mask, target = len(planes), masks[-1], parts[1]
        targets = target if isinstance(target, torch.Tensor) and len(target) == count else [None] * count
        for i in range(count):
            empty = False
            yield Example(_one_of(inputs, i, count), targets[i], planes[i], _is_binary(mask))
    if empty:
        next(data.batches(device, torch.float32))  # raises if there is no batch, and says why
        raise ValueError("loader yielded batches without images: pass at least one image to calibrate on")


def example(calibration: Calibration, number: int, model: nn.Module | None = None) -> Example:
    """One image, by its number in the order of the loader.

    Raises:
        TypeError: the number is not a whole number.
        ValueError: there is no such image.
    """
    number, count = whole_number(number, "image", least=0), 0
    for count, found in enumerate(examples_in(calibration, model), 1):
        if count == number + 1:
            return found
    raise ValueError(f"image is {number}; expected a whole number from 0 to {count - 1}: the loader has {count} images")


def regions_in(calibration: Calibration, names: Sequence[str] | None = None) -> dict[int, str]:
    """The names of the regions that occur in the calibration data, by their numbers.

    The first image is enough to know an object and its background. Regions of label maps, and of several planes, are
    looked for in all the data.

    Args:
        calibration: the calibration data.
        names: names of the regions, in ascending order of their numbers. Default: ``object`` and ``background``, or
            ``region 0``, ``region 1``, ...

    Raises:
        ValueError: the calibration data are not usable, or there are not as many names as regions.
    """
    present: dict[int, None] = {}
    for found in examples_in(calibration):
        present |= dict.fromkeys(found.planes.flatten(1).any(1).nonzero()[:, 0].tolist())
        if found.binary:
            present = {0: None, 1: None}
            break
    numbers = sorted(present)
    default = ["object", "background"] if found.binary else [f"region {i}" for i in numbers]
    if names is not None and (isinstance(names, str) or len(names) != len(numbers)):
        raise ValueError(
            f"regions is {names!r}; expected {len(numbers)} names, one for each region in the calibration data: "
            f"{', '.join(default)}"
        )
    return dict(zip(numbers, default if names is None else names, strict=True))


def maps_of(network: ReadNetwork, layer: str, image: Example) -> torch.Tensor:
    """The maps of a layer's filters that the next layers read: ``[filters, height, width]`` float32, on the CPU.

    The map of a filter is taken from the first layer that reads it on a grid of positions. The tokens of a transformer
    are laid out on their grid.

    Raises:
        ValueError: no layer reads the filters on a grid, as behind global pooling or flattening.
    """
    filters: dict[nn.Module, list[tuple[int, int]]] = {}  # by reader: its channel, the layer's filter
    for group in network.groups_of(layer):
        filter_at = dict(network.filters_in(group, layer))
        for member in members_that_read(group, set(network.layers.values())):
            pairs = zip(member.channels.tolist(), member.positions.tolist(), strict=True)
            filters.setdefault(member.layer, []).extend((i, filter_at[p]) for i, p in pairs if p in filter_at)
    found: dict[int, torch.Tensor] = {}

    def read(reader: nn.Module, x: torch.Tensor) -> None:
        maps = _on_grid(x.detach().movedim(channel_dimension(reader), 1), image.planes.shape[1:])
        if maps is None:
            return
        for channel, number in filters[reader]:
            if not found or maps[channel].shape == next(iter(found.values())).shape:
                found.setdefault(number, maps[channel].float().cpu())

    with evaluating(network.model), torch.no_grad(), watching_inputs(filters, read):
        network.importance.calibration.forward(network.model, image.inputs)
    if not found:
        raise ValueError(
            f"the channels of {layer!r} are read without their positions (behind global pooling, flattening or window "
            "partitioning), so they have no map: choose an earlier layer"
        )
    nothing = torch.zeros_like(next(iter(found.values())))
    return torch.stack([found.get(number, nothing) for number in range(network.filters(layer))])


def _on_grid(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor | None:
    """``[1, channels, *grid]`` or tokens as ``[channels, height, width]``; None where positions are unknown."""
    prefix_tokens, grid = token_grid(x.shape[2], size) if x.ndim == 3 else (0, tuple(x.shape[2:]))
    if len(x) != 1 or len(grid) != 2 or math.prod(grid) == 1:
        return None
    return x[0].flatten(1)[:, prefix_tokens:].unflatten(1, grid)


def _one_of(inputs: Any, i: int, count: int) -> Any:
    """Image ``i`` of a batch of ``count`` images, as a batch of one."""

    def one(leaf: Any) -> Any:
        is_of_images = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == count
        return leaf[i : i + 1] if is_of_images else leaf

    return tree_map(one, inputs)


def _is_binary(mask: torch.Tensor | None) -> bool:
    """Whether `regions_from_mask` makes an object and its background of this mask."""
    if mask is None:
        return True  # a thresholded target
    planes = mask.shape[1] if mask.ndim == 4 else 1
    return planes == 1 and (mask.dtype == torch.bool or mask.is_floating_point())
