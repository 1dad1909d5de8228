"""The groups of a network with their scores, as allocations see them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group

from ..graph.channel_graph import ChannelGraph
from ..graph.private_names import channel_groups_of, graph_of, name_in, roots_of
from ..graph.sides import CoupledChannels


class LayerSide(NamedTuple):
    """The input side or the output side of a layer whose channels belong to a group.

    Attributes:
        layer: the name of the layer.
        is_output: whether it is the output side. True for layers whose input and output channels are the same.
        channels: the number of channels on this side, including those of other groups.
        factor: the number of these channels that are removed with one root channel.
    """

    layer: str
    is_output: bool
    channels: int
    factor: float


@dataclass(frozen=True)
class ScoredGroup:
    """A group of Torch-Pruning with its scores.

    Attributes:
        scores: the scores that the importance gave, ``[root channels]`` float32. The best channel of each of the
            group's layers has an infinite score instead, because Torch-Pruning does not prune a group if one of its
            layers would lose all its channels.
        channel_groups: the number of channel groups, such as heads or the groups of a convolution, that must lose
            equally many channels.
        layers: names of the layers whose output channels belong to the group.
        kind: equal for groups that isomorphic pruning ranks together.
        members: the sides of the layers that cost less when the group loses channels.
        same_positions: whether the channel groups must lose the same channels.
    """

    scores: torch.Tensor
    channel_groups: int
    layers: tuple[str, ...]
    kind: tuple[Any, ...]
    members: tuple[LayerSide, ...] = ()
    same_positions: bool = True

    @property
    def mean_scores(self) -> torch.Tensor:
        """The mean of the scores over the channel groups, ``[root channels / channel_groups]``.

        Unless all of them must lose the same channels, it is the mean of their worst, of their second-worst, ...
        """
        scores = self.scores.unflatten(0, (self.channel_groups, -1))
        return (scores if self.same_positions else scores.sort(1).values).mean(0)

    def kept_counts(self, round_to: int | None, max_pruning_ratio: float) -> range:
        """The numbers of channels that each channel group may keep, descending; its present number is left out.

        Args:
            round_to: the number of channels kept, over all channel groups, is a multiple of this.
            max_pruning_ratio: the largest share of the channels that may be removed. In any case, at least one channel
                (one multiple of ``round_to``) is kept, and every channel with an infinite score.
        """
        scores = self.mean_scores
        channels, unit = len(scores), (round_to or 1) // math.gcd(round_to or 1, self.channel_groups)
        least = max(unit, math.ceil(channels * (1 - max_pruning_ratio) - 1e-9), int(scores.isposinf().sum()))
        return range((channels - 1) // unit * unit, least - 1, -unit)

    def removed(self, kept: int) -> list[int]:
        """Positions of the root channels that are removed if each channel group keeps ``kept`` channels."""
        scores = self.scores.unflatten(0, (self.channel_groups, -1))
        if self.same_positions:
            scores = scores.mean(0, keepdim=True)
        size = len(self.scores) // self.channel_groups
        starts = torch.arange(0, len(self.scores), size).unsqueeze(1)
        return (starts + scores.argsort(dim=1, descending=True, stable=True)[:, kept:]).flatten().tolist()


def root_name(group: Group) -> str:
    """The name of a group's root, such as ``"encoder.0.out"``; it is the same in a copy of the network.

    It consists of the name of the layer, and of ``out`` or ``in`` for its output or input channels.
    """
    dep = group[0].dep
    side = "out" if graph_of(group).is_out_channel_pruning_fn(dep.handler) else "in"
    return f"{name_in(graph_of(group), dep.target.module)}.{side}"


def group_at(graph: DependencyGraph, name: str, idxs: Sequence[int] | None = None) -> Group:
    """Find the group that has a `root_name`, with the root channels ``idxs`` (default: all of them).

    Raises:
        ValueError: the network has no such layer.
    """
    layer, _, side = name.rpartition(".")
    try:
        module = graph.named_root(layer) if isinstance(graph, ChannelGraph) else graph.model.get_submodule(layer)
    except (AttributeError, ValueError):
        raise ValueError(
            f"the network has no layer {layer!r}, which had channels when the groups were scored"
        ) from None
    pruner = graph.get_pruner_of_module(module)
    handler, channels = (
        (pruner.prune_out_channels, pruner.get_out_channels(module))
        if side == "out"
        else (pruner.prune_in_channels, pruner.get_in_channels(module))
    )
    return graph.get_pruning_group(module, handler, list(range(channels) if idxs is None else idxs))


def scored_group(pruner: tp.pruner.BasePruner, group: Group, scores: torch.Tensor) -> ScoredGroup:
    """Check the scores of a group, and collect what allocations need to know about it.

    Raises:
        ValueError: the scores are not one number per root channel.
    """
    channels = len(group[0].idxs)
    if not isinstance(scores, torch.Tensor) or scores.shape != (channels,) or scores.isnan().any():
        given = f"of shape {list(scores.shape)}" if isinstance(scores, torch.Tensor) else f"as {type(scores).__name__}"
        raise ValueError(
            f"importance gave scores {given} for the group of {root_name(group)!r}; expected a tensor of shape "
            f"[{channels}], one score per channel, without NaN"
        )
    graph = graph_of(group)
    layers = [
        name
        for dep, _ in group
        if isinstance(dep.target.module, nn.Module)
        and not isinstance(dep.target.module, CoupledChannels)
        and (name := name_in(graph, dep.target.module)) is not None
        and graph.is_out_channel_pruning_fn(dep.handler)
    ]
    kind = tuple(
        (type(dep.source.module), type(dep.target.module), graph.is_out_channel_pruning_fn(dep.handler))
        for dep, _ in group
    )
    values = dict(zip(group[0].idxs, scores.tolist(), strict=True))
    for roots in _whole(group):
        values[max(roots, key=values.__getitem__)] = torch.inf
    channel_groups = channel_groups_of(pruner, group)
    free = isinstance(graph, ChannelGraph)
    all_scores = torch.tensor(list(values.values()))
    return ScoredGroup(all_scores, channel_groups, tuple(layers), kind, tuple(_members(group)), not free)


def _members(group: Group) -> Iterator[LayerSide]:
    """Yield each side of each layer once, in the order of the group."""
    graph, idxs = graph_of(group), Counter[tuple[nn.Module, bool]]()
    for item in group.items:
        name = name_in(graph, item.dep.target.module)
        layer = item.dep.target.module
        if name is not None and isinstance(layer, nn.Module) and not isinstance(layer, CoupledChannels):
            idxs[item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)] += len(item.idxs)
    for (layer, is_output), count in idxs.items():
        channels = (graph.get_out_channels if is_output else graph.get_in_channels)(layer)
        yield LayerSide(name_in(graph, layer) or "", is_output, channels or count, count / len(group[0].idxs))


def _whole(group: Group) -> set[frozenset[int]]:
    """Find the layers whose input or output channels all belong to the group; give the root channels of each."""
    graph, found = graph_of(group), set()
    for item in group.items:
        layer, handler = item.dep.target.module, item.dep.handler
        if isinstance(layer, CoupledChannels):
            continue
        for prunes, count in (
            (graph.is_out_channel_pruning_fn, graph.get_out_channels),
            (graph.is_in_channel_pruning_fn, graph.get_in_channels),
        ):
            channels = count(layer) if prunes(handler) else None
            if channels is not None and channels <= len(item.idxs):
                found.add(frozenset(roots_of(item)))
    return found
