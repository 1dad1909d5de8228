"""Trying removals: part of each group is removed, and the channels are followed again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from resolution_scaling.ground.calls import sentence

from .labels.steps import Step, depends_on_values, difference, of_code

WRONG = "removing it changes which channels belong together"

ROUNDS = 8
"""So many times the groups that are left are tried together, after others have been left alone."""


def leave_wrong_groups_alone(graph: Any, steps: list[Step]) -> None:
    """Try to remove part of each group of a `ChannelGraph`; freeze the classes of those that turn out to be wrong.

    Args:
        graph: the graph.
        steps: what the whole network computes.
    """
    if depends_on_values(steps):
        steps = of_code(steps, graph.followed_with_other_weights().steps)
    graph.leave_alone(_impossible(graph))
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
    """What goes wrong when channels of each group are removed at random positions; empty if nothing does.

    Numbers can be right by chance, as in ``gcd(channels, 8)``: first a third of each group is removed, then one of it.
    """
    return _trial_with(graph, names, steps, lambda size: size // 3) or _trial_with(graph, names, steps, lambda size: 1)


def _trial_with(graph: Any, names: Sequence[str], steps: list[Step], number: Callable[[int], int]) -> str:
    with graph.trying():
        try:
            for name in names:
                positions = _allowed(graph, name, number)
                if len(positions):
                    graph.part_of(name, positions).prune(record_history=False)
            again = graph.followed_again()
            wrong, changed = graph.tied_otherwise(again), graph.channels.changes_of_factors()
        except Exception as error:
            return f"the network fails without it ({sentence(error)})"
    return f"{WRONG}: {', '.join(wrong[:3])}" if wrong else difference(steps, again.steps, changed)


def _allowed(graph: Any, name: str, number: Callable[[int], int]) -> torch.Tensor:
    """Random positions in each block of a root, always the same; fewer or none if the code cannot lose so many."""
    blocks = graph.blocks_of(name)
    size = blocks.shape[1]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    positions = torch.randperm(size, generator=generator)[: max(1, number(size)) if size > 1 else 0]
    while len(positions) and graph.channels.refusal(blocks[:, positions].flatten()):
        positions = positions[: len(positions) // 2]
    return positions


def _impossible(graph: Any) -> dict[str, str]:
    """Which groups cannot lose a single channel, because of what the code has found out about their number."""
    found = {}
    for name in graph.root_names():
        blocks = graph.blocks_of(name)
        whys = [graph.channels.refusal(blocks[:, :count].flatten()) for count in (1, 2) if count < blocks.shape[1]]
        if whys and all(whys):
            found[name] = whys[0]
    return found
