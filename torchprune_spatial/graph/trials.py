"""Trying removals: part of each group is removed, and the channels are followed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from resolution_scaling.ground.calls import sentence

from .labels.steps import Step, difference

WRONG = "removing it changes which channels belong together"

ROUNDS = 8
"""So many times the groups that are left are tried together, after others have been left alone."""


def leave_wrong_groups_alone(graph: Any) -> None:
    """Try to remove part of each group of a `ChannelGraph`; freeze the classes of those that turn out to be wrong."""
    steps = graph.followed_again().steps if graph.root_names() else []
    for _ in range(ROUNDS):
        names = graph.root_names()
        wrong = _failing(graph, names, steps) if names else {}
        if not wrong:
            return
        graph.leave_alone(wrong)


def _failing(graph: Any, names: Sequence[str], steps: list[Step]) -> dict[str, str]:
    """Which of some groups cannot be pruned, and why; found by halving."""
    why = _trial(graph, names, steps)
    if not why:
        return {}
    if len(names) == 1:
        return {names[0]: why}
    half = len(names) // 2
    apart = _failing(graph, names[:half], steps) | _failing(graph, names[half:], steps)
    return apart or dict.fromkeys(names, why)


def _trial(graph: Any, names: Sequence[str], steps: list[Step]) -> str:
    """What goes wrong when a third of each group is removed at random positions; empty if nothing does.

    Args:
        graph: the graph.
        names: the roots of the groups.
        steps: what the whole network computes.
    """
    generator = torch.Generator().manual_seed(0)

    def third(size: int) -> torch.Tensor:
        return torch.randperm(size, generator=generator)[: size // 3]

    with graph.trying():
        try:
            for group in [graph.part_of(name, third) for name in names]:
                if group is not None:
                    group.prune(record_history=False)
            again = graph.followed_again()
            wrong, changed = graph.tied_otherwise(again), graph.channels.changes_of_factors()
        except Exception as error:
            return f"the network fails without it ({sentence(error)})"
    return f"{WRONG}: {', '.join(wrong[:3])}" if wrong else difference(steps, again.steps, changed)
