"""`SideTable`: the sides of all layers of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph

from resolution_scaling.ground.models import evaluating

from .channels import Channels
from .factors import owners_of
from .sides import PRODUCERS, CoupledChannels, Key, Side, TensorAxis, fit_numbers, sides_of


class SideTable:
    """The sides of all layers of a network: it finds those that have some channels, and cuts their tensors.

    Iterating over it gives the sides, in the order in which the layers run.

    Args:
        graph: a graph of Torch-Pruning, for its network and its pruners.
        channels: the network's channels. When a tensor is cut, so are its labels.

    Attributes:
        owners: the modules that hold each tensor, and their attributes.
        outputs, inputs: the output side and the input side of each layer that has one.
    """

    def __init__(self, graph: DependencyGraph, channels: Channels):
        self.channels = channels
        self.owners, same_name = owners_of(graph.model)
        with evaluating(graph.model):  # in training mode, reading a spectral norm's weight changes its vectors
            sides = sides_of(graph, channels.axes, same_name, self.tensor, channels.depthwise)
        order = {name: i for i, name in enumerate(channels.order)}
        sides.sort(key=lambda side: order.get(side.name, order.get(side.name.rpartition(".")[0], len(order))))
        self._sides = sides
        self.outputs = {side.layer: side for side in sides if side.is_output}
        self.inputs = {side.layer: side for side in sides if not side.is_output}
        self._sides_of: dict[Key, list[Side]] = {}
        for side in sides:
            for key in side.keys:
                self._sides_of.setdefault(key, []).append(side)
        self._cut_keys: list[Key] = []
        sizes = torch.tensor([len(side.labels) for side in sides], dtype=torch.long)
        self._labels = torch.cat([side.labels for side in sides] or [torch.zeros(0, dtype=torch.long)])
        self._side_of_label = torch.arange(len(sides)).repeat_interleave(sizes)
        self._by_class: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def __iter__(self) -> Iterator[Side]:
        return iter(self._sides)

    def tensor(self, name: str) -> Any:
        """A tensor of the network as it is now."""
        return getattr(*self.owners[name][0])

    def makes_channels(self, side: Side) -> bool:
        """Whether these are the outputs of a layer with weights, or of a weight outside of known layers."""
        if not side.is_tensor:
            return side.is_output and isinstance(side.layer, PRODUCERS)
        if ".parametrizations." in side.name or not self.channels.made[side.labels].all():
            return False
        return isinstance(self.tensor(side.name), nn.Parameter)

    def having(self, classes: torch.Tensor) -> list[Side]:
        """The sides that have channels of some classes."""
        found = self.channels.classes
        if self._by_class is None or self._by_class[0] != found.unions:  # labels have been united since
            sorted_classes, order = found.of(self._labels).sort(stable=True)
            self._by_class = found.unions, sorted_classes, self._side_of_label[order]
        _, sorted_classes, side_of = self._by_class
        start, stop = (torch.searchsorted(sorted_classes, classes, right=right) for right in (False, True))
        places = torch.arange(int((stop - start).sum()))  # from each start to its stop, one after the other
        places += (start - (stop - start).cumsum(0) + (stop - start)).repeat_interleave(stop - start)
        return [self._sides[i] for i in side_of[places].unique().tolist()]

    @torch.inference_mode(False)
    @torch.no_grad()
    def cut(self, side: Side, idxs: Sequence[int]) -> None:
        """Remove channels of a side from its tensors."""
        keep = torch.ones(len(side.labels), dtype=torch.bool)
        keep[torch.as_tensor(list(idxs), dtype=torch.long)] = False
        if isinstance(side.layer, (TensorAxis, CoupledChannels)):
            side.layer.size = int(keep.sum())
        elif not side.keys:  # a customized layer
            side.handler(side.layer, list(idxs))
            self.channels.axes[f"{side.name}.{'out' if side.is_output else 'in'}", 0] = side.labels[keep]
        for key in side.keys:
            is_first = self._sides_of[key][0] is side  # of the layers that share a parameter
            if is_first and len(self.channels.axes[key]) == len(keep):
                self._cut(key, keep, side.is_depthwise)
        side.labels = side.labels[keep]

    def _cut(self, key: Key, keep: torch.Tensor, is_depthwise: bool) -> None:
        name, dim = key
        tensor = self.tensor(name)
        if not (is_depthwise and len(keep) != tensor.shape[dim]):  # else whole groups go, with their input channels
            new = shortened(tensor, dim, keep, max(1, len(keep) // tensor.shape[dim]))
            for module, attribute in self.owners[name]:
                stores: list[dict[str, Any]] = [module._parameters, module._buffers, vars(module)]
                next(store for store in stores if attribute in store)[attribute] = new
        self.channels.axes[key] = self.channels.axes[key][keep]
        self._cut_keys.append(key)

    def fit_numbers(self) -> None:
        """After cuts: fit the numbers of channels that layers hold, also in layers that share the tensors."""
        for key in self._cut_keys:
            for side in self._sides_of[key]:
                side.labels = self.channels.axes[side.keys[0]]
                fit_numbers(side)
        self._cut_keys.clear()

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """A context after which the sides have the labels that they had before."""
        before = [side.labels for side in self]
        try:
            yield
        finally:
            for side, labels in zip(self, before, strict=True):
                side.labels = labels
                if isinstance(side.layer, TensorAxis):
                    side.layer.size = len(labels)


def shortened(tensor: torch.Tensor, dim: int, keep: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """A tensor without some of its entries along a dimension.

    Args:
        tensor: one that modules hold.
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
