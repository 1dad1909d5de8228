"""Removing channels: dependencies that cut the tensors of a side, and groups that bring the network up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn as nn
from torch_pruning.dependency import Dependency, Group
from torch_pruning.dependency.node import Node

from .private_names import graph_of, set_graph
from .sides import Side


class Cutter(Protocol):
    """A graph that can remove channels: a `ChannelGraph`."""

    def cut(self, side: Side, idxs: Sequence[int]) -> None:
        """Remove channels of a side from its tensors."""

    def finish(self, classes: torch.Tensor) -> None:
        """Fit the rest of the network to the removal of classes."""


class ChannelDependency(Dependency):
    """A dependency of Torch-Pruning that removes channels of a `Side`.

    Its ``handler`` is Torch-Pruning's function for the layer, by which importances know it. Calling it cuts the tensors
    of the side, also in convolutions whose groups lose different channels, and in parameters outside of layers.
    """

    def __init__(self, graph: Cutter, side: Side, source: Node, target: Node, trigger: Any):
        super().__init__(trigger=trigger, handler=side.handler, source=source, target=target)
        self._graph, self._side = graph, side

    def __call__(self, idxs: list[int]) -> Any:
        """Remove channels by their present positions."""
        self._graph.cut(self._side, idxs)
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


def shortened(tensor: torch.Tensor, dim: int, keep: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """A tensor without some of its entries along a dimension.

    Args:
        tensor: a parameter or buffer.
        dim: the dimension.
        keep: the entries that stay, ``[size]`` bool; ``[groups * size]`` if each group of a convolution, whose outputs
            are the first dimension, has its own.
        groups: the number of groups; each must keep equally many.
    """
    kept = _shortened(tensor.detach(), dim, keep, groups)
    if not isinstance(tensor, nn.Parameter):
        return kept
    parameter = nn.Parameter(kept, tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = _shortened(tensor.grad, dim, keep, groups)
    return parameter


def _shortened(tensor: torch.Tensor, dim: int, keep: torch.Tensor, groups: int) -> torch.Tensor:
    if groups == 1:
        return tensor.index_select(dim, keep.nonzero().flatten().to(tensor.device))
    parts, kept = tensor.unflatten(0, (groups, -1)), keep.reshape(groups, -1).nonzero()[:, 1].to(tensor.device)
    index = kept.reshape(groups, *[1] * dim, -1, *[1] * (tensor.dim() - dim - 1))
    sizes = [index.shape[dim + 1] if d == dim + 1 else size for d, size in enumerate(parts.shape)]
    return parts.gather(dim + 1, index.expand(sizes)).flatten(0, 1)
