"""Reading Torch-Pruning's dependency graph: which layers produce and read a group's channels."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from .channel_graph import ChannelGraph
from .layers import CHANNEL_LAYERS
from .private_names import graph_of, roots_of


def channel_layers(graph: DependencyGraph) -> dict[nn.Module, str]:
    """Layers that read channels, with their names.

    They are the convolutions (also transposed and depthwise ones), the linear layers, and those of the graph's
    ``customized_pruners``.
    """
    customized = tuple(kind for kind in graph.CUSTOMIZED_PRUNERS if isinstance(kind, type))
    return {
        module: name
        for name, module in graph.model.named_modules()
        if isinstance(module, CHANNEL_LAYERS + customized) or module in graph.CUSTOMIZED_PRUNERS
    }


def producers_of(graph: DependencyGraph, reader: nn.Module) -> list[nn.Module]:
    """The nearest convolutions and linear layers before a layer: those that produce the channels that it reads.

    Activations, norms, additions and concatenations in between are passed over.
    """
    if isinstance(graph, ChannelGraph):
        return graph.producers(reader)
    found: list[nn.Module] = []
    pending, seen = list(graph.module2node[reader].inputs), set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node.module, CHANNEL_LAYERS):
            found.append(node.module)
        else:
            pending.extend(node.inputs)
    return found


def producers_in(group: Group) -> set[nn.Module]:
    """Modules whose output channels belong to the group: its producers, and norms and activations that are pruned."""
    modules = (dep.target.module for dep, _ in group if graph_of(group).is_out_channel_pruning_fn(dep.handler))
    return {module for module in modules if isinstance(module, nn.Module)}


Reduction = Callable[[torch.Tensor], torch.Tensor]


def _first(values: torch.Tensor) -> torch.Tensor:
    first = values[0]
    for later in values[1:]:
        first = torch.where(first.isnan(), later, first)
    return first


REDUCTIONS: dict[str, Reduction] = {
    "sum": lambda values: values.nansum(0),
    "mean": lambda values: values.nanmean(0),
    "max": lambda values: values.nan_to_num(nan=-torch.inf).amax(0),
    "prod": lambda values: values.nan_to_num(nan=1.0).prod(0),
    "first": _first,
    "gate": lambda values: _first(values.flip(0)),
}
"""Torch-Pruning's ``group_reduction`` over the layers that have a channel: ``[layers, ...]`` -> ``[...]``.

NaN stands for a layer that does not have the channel."""


@dataclass(frozen=True)
class Member:
    """A layer of a group, with the channels of the layer that belong to the group.

    Attributes:
        layer: the layer.
        channels: the channels of the layer, ``[n]``.
        positions: for each of them, the position of its root channel in ``group[0].idxs``, ``[n]``. A position may
            occur several times (after a flatten), or not at all.
    """

    layer: nn.Module
    channels: torch.Tensor
    positions: torch.Tensor


def members_that_produce(group: Group, layers: Container[nn.Module]) -> list[Member]:
    """Those of the layers that produce channels of the group."""
    return _members(group, graph_of(group).is_out_channel_pruning_fn, layers, list(group[0].idxs))


def members_that_read(group: Group, layers: Container[nn.Module]) -> list[Member]:
    """Those of the layers that read channels of the group."""
    roots = list(group[0].idxs)
    members = _members(group, graph_of(group).is_in_channel_pruning_fn, layers, roots)
    if isinstance(graph_of(group), ChannelGraph):
        return members
    unread = set(range(len(roots))).difference(*(member.positions.tolist() for member in members))
    if members and unread:
        # Merging drops the second root of an index (chunk, split, cat of one tensor twice): ask for each of them alone
        dep = group[0].dep
        for position in sorted(unread):
            root = group[0].idxs[position]
            alone = graph_of(group).get_pruning_group(dep.target.module, dep.handler, [root])
            for member in _members(alone, graph_of(group).is_in_channel_pruning_fn, layers, [root]):
                members.append(replace(member, positions=torch.full_like(member.positions, position)))
    return members


def best_of_parts(group: Group, scores: torch.Tensor) -> torch.Tensor:
    """Position of the best channel of each part of a group.

    A part is a set of channels that the same layers produce and read. Most groups have one part. A group has several
    where channels are concatenated and then added to others, or pass through a depthwise convolution.
    """
    layers = channel_layers(graph_of(group))
    signatures: list[list[int]] = [[] for _ in group[0].idxs]
    for i, member in enumerate([*members_that_produce(group, layers), *members_that_read(group, layers)]):
        for position in set(member.positions.tolist()):
            signatures[position].append(i)
    parts: dict[tuple[int, ...], list[int]] = {}
    for position, signature in enumerate(signatures):
        parts.setdefault(tuple(signature), []).append(position)
    return torch.tensor([max(part, key=scores.tolist().__getitem__) for part in parts.values()])


def _members(
    group: Group, takes_part: Callable[[Callable[..., Any]], bool], layers: Container[nn.Module], roots: list[int]
) -> list[Member]:
    position = {root: i for i, root in enumerate(roots)}
    members = []
    for item in group.items:  # never sort item.idxs: they are paired with item.root_idxs
        layer = item.dep.target.module
        if not isinstance(layer, nn.Module) or layer not in layers or not takes_part(item.dep.handler):
            continue
        pairs = [(i, position[r]) for i, r in zip(item.idxs, roots_of(item), strict=True) if r in position]
        if pairs:
            members.append(Member(layer, *torch.tensor(pairs).T))
    return members


def reduce_over_members(
    members: list[Member], per_layer: Mapping[nn.Module, torch.Tensor], reduction: str, channels: int
) -> torch.Tensor | None:
    """Turn values of the channels of several layers into values of the channels of their group.

    Args:
        members: the layers.
        per_layer: for each layer, ``[values, channels of the layer]``.
        reduction: a key of `REDUCTIONS`: how a channel that several layers have gets one value. Where several channels
            of one layer belong to the same root channel (after a flatten), they are averaged first.
        channels: the number of channels of the group.

    Returns:
        ``[values, channels]``, aligned with ``group[0].idxs``; None if there is no member. A channel that no member
        has gets 0.
    """
    if not members:
        return None
    rows = []  # NaN where the layer does not have the channel
    for member in members:
        values = per_layer[member.layer][:, member.channels]
        sums = values.new_zeros(len(values), channels).index_add_(1, member.positions, values)
        rows.append(sums / torch.bincount(member.positions, minlength=channels))  # 0 / 0 = NaN
    absent = torch.stack(rows).isnan().all(0).all(0)
    return torch.where(absent, 0.0, REDUCTIONS[reduction](torch.stack(rows)))
