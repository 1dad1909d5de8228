"""Allocation by the sensitivity of the regions: what the network loses when one group alone is pruned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import Group

from torchprune_spatial.groups import channel_layers, members_that_read
from torchprune_spatial.regions import regions_from_mask
from torchprune_spatial.removal import root_of

Scoring = Callable[[Group], torch.Tensor | None]
Fold = Callable[[Group], None]
SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)
"""Of the channels that are kept where errors are measured; at least one is. Errors between are interpolated."""
SMALL = 1e-3
"""Errors times this are so small that ``1 / (1 + error)`` is nearly linear."""


class SensitivityImportance:
    """Scores from which the allocation ``"cost"`` spares the groups without which the regions change the most.

    The order of the channels is that of another importance. The best ``k`` channels of a group have a share of its
    score of ``1 / (1 + error)``, where the error is that of the network when the group keeps these alone: so the price
    in `torchprune_spatial.allocation.cost_order` is the rise of this error for the cost that is saved.

    Ours; the sensitivity of single layers as in Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section
    3.2, but of regions of the same weight, and compared with the cost.

    Args:
        network: that is pruned; it is left as it was.
        batches: ``(inputs, targets, masks)``.
        importance: the order.
        ignored_layers: as for Torch-Pruning.
        fold: as ``before_removal`` of `torchprune_spatial.prune_to`.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Iterable,
        importance: Scoring,
        ignored_layers: list[nn.Module],
        fold: Fold | None = None,
    ):
        self.network, device = network, next(network.parameters()).device
        self.batches = [(inputs.to(device), regions_from_mask(masks).to(device)) for inputs, _, masks in batches]
        self.expected = self._outputs()
        graph = tp.DependencyGraph().build_dependency(network, self.batches[0][0][:1])
        groups = [*graph.get_all_groups(ignored_layers=ignored_layers)]
        orders = [importance(group) for group in groups]  # all before the first is folded
        self.scores = {
            root_of(group): None if scores is None else self._scores(group, scores, fold)
            for group, scores in zip(groups, orders, strict=True)
        }

    def __call__(self, group: Group) -> torch.Tensor | None:
        """``[channels]`` float64."""
        return self.scores[root_of(group)]

    def _scores(self, group: Group, scores: torch.Tensor, fold: Fold | None) -> torch.Tensor:
        order, channels = scores.argsort(descending=True), len(scores)
        kept = sorted({max(1, round(share * channels)) for share in SHARES})
        errors = [self._error(group, order[count:].tolist(), fold) for count in kept]
        curve = np.interp(range(1, channels + 1), [*kept, channels], [*np.minimum.accumulate(errors), 0.0])
        steps = np.diff(1 / (1 + SMALL * curve), prepend=0.0)
        steps[::-1].sort()  # in place: the better a channel is, the more it adds
        found = torch.empty(channels, dtype=torch.float64)
        found[order] = torch.from_numpy(steps)
        return found

    def _error(self, group: Group, goes: list[int], fold: Fold | None) -> float:
        """Mean squared error of each region, sum over the regions, without these channels of the group."""
        removed = group._DG.get_pruning_group(group[0].dep.target.module, group[0].dep.handler, goes)
        with _without(removed, fold):
            outputs = self._outputs()
        errors = torch.zeros((), dtype=torch.float64)
        areas = torch.zeros((), dtype=torch.float64)
        for (_, regions), found, expected in zip(self.batches, outputs, self.expected, strict=True):
            squares = (found - expected).square().mean(1, keepdim=True)
            errors = errors + (squares * regions).sum((0, 2, 3), dtype=torch.float64).cpu()
            areas = areas + regions.sum((0, 2, 3), dtype=torch.float64).cpu()
        return float((errors / areas).sum())

    @torch.no_grad()
    def _outputs(self) -> list[torch.Tensor]:
        return [self.network(inputs).sigmoid() for inputs, _ in self.batches]


@contextlib.contextmanager
def _without(removed: Group, fold: Fold | None) -> Iterator[None]:
    """Inside, the layers read the channels of the group as zeros, after the group was folded."""
    members = members_that_read(removed, channel_layers(removed._DG))
    weights = [member.layer.weight.detach().clone() for member in members]
    with contextlib.ExitStack() as stack:
        for member in members:
            hook = member.layer.register_forward_pre_hook(
                lambda layer, args, channels=member.channels: (args[0].index_fill(1, channels.to(args[0].device), 0),)
            )
            stack.callback(hook.remove)
        if fold:
            fold(removed)
        yield
    with torch.no_grad():
        for member, weight in zip(members, weights, strict=True):
            member.layer.weight.copy_(weight)
