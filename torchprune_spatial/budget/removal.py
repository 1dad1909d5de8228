"""The order in which channels leave a network, one at a time, from the scores of its groups."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Group

from ..graph.private_names import channel_groups_of, graph_of, name_in


class LayerSide(NamedTuple):
    """A layer that has channels of a group, on one side.

    Attributes:
        layer: its name.
        is_output: whether these are output channels; of layers whose output channels are their input ones, always.
        channels: how many it has on this side, also those of other groups.
        factor: how many of them go with one root channel.
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
            the group's layers: Torch-Pruning leaves a group whole if one of its layers would lose all.
        channel_groups: so many blocks of channels, such as heads or the groups of a convolution, lose the same ones.
        layers: the layers whose output channels are the group's.
        kind: the same for the groups that isomorphic pruning ranks together.
        members: the layers that get cheaper with the group.
    """

    scores: torch.Tensor
    channel_groups: int
    layers: tuple[nn.Module, ...]
    kind: tuple[Any, ...]
    members: tuple[LayerSide, ...] = ()

    @property
    def block_scores(self) -> torch.Tensor:
        """The scores of one block, ``[root channels / channel_groups]``: their mean over the blocks."""
        return self.scores.unflatten(0, (self.channel_groups, -1)).mean(0)

    def kept_counts(self, round_to: int | None, max_pruning_ratio: float) -> range:
        """How many channels of a block can be kept, in the order in which they go; see `removal_order`."""
        block = self.block_scores
        channels, unit = len(block), (round_to or 1) // math.gcd(round_to or 1, self.channel_groups)
        least = max(unit, math.ceil(channels * (1 - max_pruning_ratio) - 1e-9), int(block.isposinf().sum()))
        return range((channels - 1) // unit * unit, least - 1, -unit)


def root_of(group: Group) -> str:
    """The root of a group by name, which is the same in a copy of the network: ``"encoder.0.out"``."""
    dep = group[0].dep
    side = "out" if graph_of(group).is_out_channel_pruning_fn(dep.handler) else "in"
    return f"{name_in(graph_of(group), dep.target.module)}.{side}"


def scored_group(pruner: tp.pruner.BasePruner, group: Group, scores: torch.Tensor) -> ScoredGroup:
    """Check the scores of a group and keep what the order needs to know of it.

    Raises:
        ValueError: the scores are not one number a root channel.
    """
    channels = len(group[0].idxs)
    if not isinstance(scores, torch.Tensor) or scores.shape != (channels,) or scores.isnan().any():
        given = f"of shape {list(scores.shape)}" if isinstance(scores, torch.Tensor) else f"as {type(scores).__name__}"
        raise ValueError(
            f"importance gave scores {given} for the group of {root_of(group)!r}; expected a tensor of shape "
            f"[{channels}], one score a channel, without NaN"
        )
    graph = graph_of(group)
    layers = [
        dep.target.module
        for dep, _ in group
        if isinstance(dep.target.module, nn.Module)
        and name_in(graph, dep.target.module) is not None
        and graph.is_out_channel_pruning_fn(dep.handler)
    ]
    kind = tuple(
        (type(dep.source.module), type(dep.target.module), graph.is_out_channel_pruning_fn(dep.handler))
        for dep, _ in group
    )
    values = dict(zip(group[0].idxs, scores.tolist(), strict=True))
    for roots in _whole(group):
        values[max(roots, key=values.__getitem__)] = torch.inf
    sets = channel_groups_of(pruner, group)
    return ScoredGroup(torch.tensor(list(values.values())), sets, tuple(layers), kind, tuple(_members(group)))


def _members(group: Group) -> Iterator[LayerSide]:
    """Each layer and side once, in the order of the group."""
    graph, idxs = graph_of(group), Counter[tuple[nn.Module, bool]]()
    for item in group.items:
        name = name_in(graph, item.dep.target.module)
        if name is not None and isinstance(item.dep.target.module, nn.Module):
            idxs[item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)] += len(item.idxs)
    for (layer, is_output), count in idxs.items():
        channels = (graph.get_out_channels if is_output else graph.get_in_channels)(layer)
        yield LayerSide(name_in(graph, layer) or "", is_output, channels or count, count / len(group[0].idxs))


def _whole(group: Group) -> set[frozenset[int]]:
    """The root channels of each layer of which the group is all the input or output channels."""
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


def removal_order(
    groups: Mapping[str, ScoredGroup],
    *,
    global_pruning: bool = False,
    isomorphic: bool = False,
    round_to: int | None = None,
    max_pruning_ratio: float = 1.0,
) -> list[tuple[str, int]]:
    """Steps ``(group, channels that each of its blocks keeps then)``, from the unpruned network to the strongest.

    The first ``n`` steps prune all ranking scopes by the same share. A scope is a group; with ``global_pruning`` it is
    the network; with ``isomorphic``, the groups of one kind. The lowest scores of a scope go first. Scopes take turns,
    so that one step is one channel, and no scope is more than one channel away from the common share.

    Args:
        groups: the groups that may lose channels.
        global_pruning: as in Torch-Pruning.
        isomorphic: as in Torch-Pruning.
        round_to: what is kept is a multiple of this.
        max_pruning_ratio: no group loses a greater share of its channels. At least one (``round_to``) stays anyway, and
            all those whose score is infinite.
    """
    scopes: dict[object, list[str]] = defaultdict(list)
    for root, group in groups.items():
        scopes[group.kind if isomorphic else None if global_pruning else root].append(root)
    steps = []
    for roots in scopes.values():
        blocks = [groups[root].block_scores for root in roots]
        scores = torch.cat(blocks)
        turns = torch.empty(len(scores), dtype=torch.float64)
        turns[scores.argsort(stable=True)] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
        turns = (turns - 0.5) / len(scores)  # when each channel goes, in (0, 1)
        for root, block, when in zip(roots, blocks, turns.split([len(block) for block in blocks]), strict=True):
            when = when.sort().values.tolist()
            kept = groups[root].kept_counts(round_to, max_pruning_ratio)
            steps += [(when[len(block) - k - 1], root, k) for k in kept]
    return [(root, k) for _, root, k in sorted(steps)]
