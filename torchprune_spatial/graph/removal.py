"""Removing channels: dependencies that cut the tensors of a side, and groups that bring the network up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_pruning.dependency import Dependency, Group
from torch_pruning.dependency.node import Node

from .private_names import graph_of, group_item, set_graph
from .side_table import SideTable
from .sides import Side
from .stand_ins import with_stand_ins


class ChannelDependency(Dependency):
    """A dependency of Torch-Pruning that removes channels of a `Side`.

    Its ``handler`` is Torch-Pruning's function for the layer, by which importances know it. Calling it cuts the tensors
    of the side, also in convolutions whose groups lose different channels, and in parameters outside of layers.
    """

    def __init__(self, sides: SideTable, side: Side, source: Node, target: Node, trigger: Any):
        super().__init__(trigger=trigger, handler=side.handler, source=source, target=target)
        self._sides, self._side = sides, side

    def __call__(self, idxs: list[int]) -> Any:
        """Remove channels by their present positions."""
        self._sides.cut(self._side, idxs)
        return self.target.module


class ChannelGroup(Group):
    """A group of Torch-Pruning that knows the classes of its channels.

    Attributes:
        classes: the classes that are removed with it, one for each of ``group[0].idxs``.
    """

    def __init__(self, graph: Any, classes: torch.Tensor):
        super().__init__()
        set_graph(self, graph)
        self.classes = classes

    def prune(self, idxs: Any = None, record_history: bool = True) -> None:
        """Remove the channels, and fit numbers in the code and factors of tensors to what is left.

        Raises:
            ValueError: the network's code cannot have the numbers of channels that would be left. Nothing is changed.
        """
        graph: Any = graph_of(self)
        if idxs is None and (why := graph.channels.refusal(self.classes)):
            raise ValueError(f"these channels of {self[0].dep.target.name} cannot be removed: {why}")
        super().prune(idxs, record_history)
        if idxs is None:
            graph.finish(self.classes)


def group_of(graph: Any, root: Side, idxs: Sequence[int]) -> ChannelGroup:
    """The group of some channels of a root, or of any side: all sides that have channels of the same classes.

    Args:
        graph: a `ChannelGraph`.
        root: the side, of a layer or of `CoupledChannels`.
        idxs: which of its channels.
    """
    all_classes, node = graph.channels.classes, graph.module2node[root.layer]
    roots = torch.tensor(idxs, dtype=torch.long)
    classes = all_classes.of(root.labels[roots])
    position = torch.full((len(all_classes),), -1)
    position[classes.flip(0)] = torch.arange(len(classes)).flip(0)
    items = [group_item(ChannelDependency(graph.sides, root, node, node, root.handler), list(idxs), idxs)]
    for side in graph.sides.having(classes):
        places = position[all_classes.of(side.labels)]
        found = (places >= 0).nonzero().flatten()
        if not len(found) or (side is root and len(found) == len(idxs)):
            continue
        target = graph.module2node[side.layer]
        dep = ChannelDependency(graph.sides, side, target if side.is_output else node, target, root.handler)
        item = group_item(dep, found.tolist(), roots[places[found]].tolist())
        if side is root:  # several of its channels are one class
            items[0] = item
        else:
            items.append(item)
    group = ChannelGroup(graph, classes)
    group.items.extend(with_stand_ins(items))
    return group
