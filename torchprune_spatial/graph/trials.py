"""Trying removals: part of each group is removed, and the channels are followed again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
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


def _failing(graph: Any, names: Sequence[str], steps: list[Step], others: Sequence[str] = ()) -> dict[str, str]:
    """Which of some groups cannot be pruned, and why; found by halving.

    Args:
        graph: the graph.
        names: the roots of the groups.
        steps: what the whole network computes.
        others: roots of groups that are pruned at the same time, with which nothing goes wrong.
    """
    why = _trial(graph, [*others, *names], steps)
    if not why:
        return {}
    if len(names) == 1:
        return {names[0]: why}
    half = len(names) // 2
    wrong = _failing(graph, names[:half], steps, others)
    right = [name for name in names[:half] if name not in wrong]
    return wrong | _failing(graph, names[half:], steps, [*others, *right])


def _trial(graph: Any, names: Sequence[str], steps: list[Step]) -> str:
    """What goes wrong when a third of each group is removed at random positions; empty if nothing does.

    Of each group, always the same channels are removed.
    """
    with graph.trying():
        try:
            for name in names:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                group = graph.part_of(name, partial(_third, generator))
                if group is not None:
                    group.prune(record_history=False)
            again = graph.followed_again()
            wrong, changed = graph.tied_otherwise(again), graph.channels.changes_of_factors()
        except Exception as error:
            return f"the network fails without it ({sentence(error)})"
    return f"{WRONG}: {', '.join(wrong[:3])}" if wrong else difference(steps, again.steps, changed)


def _third(generator: torch.Generator, size: int) -> torch.Tensor:
    """Random positions among some, a third of them; of two or more at least one."""
    return torch.randperm(size, generator=generator)[: max(1, size // 3) if size > 1 else 0]
