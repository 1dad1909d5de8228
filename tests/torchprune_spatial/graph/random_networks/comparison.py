"""A graph of channels against the second implementation: the classes, and what is left after a removal."""

from __future__ import annotations

from random import Random
from typing import Any

import torch

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

    The inputs of grouped convolutions may be others in each group: they are left out.

    Returns:
        The coordinates, and the names of parameters whose values are not those of a block of the original.
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
        indices = torch.unravel_index(torch.tensor(found), parameter.shape)
        kept = [i.unique() for i in indices]
        block = parameter.detach()
        for dimension, index in enumerate(kept):
            block = block.index_select(dimension, index)
        grouped = getattr(before.get_submodule(name.rpartition(".")[0]), "groups", 1) > 1 and parameter.dim() > 2
        if not grouped and not torch.equal(block, new):
            wrong.add(name)
        for dimension, index in enumerate(kept):
            if not (grouped and dimension == 1):
                missing = set(range(parameter.shape[dimension])) - set(index.tolist())
                removed |= {(name, dimension, i) for i in missing}
    return removed, wrong
