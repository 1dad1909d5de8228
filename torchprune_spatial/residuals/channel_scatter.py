"""The two sides of a mixed residual addition, as a layer that Torch-Pruning knows how to prune."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group


class ChannelScatter(nn.Module):
    """Bring the channels that a branch has kept to their places in the sum; zeros elsewhere.

    Attributes:
        index: place of each input channel among the output channels, ascending: ``[in_channels]`` int64, a buffer.
        out_channels: channels of the sum.

    Args:
        channels: channels of the branch and of the sum before pruning.
    """

    index: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels
        self.register_buffer("index", torch.arange(channels))

    @property
    def in_channels(self) -> int:
        """Channels of the branch."""
        return self.index.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, in_channels, ...]`` -> ``[batch, out_channels, ...]``."""
        if self.in_channels == self.out_channels:  # ascending, so the identity
            return torch.ops.aten.alias(x)  # not x: Torch-Pruning knows a layer by its own node of the autograd graph
        return x.new_zeros((x.shape[0], self.out_channels, *x.shape[2:])).index_add(1, self.index, x)

    def extra_repr(self) -> str:
        """As the layers of PyTorch."""
        return f"{self.in_channels}, {self.out_channels}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        errors: list[str] = rest[-1]
        if not self.index.is_meta and not _ascends(self.index, self.out_channels):
            errors.append(
                f"{prefix}index is {self.index.tolist()}; expected ascending numbers below out_channels="
                f"{self.out_channels}: set out_channels to that of the saved module first"
            )


def _ascends(index: torch.Tensor, stop: int) -> bool:
    bounds = index.new_tensor([-1]), index.new_tensor([stop])
    return bool((torch.cat([bounds[0], index, bounds[1]]).diff() > 0).all())


class ChannelScatterPruner(tp.pruner.BasePruningFunc):
    """Torch-Pruning's way to prune a `ChannelScatter`: inputs and outputs apart, as those of a convolution."""

    TARGET_MODULES = ChannelScatter

    def prune_in_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove input channels; the outputs that they fed stay, as zeros."""
        keep = torch.ones_like(layer.index, dtype=torch.bool)
        keep[list(idxs)] = False
        layer.index = layer.index[keep]
        return layer

    def prune_out_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove output channels that no input channel feeds, and number the others anew."""
        removed = torch.tensor(sorted(set(idxs)), dtype=layer.index.dtype, device=layer.index.device)
        if fed := layer.index[torch.isin(layer.index, removed)].tolist():
            raise ValueError(f"output channels {fed} are fed by input channels; remove those first")
        layer.index = layer.index - torch.searchsorted(removed, layer.index)
        layer.out_channels -= len(removed)
        return layer

    def get_in_channels(self, layer: ChannelScatter) -> int:
        """Channels of the branch."""
        return layer.in_channels

    def get_out_channels(self, layer: ChannelScatter) -> int:
        """Channels of the sum."""
        return layer.out_channels


CUSTOMIZED_PRUNERS = {ChannelScatter: ChannelScatterPruner()}
"""For ``customized_pruners=`` of Torch-Pruning's pruners and of ``DependencyGraph.build_dependency``."""


def dead_channel_groups(graph: DependencyGraph) -> Iterator[Group]:
    """Channels of mixed sums that no operand feeds any more, as groups for the caller to prune before it goes on.

    For use after the host's own step, as ``pruner.step(interactive=True)``. Removing them leaves the function as it
    is, unless a norm or an activation between the sum and its readers makes a constant of the zero: this constant is
    then held at zero, as for every channel that Torch-Pruning removes. Channels that a grouped convolution, GroupNorm
    or LayerNorm reads stay, because these cannot lose a channel without a change of the others.

    Args:
        graph: dependency graph with ``customized_pruners=CUSTOMIZED_PRUNERS``; without mixed sums, nothing is yielded.

    Raises:
        ValueError: the graph has a `ChannelScatter` but not its pruner.
        RuntimeError: the group was not pruned.
    """
    pruner = graph.CUSTOMIZED_PRUNERS.get(ChannelScatter)
    if pruner is None and any(isinstance(module, ChannelScatter) for module in graph.model.modules()):
        raise ValueError("graph does not know ChannelScatter: build it with customized_pruners=CUSTOMIZED_PRUNERS")
    scatters = [module for module in reversed(graph.module2node) if isinstance(module, ChannelScatter)]
    found = True
    while found:  # a channel removed from one sum can leave a channel of the next without an operand
        found = False
        for scatter in scatters:
            if dead := _dead_channels(graph, scatter):
                found, before = True, scatter.out_channels
                yield graph.get_pruning_group(scatter, pruner.prune_out_channels, dead)
                if scatter.out_channels == before:
                    raise RuntimeError("the group was not pruned: call group.prune() before asking for the next")


def remove_dead_channels(graph: DependencyGraph) -> None:
    """Prune all the `dead_channel_groups`."""
    for group in dead_channel_groups(graph):
        group.prune()


def _dead_channels(graph: DependencyGraph, scatter: ChannelScatter) -> list[int]:
    """Output channels of a scatter that none of the scatters of the same sum feeds."""
    channels, fed = range(scatter.out_channels), set()
    for item in graph.get_pruning_group(
        scatter, graph.get_pruner_of_module(scatter).prune_out_channels, channels
    ).items:
        module, handler = item.dep.target.module, item.dep.handler
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) or getattr(module, "groups", 1) > 1:
            return []
        if graph.is_out_channel_pruning_fn(handler) and not graph.is_in_channel_pruning_fn(handler):  # writes the sum
            places = set(module.index.tolist() if isinstance(module, ChannelScatter) else item.idxs)
            fed |= {root for place, root in zip(item.idxs, item.root_idxs, strict=True) if place in places}
    return sorted(set(channels) - fed)
