"""A network's dependency graph, groups and statistics, for questions about one layer."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import Group

from resolution_scaling.ground.calls import call_model
from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.put_back import restoring_hooks

from ..calibration.statistics import Statistics
from ..criteria.spatial_mask import SpatialMaskImportance
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import (
    channel_layers,
    members_that_produce,
    members_that_read,
    producers_in,
    producers_of,
    reduce_over_members,
)
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS


class ReadNetwork:
    """A network's dependency graph, groups and statistics, for questions about one layer.

    Args:
        importance: with its calibration data.
        model: the network as it was before pruning.
        example_inputs: as for the pruner.
        options: of ``DependencyGraph.build_dependency``.

    Attributes:
        graph: the dependency graph.
        layers: the layers that read channels, by name.

    Raises:
        TypeError: ``importance`` does not know the regions.
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
                "regions. Criteria can share calibration data: SpatialMaskImportance(importance.calibration)"
            )
        self.importance, self.model = importance, model
        chosen: dict[str, Any] = {"forward_fn": call_model, "verify": False} | dict(options or {})
        chosen["customized_pruners"] = {**CUSTOMIZED_PRUNERS, **(chosen.get("customized_pruners") or {})}
        # Torch-Pruning leaves its hooks behind if a forward pass fails
        with evaluating(model), restoring_hooks(model), torch.enable_grad():
            self.graph = ChannelGraph().build_dependency(model, example_inputs, **chosen)
        self.layers = {name: layer for layer, name in channel_layers(self.graph).items()}
        self._groups: dict[str, list[Group]] = {}

    @functools.cached_property
    def statistics(self) -> Statistics:
        """The importance's statistics of this network. They are taken now if the importance does not have them."""
        return self.importance.statistics(self.graph)

    def filters(self, name: str) -> int:
        """The number of filters of a layer."""
        return self.graph.get_out_channels(self._layer(name))

    def filters_in(self, group: Group, name: str) -> list[tuple[int, int]]:
        """Filters of a layer that are in a group: ``(position in group[0].idxs, filter)``."""
        members = members_that_produce(group, {self._layer(name)})
        return [pair for m in members for pair in zip(m.positions.tolist(), m.channels.tolist(), strict=True)]

    def groups_of(self, name: str) -> list[Group]:
        """The groups that the filters of a layer belong to: almost always one.

        Raises:
            ValueError: there is no such layer, or no layer reads its channels.
        """
        if name not in self._groups:
            self._groups[name] = self._find_groups(self._layer(name), name)
        return self._groups[name]

    def means_in(self, group: Group, name: str) -> torch.Tensor:
        """Mean activation of a group's channels in each region, and over all last: ``[regions + 1, channels]``.

        Args:
            group: one of `groups_of`.
            name: name of the layer, for the message.

        Raises:
            ValueError: no layer reads the group's channels.
        """
        values, channels = self.statistics.values[self.importance.measurement], len(group[0].idxs)
        members = members_that_read(group, values)
        means = reduce_over_members(members, values, self.importance.group_reduction, channels)
        if means is None:  # the layers that read these channels do not run
            raise self._unread(name)
        return means

    def produces_output(self, group: Group) -> bool:
        """Whether channels of a group are outputs of the network."""
        return bool(producers_in(group) & self.statistics.output_layers)

    def _find_groups(self, layer: nn.Module, name: str) -> list[Group]:
        prune = self.graph.get_pruner_of_module(layer).prune_out_channels
        try:
            groups = [self.graph.get_pruning_group(layer, prune, list(range(self.filters(name))))]
        except ValueError as error:  # they cannot be removed
            raise self._unread(name) from error
        producers = [other for other, producer in self.layers.items() if producer in producers_in(groups[0])]
        if any(len({own for _, own in self.filters_in(groups[0], other)}) < self.filters(other) for other in producers):
            # a part of a larger group, such as one branch of a concatenation that is added: the pruner ranks the whole
            larger = [group for group in self.graph.get_all_groups() if layer in producers_in(group)]
            if len({own for group in larger for _, own in self.filters_in(group, name)}) == self.filters(name):
                groups = larger
        if not all(members_that_read(group, set(self.layers.values())) for group in groups):
            raise self._unread(name)
        return groups

    def _unread(self, name: str) -> ValueError:
        return ValueError(
            f"no layer reads the channels of {name!r}, because they are outputs of the network, so that they have no "
            f"statistics. Layers that can be drawn: {self._readable()}"
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
