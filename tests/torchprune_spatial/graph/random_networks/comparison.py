"""A graph of channels against the second implementation: the classes, and what is left after a removal."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import nn

from .labels import Coordinate
from .network import Network
from .removal import Reference


def differences(found: list[set[Coordinate]], reference: Reference) -> list[str]:
    """What is wrong with the classes that a graph found; empty if nothing is.

    Classes must be the same where no numbers of channels depend on each other. Where they do, a class may be the union
    of several, or be frozen. So may be a class without which a layer has no channels. Coordinates of buffers are
    passed over.
    """
    wrong = []
    class_of = {coordinate: labels for labels in reference.classes for coordinate in labels}
    component_of = {coordinate: labels for labels in reference.components for coordinate in labels}
    covered: set[Coordinate] = set()
    parameters = {coordinate[0] for coordinate in reference.coordinates}
    for labels in found:
        labels = reference.compared({coordinate for coordinate in labels if coordinate[0] in parameters})
        covered |= labels
        stuck = labels - set(class_of)
        if stuck:
            wrong.append(f"can be removed, but should be frozen: {sorted(stuck)} in {sorted(labels)}")
            continue
        for part in {id(class_of[coordinate]): class_of[coordinate] for coordinate in labels}.values():
            if not part <= labels:
                wrong.append(f"lacks {sorted(part - labels)}: {sorted(labels)}")
        if any(not labels <= component_of[coordinate] for coordinate in labels):
            wrong.append(f"unites too much: {sorted(labels)}")
    for labels in reference.classes:
        constrained = reference.compared(component_of[next(iter(labels))]) != labels
        if not labels <= covered and not constrained and reference.leaves_some(labels):
            wrong.append(f"frozen, but can be removed: {sorted(labels)}")
    return wrong


def prune_some(graph: Any, random: Random) -> int:
    """Prune random channels of most groups, group by group; as many of each block where numbers must agree.

    Returns:
        From how many groups channels were removed.
    """
    pruned = 0
    for root, handler in [(group[0].dep.target.module, group[0].dep.handler) for group in graph.get_all_groups()]:
        group = next((group for group in graph.get_all_groups() if group[0].dep.target.module is root), None)
        if group is None or random.random() < 0.2:
            continue
        blocks = graph.out_channel_groups.get(root, 1)
        size = len(group[0].idxs) // blocks
        number = random.randint(1, random.choice((max(1, size // 2), max(1, size - 1))))
        chosen = [block * size + i for block in range(blocks) for i in random.sample(range(size), number)]
        group = graph.get_pruning_group(root, handler, chosen)
        if graph.check_pruning_group(group):
            group.prune()
            pruned += 1
    return pruned


def removed_coordinates(before: Network, after: Network) -> tuple[set[Coordinate], set[str]]:
    """Which coordinates are missing, read from the values, which are all different.

    Returns:
        The coordinates, and the names of parameters whose values are not those of the original without slices.
    """
    removed, wrong = set(), set()
    pruned = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        places = {value: i for i, value in enumerate(parameter.detach().flatten().tolist())}
        new = pruned[name].detach()
        found = [places.get(value) for value in new.flatten().tolist()]
        if not found or None in found or new.dim() != parameter.dim():
            wrong.add(name)
            continue
        index = torch.stack(torch.unravel_index(torch.tensor(found), parameter.shape)).reshape(-1, *new.shape)
        layer = before.get_submodule(name.rpartition(".")[0])
        if getattr(layer, "groups", 1) > 1 and new.dim() > 2:
            missing = _missing_of_groups(index, parameter.shape, layer, name)
        else:
            missing = _missing(index, parameter.shape, name)
        if missing is None:
            wrong.add(name)
        else:
            removed |= missing
    return removed, wrong


def _missing(index: torch.Tensor, shape: Sequence[int], name: str) -> set[Coordinate] | None:
    """The coordinates that are missing in a tensor, if its elements are those of a block.

    Args:
        index: ``[dimensions, *new shape]``: where each element of the new tensor was in the old one.
        shape: of the old tensor.
        name: of the parameter.
    """
    missing = set()
    for dimension, along in enumerate(index):
        kept = along.movedim(dimension, 0).reshape(along.shape[dimension], -1)
        if not (kept == kept[:, :1]).all() or not (kept[1:] > kept[:-1]).all():
            return None
        missing |= {(name, dimension, i) for i in set(range(shape[dimension])) - set(kept[:, 0].tolist())}
    return missing


def _missing_of_groups(
    index: torch.Tensor, shape: Sequence[int], layer: nn.Module, name: str
) -> set[Coordinate] | None:
    """As `_missing`, for the weight of a grouped convolution, of which each group may have lost other columns.

    Columns of a transposed convolution are the outputs of its groups; those of others are not named.
    """
    rows, missing = index[0].flatten(1)[:, 0], {(name, 0, i) for i in range(shape[0])}
    for group in range(layer.groups):
        own = (rows * layer.groups).div(shape[0], rounding_mode="floor") == group
        if not own.any():
            continue
        lost = _missing(index[:, own], shape, name)
        if lost is None:
            return None
        missing -= {(name, 0, int(row)) for row in rows[own]}
        if layer.transposed:
            missing |= {
                (f"{name.rpartition('.')[0]} writes", 0, group * shape[1] + i) for _, dimension, i in lost if dimension
            }
    return missing
