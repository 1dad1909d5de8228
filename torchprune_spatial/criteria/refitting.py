"""Folding behind norms that average over channels, where the kept channels change when others are removed.

Group norm and layer norm have other means and variances when channels are removed. What the next layers read is then
not what it was, and a combination that was fitted to the old values misses. It is fitted here to what the layers read
with the channels removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
from torch_pruning.dependency import Group

from resolution_scaling.ground.models import evaluating

from ..calibration.batches import Batch, run_alike
from ..calibration.measurements import Measurement, Reading
from ..calibration.statistics import Calibration, Collector, placement_of, some_batches
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import channel_layers, members_that_read
from ..graph.layers import mixes_channels
from ..graph.private_names import graph_of
from .folding import filters_of
from .sampling import sampled

IMAGES = 32
"""Batches are read until they hold at least this number of images."""

Rows = list[torch.Tensor]
"""Sampled cells of what a layer reads, one tensor ``[cells, channels]`` for each region."""


class _Rows:
    def __init__(self, rows: Rows):
        self.rows = rows

    def __add__(self, other: _Rows) -> _Rows:
        shorter, longer = sorted((self.rows, other.rows), key=len)
        joined = [torch.cat([a, b]) for a, b in zip(self.rows, other.rows, strict=False)]
        return _Rows(joined + longer[len(shorter) :])


@dataclass(frozen=True)
class RegionRows(Measurement):
    """Sampled cells in each region, with the root of their weights as factors; the same cells in every pass.

    Attributes:
        samples: number of cells in each region of an image.
    """

    samples: int
    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> _Rows:
        """The sampled cells."""
        return _Rows(sampled(reading, self.samples))

    def result(self, total: _Rows, present: torch.Tensor, reader: str) -> Rows:
        """The sampled cells, on the CPU."""
        return [rows.cpu() for rows in total.rows]


def averages_channels(module: nn.Module) -> bool:
    """Whether a module is a norm whose averages are over several channels; others are known by their class's name."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups < module.num_channels
    name = type(module).__name__.lower()
    return "norm" in name and not any(kind in name for kind in ("batch", "instance", "group"))


class Refitting:
    """Changes the weights of the layers that read channels about to be removed, as `InterpolativeImportance.fold` says.

    The network runs twice on some of the calibration data, with the channels and without them.

    Args:
        calibration: images and regions.
        samples: number of cells in each region of an image.
        ridge: the penalty of the least squares, in units of the mean energy of what is read.
    """

    def __init__(self, calibration: Calibration, samples: int, ridge: float):
        self._calibration, self._rows, self._ridge = calibration, RegionRows(samples), ridge
        self._batches: list[Batch] = []
        self._placement: Any = None

    def applies_to(self, group: Group) -> bool:
        """Whether a norm averages over the channels of a group."""
        graph = graph_of(group)
        return isinstance(graph, ChannelGraph) and any(map(averages_channels, _modules_of(group, graph.model)))

    def fold(self, group: Group) -> None:
        """Change the weights of the layers that read the channels of a group, which are about to be removed."""
        graph, dep = cast(ChannelGraph, graph_of(group)), group[0].dep
        removed: dict[nn.Module, list[torch.Tensor]] = {}
        for member in members_that_read(group, channel_layers(graph)):
            if mixes_channels(member.layer):
                removed.setdefault(member.layer, []).append(member.channels)
        before = self._read(graph.model, removed)
        with graph.trying():
            graph.get_pruning_group(dep.target.module, dep.handler, group[0].idxs).prune(record_history=False)
            after = self._read(graph.model, removed)
        for layer in before.keys() & after.keys():
            kept = torch.ones(before[layer][0].shape[1], dtype=torch.bool)
            kept[torch.cat(removed[layer])] = False
            shapes = [(len(rows), int(kept.sum())) for rows in before[layer]]
            if shapes == [tuple(rows.shape) for rows in after[layer]]:  # else it runs otherwise without them
                refit(layer, before[layer], after[layer], kept, self._ridge)

    @torch.no_grad()
    def _read(self, model: nn.Module, layers: Iterable[nn.Module]) -> dict[nn.Module, Rows]:
        collector = Collector(layers, [self._rows])
        with evaluating(model):
            for batch in self._some_batches(model):
                with collector.reading(batch.regions):
                    run_alike(model, self._calibration.forward, batch.inputs)
        everywhere = torch.ones(0, dtype=torch.bool)
        return {layer: self._rows.result(rows, everywhere, "") for layer, rows in collector.totals[self._rows].items()}

    def _some_batches(self, model: nn.Module) -> list[Batch]:
        placement = placement_of(model)
        if self._placement != placement:
            self._batches, self._placement = some_batches(self._calibration, model, IMAGES), placement
        return self._batches


def _modules_of(group: Group, model: nn.Module) -> Iterable[nn.Module]:
    """The modules whose parameters a group cuts."""
    for dep, _ in group:
        module = dep.target.module
        yield model.get_submodule(dep.target.name.rpartition(".")[0]) if isinstance(module, nn.Parameter) else module


@torch.no_grad()
def refit(
    layer: Any, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], kept: torch.Tensor, ridge: float
) -> None:
    """Change the weights of the kept input channels of a layer, so that its outputs are as they were.

    What the layer read before is fitted by linear combinations of what it reads without the channels, by a ridge
    regression of the difference; every region has the same weight.

    Args:
        layer: a convolution or linear layer that mixes channels; changed in place.
        before: what it reads with all channels, ``[cells, channels]`` for each region.
        after: what it reads of the same cells without the channels, ``[cells, kept channels]``.
        kept: which of the channels are kept, ``[channels]`` bool.
        ridge: the penalty, in units of the mean energy of a kept channel.
    """
    places = kept.nonzero().flatten()
    for i, filters in enumerate(filters_of(layer).unbind(0)):
        width = filters.shape[1]
        columns = torch.arange(i * width, (i + 1) * width)
        inside = (places // width) == i
        here = places[inside] % width
        if not len(here):
            continue
        normal, mixed = torch.zeros(len(here), len(here)).double(), torch.zeros(len(here), width).double()
        for whole, part in zip(before, after, strict=True):
            old, new = whole[:, columns].double(), part[:, inside].double()
            left = old.clone()
            left[:, here] -= new
            share = 1 / old.square().sum().clamp_min(1e-300)
            normal, mixed = normal + share * new.mT @ new, mixed + share * new.mT @ left
        penalty = (ridge * normal.diag().mean()).clamp_min(1e-30)
        factors = torch.linalg.solve(normal + penalty * torch.eye(len(here)).double(), mixed).to(filters)
        filters[:, here] += torch.tensordot(filters, factors, ([1], [1])).movedim(-1, 1)
