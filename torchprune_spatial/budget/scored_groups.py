"""The groups of a network with their scores: all that an allocation knows of them."""

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

from ..graph.private_names import channel_groups_of, graph_of, name_in


class LayerSide(NamedTuple):
    """A layer that has channels of a group, on one side.

    Attributes:
        layer: its name.
        is_output: whether these are output channels. True for layers whose input and output channels are the same.
        channels: the number of channels on this side, those of other groups included.
        factor: the number of them that are removed with one root channel.
    """

    layer: str
    is_output: bool
    channels: int
    factor: float


@dataclass(frozen=True)
class ScoredGroup:
    """A group of Torch-Pruning with its scores.

    Attributes:
        scores: as the importance gave them, ``[root channels]`` float32, but infinite for the best channel of each of
            the group's layers: Torch-Pruning leaves a group whole if one of its layers would lose all its channels.
        channel_groups: the number of channel groups, such as heads or the groups of a convolution, that must lose the
            same channels.
        layers: names of the layers whose output channels are the group's.
        kind: equal for the groups that isomorphic pruning ranks together.
        members: the layers that cost less when the group loses channels.
    """

    scores: torch.Tensor
    channel_groups: int
    layers: tuple[str, ...]
    kind: tuple[Any, ...]
    members: tuple[LayerSide, ...] = ()

    @property
    def mean_scores(self) -> torch.Tensor:
        """The mean of the scores over the channel groups, ``[root channels / channel_groups]``."""
        return self.scores.unflatten(0, (self.channel_groups, -1)).mean(0)

    def kept_counts(self, round_to: int | None, max_pruning_ratio: float) -> range:
        """The numbers of channels that each channel group may keep, descending, without the number that it has.

        Args:
            round_to: the number kept, over all channel groups, is a multiple of this.
            max_pruning_ratio: no greater share of the channels is removed. At least one channel (``round_to``) is kept
                anyway, and all those whose score is infinite.
        """
        scores = self.mean_scores
        channels, unit = len(scores), (round_to or 1) // math.gcd(round_to or 1, self.channel_groups)
        least = max(unit, math.ceil(channels * (1 - max_pruning_ratio) - 1e-9), int(scores.isposinf().sum()))
        return range((channels - 1) // unit * unit, least - 1, -unit)

    def removed(self, kept: int) -> list[int]:
        """Positions of the root channels that are removed where each channel group keeps ``kept`` channels."""
        scores = self.mean_scores
        starts = torch.arange(0, len(self.scores), len(scores)).unsqueeze(1)
        return (starts + scores.argsort(descending=True, stable=True)[kept:]).flatten().tolist()


def root_name(group: Group) -> str:
    """The root of a group by name, which is the same in a copy of the network: ``"encoder.0.out"``.

    The layer, and whether its output or its input channels are the root.
    """
    dep = group[0].dep
    side = "out" if graph_of(group).is_out_channel_pruning_fn(dep.handler) else "in"
    return f"{name_in(graph_of(group), dep.target.module)}.{side}"


def group_at(graph: DependencyGraph, name: str, idxs: Sequence[int] | None = None) -> Group:
    """The group of a `root_name`, with some of the root channels, or all of them.

    Raises:
        ValueError: the network has no such layer.
    """
    layer, _, side = name.rpartition(".")
    try:
        module = graph.model.get_submodule(layer)
    except AttributeError:
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
    """Check the scores of a group, and keep what allocations need to know of it.

    Raises:
        ValueError: the scores are not one number a root channel.
    """
    channels = len(group[0].idxs)
    if not isinstance(scores, torch.Tensor) or scores.shape != (channels,) or scores.isnan().any():
        given = f"of shape {list(scores.shape)}" if isinstance(scores, torch.Tensor) else f"as {type(scores).__name__}"
        raise ValueError(
            f"importance gave scores {given} for the group of {root_name(group)!r}; expected a tensor of shape "
            f"[{channels}], one score a channel, without NaN"
        )
    graph = graph_of(group)
    layers = [
        name
        for dep, _ in group
        if isinstance(dep.target.module, nn.Module)
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
    return ScoredGroup(torch.tensor(list(values.values())), channel_groups, tuple(layers), kind, tuple(_members(group)))


def _members(group: Group) -> Iterator[LayerSide]:
    """Each side of each layer once, in the order of the group."""
    graph, idxs = graph_of(group), Counter[tuple[nn.Module, bool]]()
    for item in group.items:
        name = name_in(graph, item.dep.target.module)
        if name is not None and isinstance(item.dep.target.module, nn.Module):
            idxs[item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)] += len(item.idxs)
    for (layer, is_output), count in idxs.items():
        channels = (graph.get_out_channels if is_output else graph.get_in_channels)(layer)
        yield LayerSide(name_in(graph, layer) or "", is_output, channels or count, count / len(group[0].idxs))


def _whole(group: Group) -> set[frozenset[int]]:
    """The root channels of each layer whose input or output channels all belong to the group."""
    graph, found = graph_of(group), set()
    for item in group.items:
        layer, handler = item.dep.target.module, item.dep.handler
        for prunes, count in (
            (graph.is_out_channel_pruning_fn, graph.get_out_channels),
            (graph.is_in_channel_pruning_fn, graph.get_in_channels),
        ):
            channels = count(layer) if prunes(handler) else None
            if channels is not None and channels <= len(item.idxs):
                found.add(frozenset(item.root_idxs))
    return found
