"""Allocations by the rank of the scores: the three that Torch-Pruning has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar

import torch

from .base import Allocation, Step, Work, register_allocation


@register_allocation
class UniformAllocation(Allocation):
    """Every group loses the same share of its channels."""

    name: ClassVar[str] = "uniform"

    def order(self, work: Work) -> list[Step]:
        """Each group loses its channels in the order of their scores; the groups take turns."""
        return ranked_order(work, {name: name for name in work.groups})


@register_allocation
class GlobalAllocation(Allocation):
    """The channels with the lowest scores of the network are removed first. Scores must be comparable across layers."""

    name: ClassVar[str] = "global"

    def order(self, work: Work) -> list[Step]:
        """All channels of the network in the order of their scores."""
        return ranked_order(work, dict.fromkeys(work.groups, ""))


@register_allocation
class IsomorphicAllocation(Allocation):
    """Among groups of one kind, the lowest scores are removed first; every kind loses the same share of its channels.

    Fang et al., "Isomorphic pruning for vision models", ECCV 2024.
    """

    name: ClassVar[str] = "isomorphic"

    def order(self, work: Work) -> list[Step]:
        """Each kind of group loses its channels in the order of their scores; the kinds take turns."""
        return ranked_order(work, {name: group.kind for name, group in work.groups.items()})


def ranked_order(work: Work, scope_of: Mapping[str, object]) -> list[Step]:
    """Order the steps so that all ranking scopes lose the same share of their channels, lowest scores first.

    A ranking scope is a set of groups whose channels are ranked together. The scopes take turns: each step removes one
    channel (one multiple of ``round_to``), and no scope is more than one channel away from the common share.

    Args:
        work: the groups.
        scope_of: the ranking scope of each group; any hashable value that its groups share.
    """
    scopes: dict[object, list[str]] = defaultdict(list)
    for name in work.groups:
        scopes[scope_of[name]].append(name)
    steps = []
    for names in scopes.values():
        scores = [work.groups[name].mean_scores for name in names]
        together = torch.cat(scores)
        turns = torch.empty(len(together), dtype=torch.float64)
        turns[together.argsort(stable=True)] = torch.arange(1, len(together) + 1, dtype=torch.float64)
        turns = (turns - 0.5) / len(together)  # when each channel is removed, in (0, 1)
        for name, when in zip(names, turns.split([len(part) for part in scores]), strict=True):
            removal = when.sort().values.tolist()
            kept = work.groups[name].kept_counts(work.round_to, work.max_pruning_ratio)
            steps += [(removal[len(removal) - count - 1], name, count) for count in kept]
    return [Step(name, count) for _, name, count in sorted(steps)]
