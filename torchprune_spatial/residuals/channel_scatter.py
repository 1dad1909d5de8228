"""`ChannelScatter`, the layer before each operand of a mixed residual addition, and how Torch-Pruning prunes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group

from ..graph.private_names import roots_of


class ChannelScatter(nn.Module):
    """Puts the channels that a branch has kept in their places among the channels of the sum; the others are zero.

    Args:
        channels: number of channels of the branch, and of the sum, before pruning.

    Attributes:
        index: place of each input channel among the output channels, ascending: ``[in_channels]`` int64, a buffer.
        out_channels: number of channels of the sum.
    """

    index: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels
        self.register_buffer("index", torch.arange(channels))

    @property
    def in_channels(self) -> int:
        """Number of channels of the branch."""
        return self.index.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, in_channels, ...]`` -> ``[batch, out_channels, ...]``."""
        if self.in_channels == self.out_channels:  # ascending, so the identity
            return torch.ops.aten.alias(x)  # not x: Torch-Pruning knows a layer by its own node of the autograd graph
        return x.new_zeros((x.shape[0], self.out_channels, *x.shape[2:])).index_add(1, self.index, x)

    def extra_repr(self) -> str:
        """The numbers of channels, as the layers of PyTorch print them."""
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
    """How Torch-Pruning prunes a `ChannelScatter`: inputs and outputs separately, like those of a convolution."""

    TARGET_MODULES = ChannelScatter

    def prune_in_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove input channels. The outputs that they fed remain, and are zero."""
        keep = torch.ones_like(layer.index, dtype=torch.bool)
        keep[list(idxs)] = False
        layer.index = layer.index[keep]
        return layer

    def prune_out_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove output channels that no input channel feeds, and renumber the others.

        Raises:
            ValueError: an input channel feeds one of them.
        """
        removed = torch.tensor(sorted(set(idxs)), dtype=layer.index.dtype, device=layer.index.device)
        if fed := layer.index[torch.isin(layer.index, removed)].tolist():
            raise ValueError(f"idxs holds {fed}, which input channels feed: remove these input channels first")
        layer.index = layer.index - torch.searchsorted(removed, layer.index)
        layer.out_channels -= len(removed)
        return layer

    def get_in_channels(self, layer: ChannelScatter) -> int:
        """Number of channels of the branch."""
        return layer.in_channels

    def get_out_channels(self, layer: ChannelScatter) -> int:
        """Number of channels of the sum."""
        return layer.out_channels


CUSTOMIZED_PRUNERS = {ChannelScatter: ChannelScatterPruner()}
"""For ``customized_pruners=`` of Torch-Pruning's pruners and of ``DependencyGraph.build_dependency``."""


def dead_channel_groups(graph: DependencyGraph) -> Iterator[Group]:
    """Channels of mixed sums that no operand feeds any more. The caller prunes each group before it asks for the next.

    Use it after Torch-Pruning's own step, as `PruningRecord.step` does. The network computes the same without these
    channels, unless a norm or an activation between the sum and its readers turns zero into another constant: the
    readers then lose this constant, as for every channel that Torch-Pruning removes. Channels that pass through a
    grouped convolution, GroupNorm or LayerNorm are kept, because these layers cannot lose one channel without changing
    others.

    Args:
        graph: a dependency graph with ``customized_pruners=CUSTOMIZED_PRUNERS``. Without mixed sums nothing is yielded.

    Raises:
        ValueError: the network has a `ChannelScatter`, but the graph does not know how to prune it.
        RuntimeError: the caller did not prune a group.
    """
    pruner = graph.CUSTOMIZED_PRUNERS.get(ChannelScatter)
    if pruner is None and any(isinstance(module, ChannelScatter) for module in graph.model.modules()):
        raise ValueError(
            "graph does not know how to prune ChannelScatter: build it, or the pruner, with "
            "customized_pruners=torchprune_spatial.CUSTOMIZED_PRUNERS"
        )
    scatters = [module for module in reversed(graph.module2node) if isinstance(module, ChannelScatter)]
    found = True
    while found:  # a channel removed from one sum can leave a channel of the next without an operand
        found = False
        for scatter in scatters:
            if dead := _dead_channels(graph, scatter):
                found, before = True, scatter.out_channels
                yield graph.get_pruning_group(scatter, pruner.prune_out_channels, dead)
                if scatter.out_channels == before:
                    raise RuntimeError("the last group was not pruned: call group.prune() before asking for the next")


def remove_dead_channels(graph: DependencyGraph) -> None:
    """Remove the channels of mixed sums that no operand feeds any more, see `dead_channel_groups`."""
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
        if graph.is_out_channel_pruning_fn(handler) and not graph.is_in_channel_pruning_fn(handler):  # produces the sum
            places = set(module.index.tolist() if isinstance(module, ChannelScatter) else item.idxs)
            fed |= {root for place, root in zip(item.idxs, roots_of(item), strict=True) if place in places}
    return sorted(set(channels) - fed)
