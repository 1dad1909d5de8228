"""The Pareto front of networks by score and cost, and its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Networks that no other dominates: costs at most as much and scores at least as well, one of the two strictly.

    Args:
        costs: one number a network, lower is better.
        scores: one number a network, higher is better.

    Returns:
        Indices, from the lowest cost to the highest; of networks that are equal in both, the first.

    Raises:
        ValueError: the lengths differ, or a number is not finite.
    """
    front, best = [], -math.inf
    for i in sorted(range(len(_checked(costs, scores))), key=lambda i: (costs[i], -scores[i], i)):
        if scores[i] > best:
            front.append(i)
            best = scores[i]
    return front


def hypervolume(costs: Sequence[float], scores: Sequence[float], reference: tuple[float, float]) -> float:
    """The area that the networks dominate, up to a reference point: the larger, the better the front.

    In two dimensions one sweep gives it exactly: from its own cost to the cost of the next network on the front, a
    network dominates the scores between its own and the reference's (Zitzler and Thiele 1999).

    Args:
        costs: one number a network, lower is better.
        scores: one number a network, higher is better.
        reference: ``(cost, score)``. Networks that cost more or score less add nothing.

    Returns:
        The area, in units of cost times units of score; 0 for no networks.

    Raises:
        ValueError: the lengths differ, or a number is not finite.

    Example:
        >>> hypervolume([1, 2], [0.5, 0.9], reference=(4, 0.1))  # 1 x 0.4 + 2 x 0.8
        2.0
    """
    highest, lowest = reference
    _checked([*costs, highest], [*scores, lowest])
    front = [i for i in pareto_front(costs, scores) if costs[i] < highest and scores[i] > lowest]
    ends = [*(costs[i] for i in front[1:]), highest]
    return math.fsum((end - costs[i]) * (scores[i] - lowest) for i, end in zip(front, ends, strict=False))


def _checked(costs: Sequence[float], scores: Sequence[float]) -> Sequence[float]:
    if len(costs) != len(scores):
        raise ValueError(f"there are {len(costs)} costs but {len(scores)} scores; expected one of each a network")
    for name, values in (("cost", costs), ("score", scores)):
        for value in values:
            if not math.isfinite(value):
                raise ValueError(f"a {name} is {value!r}; leave out networks that failed or could not be counted")
    return costs
