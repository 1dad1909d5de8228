"""Spreading a budget over the layers by what their channels are worth and what they cost."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .removal import ScoredGroup


def cost_order(
    groups: Mapping[str, ScoredGroup],
    costs: Mapping[str, float],
    losses: Mapping[str, Sequence[float]] | None = None,
    *,
    round_to: int | None = None,
    max_pruning_ratio: float = 1.0,
) -> list[tuple[str, int]]:
    """Steps as of `removal.removal_order`; those go first that lose the least for the cost that they save.

    Unless it is given, what a step loses is the rise of ``1 / s``, where ``s`` is the share of its score that the group
    keeps: the scores of different groups need not compare, and the fewer are left the dearer they are. (By the sum of
    the scores, or by its logarithm, wide layers between layers of a single channel would look as good as a balance.)
    What a step saves is counted in the network that the steps before have left: a layer costs in proportion to its
    output and to its input channels. Under a budget of parameters this spares narrow layers, under one of FLOPs those
    of few positions.

    Ours. In the FLOPs-regularized pruning of Molchanov et al., "Pruning convolutional neural networks for resource
    efficient inference", ICLR 2017, the cost is counted once and subtracted from the score.

    Args:
        groups: the groups that may lose channels.
        costs: of each layer of the unpruned network, by name, in any unit; layers that are not named cost nothing.
        losses: what each group has lost by the number of channels that its blocks keep, from 0 to all; see
            `Sensitivity.losses`.
        round_to, max_pruning_ratio: as for `removal_order`.
    """
    network, order = _Network(groups, costs), []
    waiting = {
        root: _steps(group, losses[root] if losses else _by_score(group), round_to, max_pruning_ratio)
        for root, group in groups.items()
    }
    heap = [(network.price(root, steps[0]), root) for root, steps in waiting.items() if steps]
    heapq.heapify(heap)
    while heap:
        _, root = heapq.heappop(heap)
        steps = waiting[root]
        price = network.price(root, steps[0])
        if not heap or price <= heap[0][0]:  # else it has risen since, as prices only do
            step = steps.popleft()
            network.remove(root, step.channels)
            order.append((root, step.kept))
            if not steps:
                continue
            price = network.price(root, steps[0])
        heapq.heappush(heap, (price, root))
    return order


class _Step(NamedTuple):
    """The next channels of a group to go.

    Attributes:
        loss: what they are worth to the group, see `cost_order`.
        channels: how many root channels go.
        kept: how many each block has then.
    """

    loss: float
    channels: int
    kept: int


def _steps(group: ScoredGroup, losses: Sequence[float], round_to: int | None, max_pruning_ratio: float) -> deque[_Step]:
    before, steps = len(losses) - 1, deque[_Step]()
    for kept in group.kept_counts(round_to, max_pruning_ratio):
        steps.append(_Step(losses[kept] - losses[before], (before - kept) * group.channel_groups, kept))
        before = kept
    return steps


def _by_score(group: ScoredGroup) -> list[float]:
    """The inverse of the share of its score that a group keeps, by the number of channels, from 0."""
    scores = group.block_scores.double().sort().values
    finite = scores[scores.isfinite()]
    top = max(finite.max().item(), 0.0) if len(finite) else 1.0
    scores = scores.nan_to_num(posinf=top) - scores[0].clamp(max=0)  # from 0 up
    left = scores.flip(0).cumsum(0).tolist()  # the sum of the best
    return [math.inf, *(left[-1] / best if best else 0.0 for best in left)]  # none, if all are zero


class _Network:
    """What the layers still cost, and how many channels they still have."""

    def __init__(self, groups: Mapping[str, ScoredGroup], costs: Mapping[str, float]):
        members = [member for group in groups.values() for member in group.members]
        self.channels: dict[tuple[str, bool], float] = {(m.layer, m.is_output): m.channels for m in members}
        self.costs = {member.layer: costs.get(member.layer, 0.0) for member in members}
        self.groups = groups

    def price(self, root: str, step: _Step) -> float:
        """What a step loses for each unit of the cost that it saves."""
        shares = self._shares(root, step.channels)
        saved = sum(self.costs[layer] * (1 - share) for layer, share in shares.items())
        return step.loss / saved if saved > 0 else math.inf

    def remove(self, root: str, channels: int) -> None:
        """Take away so many root channels of a group."""
        for layer, share in self._shares(root, channels).items():
            self.costs[layer] *= share
        for member in self.groups[root].members:
            self.channels[member.layer, member.is_output] -= channels * member.factor

    def _shares(self, root: str, channels: int) -> dict[str, float]:
        """What is left of the cost of each layer: the product of both its sides."""
        shares: dict[str, float] = {}
        for member in self.groups[root].members:
            left = self.channels[member.layer, member.is_output]
            shares[member.layer] = shares.get(member.layer, 1.0) * max(0.0, 1 - channels * member.factor / left)
        return shares
