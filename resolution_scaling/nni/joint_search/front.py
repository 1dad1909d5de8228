"""Which of many networks are worth having: the Pareto front of score against cost, and its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Networks for which no other costs at most as much and scores at least as well, one of the two strictly.

    Args:
        costs: one number a network, lower is better.
        scores: the same, higher is better.

    Returns:
        Indices, from the cheapest to the dearest; of networks that are alike in both, the first.

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
    """Area that the networks dominate, up to a reference: the larger, the better the front.

    In two dimensions it is exact by one sweep: from its cost on to the next of the front, a network dominates what lies
    between its score and that of the reference (Zitzler and Thiele 1999).

    Args:
        costs: one number a network, lower is better.
        scores: the same, higher is better.
        reference: ``(cost, score)``, worse than what counts: networks that cost more or score less add nothing.

    Returns:
        The area, in units of cost times units of score; 0 for no networks.

    Raises:
        ValueError: the lengths differ, or a number is not finite.

    Example:
        >>> hypervolume([1, 2], [0.5, 0.9], reference=(4, 0.1))  # 1 x 0.4 + 2 x 0.8
        2.0
    """
    dearest, lowest = reference
    _checked([*costs, dearest], [*scores, lowest])
    front = [i for i in pareto_front(costs, scores) if costs[i] < dearest and scores[i] > lowest]
    ends = [*(costs[i] for i in front[1:]), dearest]
    return math.fsum((end - costs[i]) * (scores[i] - lowest) for i, end in zip(front, ends, strict=False))


def _checked(costs: Sequence[float], scores: Sequence[float]) -> Sequence[float]:
    if len(costs) != len(scores):
        raise ValueError(f"there are {len(costs)} costs but {len(scores)} scores; expected one of each a network")
    for name, values in (("cost", costs), ("score", scores)):
        for value in values:
            if not math.isfinite(value):
                raise ValueError(f"a {name} is {value!r}; leave networks out that failed, or could not be counted")
    return costs
