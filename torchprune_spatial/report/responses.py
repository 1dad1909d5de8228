"""How the filters of a layer respond in each region, and which of them are kept: what the pictures of a report show."""

from __future__ import annotations

import contextlib
import difflib
import functools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.ground.models import evaluating

from ..calibration.batches import call_model
from ..calibration.statistics import Statistics
from ..criteria.ranking import top_count, union_of_tops
from ..criteria.spatial_mask import SpatialMaskImportance
from ..graph.groups import (
    channel_layers,
    members_that_produce,
    members_that_read,
    producers_in,
    producers_of,
    reduce_over_members,
)
from ..record.pruning_record import PruningRecord
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS

Kept = PruningRecord | Mapping[str, torch.Tensor] | float


@dataclass(frozen=True)
class RegionResponses:
    """Mean activations of the filters of one layer, and which filters are kept.

    Attributes:
        layer: name of the layer.
        means: mean activation of each filter in each region, where the next layers read it, ``[regions, filters]``.
            Regions are those that occur in the calibration data, in ascending order.
        overall: mean over all the regions, ``[filters]``.
        kept: which filters are kept, ``[filters]`` bool.
        top: size of Algorithm 1's top sets, whose union is kept; and perhaps a part of the next larger union, because a
            pruner's number of filters can lie between two. None where what is kept is no such union (another
            criterion, several steps, an output of the network), or nothing is removed.
        thresholds: Algorithm 1's threshold of each region, ``[regions]``; None where ``top`` is. What lies on or above
            one of them is in a top set, but for equal means, of which `union_of_tops` takes the right number. For a
            fraction this is ``quantile(means, 1 - fract)``, else midway between the last filter that is in and the
            first that is not.
    """

    layer: str
    means: torch.Tensor
    overall: torch.Tensor
    kept: torch.Tensor
    top: int | None = None
    thresholds: torch.Tensor | None = None


def region_responses(
    importance: SpatialMaskImportance,
    model: nn.Module,
    example_inputs: Any,
    layers: str | Iterable[str],
    kept: Kept,
    **options: Any,
) -> dict[str, RegionResponses]:
    """Mean activation of each filter of some layers in each region, and which filters are kept.

    Takes the statistics as the pruner does, in one pass over the calibration data, if the importance does not have
    those of this network yet. The network is left as it was, also after an error.

    Args:
        importance: with its calibration data.
        model: the network as it was before pruning (a ``copy.deepcopy`` of it, if it was pruned since).
        example_inputs: as for the pruner.
        layers: names of layers whose filters can be pruned: convolutions, linear and customized layers.
        kept: what is kept: the record of a pruning; indices by layer, as `PruningRecord.kept_out`; or the fraction of
            Algorithm 1, in 0..1.
        options: of Torch-Pruning's ``DependencyGraph.build_dependency``: ``unwrapped_parameters``, ``forward_fn``, ...

    Returns:
        By layer, in the order of ``layers``.

    Raises:
        TypeError, ValueError: an argument is not usable; a layer does not exist, or nothing reads its channels (the
            text names those that can be drawn); the network is pruned already.
    """
    network = ReadNetwork(importance, model, example_inputs, options)
    return {layer: network.responses(layer, kept) for layer in ([layers] if isinstance(layers, str) else layers)}


