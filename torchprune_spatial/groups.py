"""Reading Torch-Pruning's dependency graph: which layers read and write a group's channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

CHANNEL_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers that read channels and write others: the ones between which feature maps are pruned."""


def channel_layers(graph: DependencyGraph) -> dict[nn.Module, str]:
    """Layers that read channels, with their names: convolutions (transposed, depthwise), linear and customized ones."""
    customized = tuple(kind for kind in graph.CUSTOMIZED_PRUNERS if isinstance(kind, type))
    return {
        module: name
        for name, module in graph.model.named_modules()
        if isinstance(module, CHANNEL_LAYERS + customized) or module in graph.CUSTOMIZED_PRUNERS
    }


def producers_of(graph: DependencyGraph, reader: nn.Module) -> list[nn.Module]:
    """Layers whose channels a layer reads, seen through activations, norms, additions and concatenations."""
    found, pending, seen = [], list(graph.module2node[reader].inputs), set()
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


def writers_in(group: Group) -> set[nn.Module]:
    """Modules whose output channels belong to the group."""
    modules = (dep.target.module for dep, _ in group if group._DG.is_out_channel_pruning_fn(dep.handler))
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
"""Torch-Pruning's ``group_reduction`` over the layers that read a channel: ``[layers, ...]`` -> ``[...]``.

NaN stands for a layer that does not read the channel."""


def reduce_over_readers(group: Group, per_layer: dict[nn.Module, torch.Tensor], reduction: str) -> torch.Tensor | None:
    """Bring per-input-channel values of the layers that read a group to the group's own channels.

    Args:
        group: group of Torch-Pruning; concatenation, split and flatten are mapped by its ``root_idxs``.
        per_layer: ``[values, in_channels]`` of each layer that reads channels.
        reduction: how a channel that several layers read gets one value, a key of `REDUCTIONS`. Several input channels
            of one layer that belong to the same root channel (flatten) are averaged first.

    Returns:
        ``[values, channels]``, aligned with ``group[0].idxs``, or None if no layer reads any of the channels. A channel
        that no layer reads gets 0.
    """
    roots = list(group[0].root_idxs)
    reads = _reads(group, per_layer, roots)
    if reads and (unread := _absent(reads)).any():
        # Merging drops the second root of an index (chunk, split, cat of one tensor twice): ask for these alone.
        dep = group[0].dep
        for position in unread.nonzero().flatten().tolist():
            alone = group._DG.get_pruning_group(dep.target.module, dep.handler, [group[0].idxs[position]])
            for read in _reads(alone, per_layer, [group[0].idxs[position]]):
                wide = read.new_full((len(read), len(roots)), torch.nan)
                wide[:, position] = read[:, 0]
                reads.append(wide)
    if not reads:
        return None
    values = REDUCTIONS[reduction](torch.stack(reads))
    return torch.where(_absent(reads), 0.0, values)


def _absent(reads: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(reads).isnan().all(0).all(0)


def _reads(group: Group, per_layer: dict[nn.Module, torch.Tensor], roots: list[int]) -> list[torch.Tensor]:
    """One ``[values, len(roots)]`` for each layer that reads the group, NaN where it does not read the channel."""
    position = {root: i for i, root in enumerate(roots)}
    reads = []
    for item in group.items:  # never sort item.idxs: they are paired with item.root_idxs
        layer = item.dep.target.module
        if not isinstance(layer, nn.Module) or layer not in per_layer:
            continue
        if not group._DG.is_in_channel_pruning_fn(item.dep.handler):
            continue
        pairs = [(i, position[r]) for i, r in zip(item.idxs, item.root_idxs, strict=True) if r in position]
        if not pairs:
            continue
        channels, targets = torch.tensor(pairs).T
        values = per_layer[layer][:, channels]
        total = values.new_zeros(len(values), len(roots)).index_add_(1, targets, values)
        count = values.new_zeros(len(roots)).index_add_(0, targets, torch.ones_like(values[0]))
        reads.append(total / count)  # 0 / 0 = NaN: not read
    return reads
