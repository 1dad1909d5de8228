"""One pass over the calibration data: the mean activation of each channel in each region, where the channel is read."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch_pruning.dependency import DependencyGraph

from .calibration import CalibrationData, Forward, call_model
from .groups import channel_layers, producers_of
from .outputs import OutputTrace
from .regions import RegionMasks

CELLS = ("auto", "pure", "coverage")
CHUNK_ELEMENTS = 2**21
"""Size of the largest temporary copy of activations, in elements."""


@dataclass(frozen=True)
class RegionStatistics:
    """Activation statistics of a network, by the layer that reads the channels.

    Attributes:
        means: mean of ``|activation|`` over the cells of each region, and last of all the regions together:
            ``[regions + 1, in_channels]`` float64.
        output_layers: layers whose channels are outputs of the network.
    """

    means: dict[nn.Module, torch.Tensor]
    output_layers: set[nn.Module]


class _Sums:
    """Running sums of one layer: activation and weight, over pure cells and by coverage (float64, O(channels))."""

    def __init__(self, activation: torch.Tensor, weight: torch.Tensor):
        self.activation, self.weight = activation, weight  # [2, regions, channels], [2, regions]

    def __add__(self, other: _Sums) -> _Sums:
        mine, theirs = self.for_regions(other.weight.shape[1]), other.for_regions(self.weight.shape[1])
        return _Sums(mine.activation + theirs.activation, mine.weight + theirs.weight)

    def for_regions(self, count: int) -> _Sums:
        """At least this many regions: a label map can bring new ones in a later batch."""
        return _Sums(_pad(self.activation.mT, count).mT, _pad(self.weight, count))


def _pad(values: torch.Tensor, length: int) -> torch.Tensor:
    """Zeros behind the last dimension, up to at least ``length``."""
    return F.pad(values, (0, max(0, length - values.shape[-1])))


class _Collector:
    """Forward pre-hooks that add up the inputs of the layers that read channels.

    The inputs, not the outputs, because the paper scores the activated map, and only its reader sees it for ``nn.ReLU``
    and ``F.relu`` alike, after addition or concatenation.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        self.sums: dict[nn.Module, _Sums] = {}  # in the order of the forward
        self.areas = torch.zeros(0, dtype=torch.float64)
        self._layers = list(layers)
        self._regions: RegionMasks | None = None
        self._last_reads: dict[tuple[int, bool], tuple[weakref.ref, int, _Sums]] = {}

    @contextlib.contextmanager
    def reading(self, regions: RegionMasks) -> Iterator[None]:
        """Add up what the layers read inside, for a batch with these regions."""
        self._regions = regions
        handles = []
        try:
            handles = [layer.register_forward_pre_hook(self._read, with_kwargs=True) for layer in self._layers]
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._last_reads.clear()
        area = regions.planes.sum((0, *range(2, regions.planes.ndim)), dtype=torch.float64).cpu()
        self.areas = _pad(self.areas, len(area)) + _pad(area, len(self.areas))

    @torch.no_grad()
    def _read(self, layer: nn.Module, args: tuple, kwargs: dict) -> None:
        x = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
        if x is None or x.ndim < 2:
            return
        key = id(x), isinstance(layer, nn.Linear)
        reference, version, sums = self._last_reads.get(key, (lambda: None, 0, None))
        if reference() is not x or version != x._version:  # several layers often read one tensor: add it up once
            with torch.autocast(x.device.type, enabled=False):
                sums = self._sum(x.detach().movedim(-1, 1) if key[1] else x.detach())
            self._last_reads[key] = weakref.ref(x), x._version, sums
        self.sums[layer] = sums if layer not in self.sums else self.sums[layer] + sums

    def _sum(self, x: torch.Tensor) -> _Sums:
        batch, channels = x.shape[:2]
        dtype = torch.promote_types(x.dtype, torch.float32)
        weights = self._regions.weights(batch, tuple(x.shape[2:]))
        if weights is None:  # position unknown: every cell counts in every region
            weights = x.new_ones(1, 1, 1, 1).expand(batch, 2, self._regions.planes.shape[1], x[0, 0].numel())
        x, weights = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2), weights.to(dtype)
        activation = torch.zeros(2 * weights.shape[2], channels, dtype=torch.float64, device=x.device)
        images = max(1, CHUNK_ELEMENTS // x[0].numel())
        for part, weight in zip(x.split(images), weights.flatten(1, 2).split(images), strict=True):
            activation += torch.bmm(weight, part.to(dtype).abs().mT).sum(0, dtype=torch.float64)
        return _Sums(activation.unflatten(0, (2, -1)), weights.sum((0, 3), dtype=torch.float64))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def collect_statistics(
    graph: DependencyGraph, data: CalibrationData, forward: Forward = call_model, cells: str = "auto"
) -> RegionStatistics:
    """Run the calibration data through the network once and return its statistics.

    The network is left as it was: hooks, training mode, gradients and device, also after an exception.

    Args:
        graph: Torch-Pruning's dependency graph of the network.
        data: the calibration data.
        forward: ``(model, inputs)`` -> outputs.
        cells: which cells of a feature map make the mean of a region. ``"pure"``, the paper's rule: those that lie
            wholly inside; ``"coverage"``: all, weighted by the share that the region covers; ``"auto"``: pure cells,
            and coverage for a region that has no pure cell on that grid in the whole calibration data.

    Raises:
        ValueError: bad calibration data (see `CalibrationData.batches`); fewer than two regions have a pixel; NaN or
            infinite activations; no layer can be pruned; ``"pure"`` where a region has no pure cell.
    """
    model, layers = graph.model, channel_layers(graph)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    collector, trace, output_layers = _Collector(layers), OutputTrace(layers), None
    with evaluating(model):
        for inputs, regions in data.batches(parameter.device, parameter.dtype):
            with collector.reading(regions), contextlib.ExitStack() as stack:
                if output_layers is None:
                    stack.enter_context(trace.recording(model))
                outputs = forward(model, inputs)
            if output_layers is None:
                output_layers = trace.layers_behind(outputs)

    if not any(layer in graph.module2node and layer not in output_layers for layer in layers):
        raise ValueError(
            f"model {type(model).__name__} has no prunable layer: "
            + ("every layer writes an output of the network" if layers else "it has no convolution or linear layer")
        )
    present = collector.areas > 0
    _check_regions(present, data)
    means = {}
    for layer, sums in collector.sums.items():
        sums = sums.for_regions(len(present))
        activation, weight = sums.activation[:, present].cpu(), sums.weight[:, present].cpu()
        if not activation.isfinite().all():
            raise ValueError(_non_finite_message(graph, layer, layers))
        without_pure_cell = weight[0] == 0
        if cells == "pure" and without_pure_cell.any():
            raise ValueError(
                f"cells='pure' is undefined for region {present.nonzero()[without_pure_cell][0].item()} at the input "
                f"of {layers[layer]!r}: no cell of its feature map lies wholly inside the region in any image; use "
                "cells='auto' or cells='coverage'"
            )
        pure, covered = activation / weight.unsqueeze(2)
        by_coverage = without_pure_cell if cells == "auto" else torch.full_like(without_pure_cell, cells == "coverage")
        overall = activation[1].sum(0) / weight[1].sum()
        means[layer] = torch.cat([torch.where(by_coverage.unsqueeze(1), covered, pure), overall.unsqueeze(0)])
    return RegionStatistics(means, output_layers)


def _check_regions(present: torch.Tensor, data: CalibrationData) -> None:
    if present.sum() >= 2:
        return
    if data.masks is None and len(present) == 2:
        missing, side = ("object", "above") if not present[0] else ("background", "below")
        raise ValueError(
            f"threshold={data.threshold!r} leaves every image without {'an ' * (missing == 'object')}{missing} (no "
            f"target pixel lies {side} it, or no mask has one): choose a threshold inside the range of the targets, "
            "use threshold='otsu', or let `loader` yield masks that hold both"
        )
    raise ValueError(
        f"the masks hold {int(present.sum())} region{'s' * (present.sum() != 1)} with any pixel; at least two are "
        "needed to rank filters by region. Labels below 0 and 255 are void: scale 0/255 masks to 0/1"
    )


def _non_finite_message(graph: DependencyGraph, reader: nn.Module, layers: dict[nn.Module, str]) -> str:
    names = [repr(layers[layer]) for layer in producers_of(graph, reader)] if reader in graph.module2node else []
    source = f"layer {' or '.join(names)} gives" if names else "the loader's inputs have"
    return (
        f"{source} NaN or infinite activations, seen at the input of {layers[reader]!r}: check the model's weights and "
        "the calibration data; in float16, use bfloat16 or float32 for calibration"
    )
