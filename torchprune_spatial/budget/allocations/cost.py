"""Allocation by the scores of channels and by the cost that their removal saves."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from ..scored_groups import ScoredGroup
from .base import Allocation, Step, Work, register_allocation


@register_allocation
class CostAllocation(Allocation):
    """Channels with the smallest loss per saved cost are removed first.

    The loss of a removal is the increase of ``1 / s``, where ``s`` is the share of the sum of its scores that the group
    keeps. The scores of different groups therefore need not be comparable, and the fewer channels a group has left, the
    greater is the loss of the next one. (If the loss were the sum of the removed scores, or a logarithm, then wide
    layers between layers of a single channel would look as good as layers of balanced widths.)
    """

    name: ClassVar[str] = "cost"

    def order(self, work: Work) -> list[Step]:
        """Steps in the order of their loss per saved cost, see `cost_order`."""
        return cost_order(work, {name: losses_by_score(group) for name, group in work.groups.items()})


def cost_order(work: Work, losses: Mapping[str, Sequence[float]]) -> list[Step]:
    """Order all steps greedily: the next step is the one with the smallest loss per saved cost.

    The saving of a step is computed for the network after the steps before it: the cost of a layer is proportional to
    its number of output channels and to its number of input channels. A budget of parameters therefore spares narrow
    layers, and a budget of FLOPs spares layers with few positions.

    This order is ours. In the FLOPs-regularized pruning of Molchanov et al., "Pruning convolutional neural networks for
    resource efficient inference", ICLR 2017, the cost is counted once and subtracted from the score.

    Args:
        work: the groups, and the cost of each layer; a layer that is not listed costs nothing.
        losses: for each group, the total loss if each channel group keeps 0, 1, ... all channels.
    """
    network, order = _Network(work.groups, work.costs), list[Step]()
    waiting = {name: _steps(work, group, losses[name]) for name, group in work.groups.items()}
    heap = [(network.price(name, steps[0]), name) for name, steps in waiting.items() if steps]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        steps = waiting[name]
        price = network.price(name, steps[0])
        if not heap or price <= heap[0][0]:  # else the price has risen since it was put there; prices never fall
            step = steps.popleft()
            network.remove(name, step.channels)
            order.append(Step(name, step.kept))
            if not steps:
                continue
            price = network.price(name, steps[0])
        heapq.heappush(heap, (price, name))
    return order


class _PricedStep(NamedTuple):
    """The next channels that a group can lose.

    Attributes:
        loss: the increase of the group's loss.
        channels: the number of root channels removed.
        kept: the number of channels that each channel group keeps.
    """

    loss: float
    channels: int
    kept: int


def _steps(work: Work, group: ScoredGroup, losses: Sequence[float]) -> deque[_PricedStep]:
    before, steps = len(losses) - 1, deque[_PricedStep]()
    for kept in group.kept_counts(work.round_to, work.max_pruning_ratio):
        steps.append(_PricedStep(losses[kept] - losses[before], (before - kept) * group.channel_groups, kept))
        before = kept
    return steps


def losses_by_score(group: ScoredGroup) -> list[float]:
    """Compute the loss, 1 over the share of the scores that is kept, if each channel group keeps 0, 1, ... channels."""
    scores = group.mean_scores.double().sort().values
    finite = scores[scores.isfinite()]
    top = max(finite.max().item(), 0.0) if len(finite) else 1.0
    scores = scores.nan_to_num(posinf=top) - scores[0].clamp(max=0)  # none is negative
    left = scores.flip(0).cumsum(0).tolist()  # sums of the best 1, 2, ... scores
    return [math.inf, *(left[-1] / best if best else 0.0 for best in left)]  # all zero: nothing is lost


class _Network:
    """The present costs of the layers and their numbers of channels, while steps remove channels."""

    def __init__(self, groups: Mapping[str, ScoredGroup], costs: Mapping[str, float]):
        members = [member for group in groups.values() for member in group.members]
        self.channels: dict[tuple[str, bool], float] = {(m.layer, m.is_output): m.channels for m in members}
        self.costs = {member.layer: costs.get(member.layer, 0.0) for member in members}
        self.groups = groups

    def price(self, name: str, step: _PricedStep) -> float:
        """The loss of a step per unit of cost that it saves."""
        shares = self._shares(name, step.channels)
        saved = sum(self.costs[layer] * (1 - share) for layer, share in shares.items())
        return step.loss / saved if saved > 0 else math.inf

    def remove(self, name: str, channels: int) -> None:
        """Remove a number of root channels of a group."""
        for layer, share in self._shares(name, channels).items():
            self.costs[layer] *= share
        for member in self.groups[name].members:
            self.channels[member.layer, member.is_output] -= channels * member.factor

    def _shares(self, name: str, channels: int) -> dict[str, float]:
        """The share of its cost that each layer keeps: the product of the shares of channels kept on its two sides."""
        shares: dict[str, float] = {}
        for member in self.groups[name].members:
            left = self.channels[member.layer, member.is_output]
            shares[member.layer] = shares.get(member.layer, 1.0) * max(0.0, 1 - channels * member.factor / left)
        return shares
