"""Trying removals: part of each group is removed, and the channels are followed again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn

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
    graph.roots.leave_alone(_impossible(graph))
    for _ in range(ROUNDS):
        roots = list(graph.roots)
        wrong = _failing(graph, roots, steps) if roots else {}
        if not wrong:
            return
        graph.roots.leave_alone(wrong)


def _failing(
    graph: Any, roots: Sequence[nn.Module], steps: list[Step], others: Sequence[nn.Module] = ()
) -> dict[nn.Module, str]:
    """Which of some groups cannot be pruned, and why; found by halving.

    Args:
        graph: the graph.
        roots: the roots of the groups.
        steps: what the whole network computes.
        others: roots of groups that are pruned at the same time, with which nothing goes wrong.
    """
    why = _trial(graph, [*others, *roots], steps)
    if not why:
        return {}
    if len(roots) == 1:
        return {roots[0]: why}
    half = len(roots) // 2
    wrong = _failing(graph, roots[:half], steps, others)
    right = [root for root in roots[:half] if root not in wrong]
    return wrong | _failing(graph, roots[half:], steps, [*others, *right])


def _trial(graph: Any, roots: Sequence[nn.Module], steps: list[Step]) -> str:
    """What goes wrong when channels of each group are removed at random positions; empty if nothing does.

    Numbers can be right by chance, as in ``gcd(channels, 8)``: first a third of each group is removed, then one of it.
    """
    return _trial_with(graph, roots, steps, lambda size: size // 3) or _trial_with(graph, roots, steps, lambda size: 1)


def _trial_with(graph: Any, roots: Sequence[nn.Module], steps: list[Step], number: Callable[[int], int]) -> str:
    with graph.trying():
        try:
            for root in roots:
                if positions := _allowed(graph, root, number):
                    graph.get_pruning_group(root, graph.roots.side(root).handler, positions).prune(record_history=False)
            again = graph.followed_again()
            wrong, changed = graph.tied_otherwise(again), graph.channels.changes_of_factors()
        except Exception as error:
            return f"the network fails without it ({sentence(error)})"
    return f"{WRONG}: {', '.join(wrong[:3])}" if wrong else difference(steps, again.steps, changed)


def _allowed(graph: Any, root: nn.Module, number: Callable[[int], int]) -> list[int]:
    """Random channels of a root, always the same, at equal positions in all its blocks.

    They are fewer, or none, if the code cannot lose so many.
    """
    blocks = graph.roots.blocks(root)
    count, size = blocks.shape
    generator = torch.Generator().manual_seed(zlib.crc32(graph.roots.names[root].encode()))
    positions = torch.randperm(size, generator=generator)[: max(1, number(size)) if size > 1 else 0]
    while len(positions) and graph.channels.refusal(blocks[:, positions].flatten()):
        positions = positions[: len(positions) // 2]
    idxs: list[int] = (positions + torch.arange(count)[:, None] * size).flatten().sort().values.tolist()
    return idxs


def _impossible(graph: Any) -> dict[nn.Module, str]:
    """Which groups cannot lose a single channel, because of what the code has found out about their number."""
    found = {}
    for root in graph.roots:
        blocks = graph.roots.blocks(root)
        whys = [graph.channels.refusal(blocks[:, :count].flatten()) for count in (1, 2) if count < blocks.shape[1]]
        if whys and all(whys):
            found[root] = whys[0]
    return found
