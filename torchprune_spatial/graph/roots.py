"""`Roots`: where the groups of a network begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency.node import Node

from .channels import Channels, Coupled
from .private_names import name_modules
from .side_table import SideTable
from .sides import COUPLED, PRODUCERS, CoupledChannels, Side


class Roots:
    """The roots of a network's groups: layers whose channels are all free of each other, and `CoupledChannels`.

    Iterating over it gives the modules.

    Args:
        graph: the graph. It is told of the `CoupledChannels`, which are in no network.
        channels, sides: the channels of its network, and the sides of its layers.

    Attributes:
        names: the names of all layers and of all roots.
    """

    def __init__(self, graph: Any, channels: Channels, sides: SideTable):
        self._graph, self._channels, self._sides = graph, channels, sides
        self.names: dict[nn.Module, str] = {side.layer: side.name for side in sides if not side.is_tensor}
        self.find()

    def find(self) -> None:
        """Find them, after classes have been united or frozen."""
        by_name = {name: module for module, name in self.names.items()}
        sides = [side for side in reversed(self._sides.outputs.values()) if side.keys]
        sides = [side for side in sides if not side.is_tensor or self._sides.makes_channels(side)]
        sides.sort(key=_rank)
        self._roots: list[nn.Module] = []
        self._coupled: dict[nn.Module, Coupled] = {}
        for name, coupled in self._channels.roots([(s.root_name, s.labels, not s.is_tensor) for s in sides]):
            root = by_name[name] if name in by_name else CoupledChannels(0)
            if coupled is not None:
                self._coupled[root] = coupled
                self.names[root] = name
                self._graph.module2node.setdefault(root, Node(root, None, name))
            self._roots.append(root)
        name_modules(
            self._graph, {root: name for root, name in self.names.items() if isinstance(root, CoupledChannels)}
        )
        self.fit_sizes()

    def fit_sizes(self) -> None:
        """After a removal: fit the numbers of channels of roots that are in no network."""
        for root, coupled in self._coupled.items():
            if len(coupled.blocks) == 1:  # such a root may be no move: `Channels.remove` leaves it as it is
                coupled.blocks = coupled.blocks[:, ~self._channels.removed[coupled.classes]]
            root.size = len(coupled.classes)  # type: ignore[assignment]
            self._graph.out_channel_groups[root] = max(1, len(coupled.blocks))

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._roots)

    def named(self, name: str) -> nn.Module:
        """A root, or another layer, by its name.

        Raises:
            ValueError: there is none.
        """
        for module, known in self.names.items():
            if known == name:
                return module
        raise ValueError(f"the network has no layer {name!r}")

    def side(self, root: nn.Module) -> Side:
        """The channels of a root, or the output channels of another layer.

        Raises:
            ValueError: it has none.
        """
        if root in self._coupled:
            return Side(root, True, COUPLED, self._coupled[root].classes, [], self.names[root])
        if root not in self._sides.outputs:
            raise ValueError(f"{self.names.get(root, root)} has no channels on this side that can be removed")
        return self._sides.outputs[root]

    def blocks(self, root: nn.Module) -> torch.Tensor:
        """The classes of a root, ``[blocks, size]``: each block must lose equally many."""
        if root in self._coupled:
            return self._coupled[root].blocks
        return self._channels.classes.of(self._sides.outputs[root].labels)[None]

    def leave_alone(self, reasons: Mapping[nn.Module, str]) -> None:
        """Freeze the channels of some roots.

        Args:
            reasons: why, for each.
        """
        for root, why in reasons.items():
            self._channels.classes.freeze(self.side(root).labels, why)
        self._channels.forget_frozen()
        self.find()


def _rank(side: Side) -> int:
    """Roots are looked for among layers first. A norm or a depthwise convolution may join what several layers make."""
    if isinstance(side.layer, PRODUCERS) and not side.is_depthwise:
        return 0
    return 1 if side.is_tensor else 2
