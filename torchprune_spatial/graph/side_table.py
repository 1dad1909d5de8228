"""The sides of all layers of a network: which of them have channels of some classes, and what a removal cuts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch_pruning.dependency import DependencyGraph
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.models import evaluating

from .channels import Channels
from .factors import owners_of
from .labels.classes import LabelClasses
from .labels.parameters import Axes
from .removal import shortened
from .sides import CoupledChannels, Key, Side, TensorAxis, fit_numbers, sides_of


class SideTable:
    """The sides of all layers of a network, in the order in which the layers ran.

    Args:
        graph: the graph, for its network and its pruners.
        channels: the network's channels.

    Attributes:
        sides: all sides.
        outputs, inputs: the sides by layer.
        nodes: a node of Torch-Pruning for each layer.
        owners: the modules that hold each tensor.
    """

    def __init__(self, graph: DependencyGraph, channels: Channels):
        self.owners, same_name = owners_of(graph.model)
        with evaluating(graph.model):  # in training mode, reading a spectral norm's weight changes its vectors
            self.sides = sides_of(graph, channels.axes, same_name, self.tensor, channels.depthwise)
        order = {name: i for i, name in enumerate(channels.order)}
        self.sides.sort(key=lambda side: order.get(side.name, order.get(side.name.rpartition(".")[0], len(order))))
        self.outputs = {side.layer: side for side in self.sides if side.is_output}
        self.inputs = {side.layer: side for side in self.sides if not side.is_output}
        self.nodes = {side.layer: Node(side.layer, None, side.name) for side in self.sides}
        self._first_with: dict[Key, Side] = {}
        self._all_with: dict[Key, list[Side]] = {}
        for side in self.sides:
            for key in side.keys:
                self._first_with.setdefault(key, side)
                self._all_with.setdefault(key, []).append(side)
        self._cut: list[Key] = []
        self._labels = torch.cat([side.labels for side in self.sides] or [torch.zeros(0, dtype=torch.long)])
        sizes = torch.tensor([len(side.labels) for side in self.sides], dtype=torch.long)
        self._side_of_label = torch.arange(len(self.sides)).repeat_interleave(sizes)
        self._by_class: tuple[int, torch.Tensor, torch.Tensor] | None = None  # sorted once for all that is asked

    def tensor(self, name: str) -> Any:
        """A tensor of the network as it is now."""
        return getattr(*self.owners[name][0])

    def having(self, wanted: torch.Tensor, classes: LabelClasses) -> list[Side]:
        """The sides that have channels of some classes, ``[n]``, in order."""
        if self._by_class is None or self._by_class[0] != classes.unions:
            by_class, order = classes.of(self._labels).sort(stable=True)
            self._by_class = classes.unions, by_class, self._side_of_label[order]
        _, by_class, side_of = self._by_class
        start, stop = torch.searchsorted(by_class, wanted), torch.searchsorted(by_class, wanted, right=True)
        places = torch.arange(int((stop - start).sum()))  # from each start to its stop, one after the other
        places += (start - (stop - start).cumsum(0) + (stop - start)).repeat_interleave(stop - start)
        return [self.sides[i] for i in side_of[places].unique().tolist()]

    def cut(self, side: Side, idxs: Sequence[int], axes: Axes) -> None:
        """Remove channels of a side from its tensors, and from the labels of these."""
        keep = torch.ones(len(side.labels), dtype=torch.bool)
        keep[torch.as_tensor(list(idxs), dtype=torch.long)] = False
        if isinstance(side.layer, (TensorAxis, CoupledChannels)):
            side.layer.size = int(keep.sum())
        if not side.keys and not isinstance(side.layer, CoupledChannels):  # a customized layer
            side.handler(side.layer, list(idxs))
            key = (f"{side.name}.{'out' if side.is_output else 'in'}", 0)
            side.labels = axes[key] = side.labels[keep]
            return
        for key in side.keys:
            if self._first_with[key] is side and len(axes[key]) == len(keep):
                self._shorten(side, key, keep)
                axes[key] = axes[key][keep]
                self._cut.append(key)
        side.labels = side.labels[keep]

    def _shorten(self, side: Side, key: Key, keep: torch.Tensor) -> None:
        name, dim = key
        tensor = self.tensor(name)
        if side.is_depthwise and len(keep) != tensor.shape[dim]:  # whole groups go: with their input channels
            return
        new = shortened(tensor, dim, keep, max(1, len(keep) // tensor.shape[dim]))
        for module, attribute in self.owners[name]:
            stores: list[dict[str, Any]] = [module._parameters, module._buffers, vars(module)]
            next(store for store in stores if attribute in store)[attribute] = new

    def fit(self, axes: Axes) -> None:
        """After channels were cut: fit the labels of all sides of these tensors, and the numbers of their layers."""
        for key in self._cut:
            for side in self._all_with[key]:
                side.labels = axes[side.keys[0]]
                fit_numbers(side)
        self._cut.clear()

    @contextlib.contextmanager
    def restoring_labels(self) -> Iterator[None]:
        """A context after which the sides have the labels that they had."""
        labels = [side.labels for side in self.sides]
        try:
            yield
        finally:
            for side, before in zip(self.sides, labels, strict=True):
                side.labels = before
                if isinstance(side.layer, TensorAxis):
                    side.layer.size = len(before)
