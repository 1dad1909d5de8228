"""Allocation by what channels are worth to their group and what they cost."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from ..scored_groups import ScoredGroup
from .base import Allocation, Step, Work, register_allocation


@register_allocation
class Cost(Allocation):
    """Channels that matter least to their group, for the cost that they save, are removed first.

    What the removal of a channel loses is the rise of ``1 / s``, where ``s`` is the share of its score that the group
    keeps. Scores of different groups need not compare, and the fewer channels are left, the more the next one counts.
    (With the sum of the scores, or its logarithm, wide layers between layers of a single channel would look as good as
    a balance.)
    """

    name: ClassVar[str] = "cost"

    def order(self, work: Work) -> list[Step]:
        """Steps by what they lose for what they save, see `cost_order`."""
        return cost_order(work, {name: losses_by_score(group) for name, group in work.groups.items()})


def cost_order(work: Work, losses: Mapping[str, Sequence[float]]) -> list[Step]:
    """The steps that lose the least for the cost that they save, one after the other.

    What a step saves is counted in the network that the steps before have left: the cost of a layer is proportional to
    the number of its output channels and to that of its input channels. A budget of parameters therefore spares narrow
    layers, and one of FLOPs spares layers with few positions.

    This order is ours. In the FLOPs-regularized pruning of Molchanov et al., "Pruning convolutional neural networks for
    resource efficient inference", ICLR 2017, the cost is counted once and subtracted from the score.

    Args:
        work: the groups, and what each layer costs; layers without a cost cost nothing.
        losses: for each group, what it has lost where each channel group keeps 0, 1, ... all channels.
    """
    network, order = _Network(work.groups, work.costs), list[Step]()
    waiting = {name: _steps(work, group, losses[name]) for name, group in work.groups.items()}
    heap = [(network.price(name, steps[0]), name) for name, steps in waiting.items() if steps]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        steps = waiting[name]
        price = network.price(name, steps[0])
        if not heap or price <= heap[0][0]:  # otherwise it has risen since; prices never fall
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
        loss: what the step loses.
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
    """The inverse of the share of its score that a group keeps, where each channel group keeps 0, 1, ... channels."""
    scores = group.mean_scores.double().sort().values
    finite = scores[scores.isfinite()]
    top = max(finite.max().item(), 0.0) if len(finite) else 1.0
    scores = scores.nan_to_num(posinf=top) - scores[0].clamp(max=0)  # from 0 up
    left = scores.flip(0).cumsum(0).tolist()  # the sum of the best
    return [math.inf, *(left[-1] / best if best else 0.0 for best in left)]  # all zero: nothing is lost


class _Network:
    """What the layers still cost, and how many channels they still have."""

    def __init__(self, groups: Mapping[str, ScoredGroup], costs: Mapping[str, float]):
        members = [member for group in groups.values() for member in group.members]
        self.channels: dict[tuple[str, bool], float] = {(m.layer, m.is_output): m.channels for m in members}
        self.costs = {member.layer: costs.get(member.layer, 0.0) for member in members}
        self.groups = groups

    def price(self, name: str, step: _PricedStep) -> float:
        """What a step loses for each unit of cost that it saves."""
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
        """The share of its cost that each layer keeps: the product over its two sides."""
        shares: dict[str, float] = {}
        for member in self.groups[name].members:
            left = self.channels[member.layer, member.is_output]
            shares[member.layer] = shares.get(member.layer, 1.0) * max(0.0, 1 - channels * member.factor / left)
        return shares