class ReadNetwork:
    """A network's dependency graph, groups and statistics, to ask about its layers.

    Args:
        importance, model, example_inputs, options: see `region_responses`.
    """

    def __init__(
        self,
        importance: SpatialMaskImportance,
        model: nn.Module,
        example_inputs: Any,
        options: Mapping[str, Any] | None = None,
    ):
        if not isinstance(importance, SpatialMaskImportance):
            raise TypeError(
                f"importance is a {type(importance).__name__}; expected a SpatialMaskImportance, which knows the "
                "regions. Criteria share calibration data: SpatialMaskImportance(importance.calibration)"
            )
        self.importance, self.model = importance, model
        chosen: dict[str, Any] = {"forward_fn": call_model, "verbose": False} | dict(options or {})
        chosen["customized_pruners"] = {**CUSTOMIZED_PRUNERS, **(chosen.get("customized_pruners") or {})}
        with evaluating(model), _no_hooks_left(model), torch.enable_grad():
            self.graph = DependencyGraph().build_dependency(model, example_inputs, **chosen)
        self._groups: dict[str, list[Group]] = {}
        self.layers = {name: layer for layer, name in channel_layers(self.graph).items()}

    @functools.cached_property
    def statistics(self) -> Statistics:
        """Of the importance, taken now if it does not have those of this network yet."""
        return self.importance.statistics(self.graph)

    def responses(self, name: str, kept: Kept) -> RegionResponses:
        """Of one layer, see `region_responses`."""
        groups, filters = self.groups_of(name), self.filters(name)
        fraction = _fraction(kept)
        mask = torch.ones(filters, dtype=torch.bool) if fraction is not None else _mask(kept, name, filters, self.model)
        means = of_group = torch.empty(0)
        is_output = any(producers_in(group) & self.statistics.output_layers for group in groups)
        for group in groups:
            of_group = self._means(group, name)
            positions, own = torch.tensor(self.filters_in(group, name)).T
            means = means if means.numel() else of_group.new_empty(len(of_group), filters)
            means[:, own] = of_group[:, positions]
            if fraction is not None and not is_output:
                top = top_count(fraction, of_group.shape[1])
                mask[own] = union_of_tops(of_group[:-1], of_group[-1], top)[positions]
        one = RegionResponses(name, means[:-1], means[-1], mask)
        if len(groups) > 1 or is_output or mask.all():
            return one
        channels = of_group.shape[1]
        if fraction is not None:
            return replace(one, top=top_count(fraction, channels), thresholds=of_group[:-1].quantile(1 - fraction, 1))
        implied = _top_of(mask, means) if channels == filters else None
        if implied is None:
            return one
        position = (filters - implied - 0.5) / (filters - 1)
        return replace(one, top=implied, thresholds=means[:-1].quantile(position, 1))

    def filters(self, name: str) -> int:
        """How many filters a layer has."""
        return self.graph.get_out_channels(self._layer(name))

    def filters_in(self, group: Group, name: str) -> list[tuple[int, int]]:
        """Filters of a layer that are in a group: ``(position in group[0].idxs, filter)``."""
        members = members_that_produce(group, {self._layer(name)})
        return [pair for m in members for pair in zip(m.positions.tolist(), m.channels.tolist(), strict=True)]

    def groups_of(self, name: str) -> list[Group]:
        """The groups that the filters of a layer belong to: almost always one.

        Raises:
            ValueError: there is no such layer, or nothing reads its channels.
        """
        if name not in self._groups:
            self._groups[name] = self._find_groups(self._layer(name), name)
        return self._groups[name]

    def _find_groups(self, layer: nn.Module, name: str) -> list[Group]:
        prune = self.graph.get_pruner_of_module(layer).prune_out_channels
        groups = [self.graph.get_pruning_group(layer, prune, list(range(self.filters(name))))]
        writers = [other for other, writer in self.layers.items() if writer in producers_in(groups[0])]
        if any(len({own for _, own in self.filters_in(groups[0], other)}) < self.filters(other) for other in writers):
            # a part of a larger group, such as one branch of a concatenation that is added: the pruner ranks the whole
            larger = [group for group in self.graph.get_all_groups() if layer in producers_in(group)]
            if len({own for group in larger for _, own in self.filters_in(group, name)}) == self.filters(name):
                groups = larger
        if not all(members_that_read(group, set(self.layers.values())) for group in groups):
            raise self._unread(name)
        return groups

    def _means(self, group: Group, name: str) -> torch.Tensor:
        values, channels = self.statistics.values[self.importance.measurement], len(group[0].idxs)
        members = members_that_read(group, values)
        means = reduce_over_members(members, values, self.importance.group_reduction, channels)
        if means is None:  # what reads the layer does not run
            raise self._unread(name)
        return means

    def _unread(self, name: str) -> ValueError:
        return ValueError(
            f"no layer reads the channels of {name!r}, which are outputs of the network, so nothing is known about "
            f"them. Layers that can be drawn: {self._readable()}"
        )

    def _layer(self, name: str) -> nn.Module:
        layer = self.layers.get(name)
        if layer is None or layer not in self.graph.module2node:
            close = difflib.get_close_matches(str(name), self.layers, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(
                f"{type(self.model).__name__} has no layer {name!r} with filters{hint}; it has {self._readable()}"
            )
        return layer

    def _readable(self) -> str:
        readers = [layer for layer in self.layers.values() if layer in self.graph.module2node]
        read = {layer for reader in readers for layer in producers_of(self.graph, reader)}
        return ", ".join(repr(name) for name, layer in self.layers.items() if layer in read)


@contextlib.contextmanager
def _no_hooks_left(model: nn.Module) -> Iterator[None]:
    """Removes the forward hooks that Torch-Pruning leaves behind where a forward fails."""
    before = {module: set(module._forward_hooks) for module in model.modules()}
    try:
        yield
    finally:
        for module, hooks in before.items():
            for new in module._forward_hooks.keys() - hooks:
                del module._forward_hooks[new]


def _fraction(kept: Kept) -> float | None:
    """Of Algorithm 1, if that is what was given."""
    if not isinstance(kept, (int, float)) or isinstance(kept, bool):
        return None
    if not 0 <= kept <= 1:
        raise ValueError(f"kept is {kept!r}; expected a fraction of the filters in 0..1, or a PruningRecord")
    return kept


def _mask(kept: Kept, name: str, filters: int, model: nn.Module) -> torch.Tensor:
    """What a record, or its indices, keep of a layer: ``[filters]`` bool."""
    before = "model must be the network as it was before pruning: keep copy.deepcopy(model), and pass that"
    if isinstance(kept, PruningRecord):
        had = len(kept.masks()[f"{name}.out"]) if name in kept.kept_out else filters
        if had != filters or (kept.model is model and kept.compression != 1):
            raise ValueError(f"model is pruned already ({name!r} has {filters} of {had} filters); {before}")
        kept = kept.kept_out
    if not isinstance(kept, Mapping):
        raise TypeError(
            f"kept is a {type(kept).__name__}; expected a PruningRecord, a dict of the indices that each layer keeps, "
            "or the fraction of Algorithm 1, as 0.3"
        )
    if name not in kept:
        raise ValueError(f"kept says nothing of layer {name!r}; it knows {', '.join(map(repr, kept))}")
    indices = torch.as_tensor(kept[name]).long().cpu()
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < filters:
        raise ValueError(
            f"kept[{name!r}] goes up to {int(indices.max())}, but the layer has {filters} filters; {before}"
        )
    return torch.zeros(filters, dtype=torch.bool).index_fill_(0, indices, True)


def _top_of(kept: torch.Tensor, means: torch.Tensor) -> int | None:
    """Size of the top sets whose union was kept (and one filter more, perhaps, of the next larger union)."""

    def union(top: int) -> torch.Tensor:
        return union_of_tops(means[:-1], means[-1], top)

    tops = range(1, len(kept) + 1)
    top = bisect_left(tops, True, key=lambda top: bool((union(top) & ~kept).any()))
    if top in (0, len(kept)) or (kept & ~union(top + 1)).any():
        return None
    return top
