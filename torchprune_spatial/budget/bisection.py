"""The fewest steps that reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable


def fewest_steps(most: int, excess: Callable[[int], float], tolerance: float) -> int:
    """The fewest steps whose excess is not negative, or one step less where that is within the tolerance and they not.

    Args:
        most: the most steps that there are.
        excess: how far N steps lead beyond the target, as a share of it; it grows with N, and is negative where the
            target is not reached. Called with few of the numbers, more than once with some.
        tolerance: how far from the target is near enough.

    Returns:
        All the steps where even they do not reach the target.
    """
    below, steps, width = 0, most, math.inf
    if excess(steps) < 0:
        return steps
    while steps - below > 1 and excess(steps) > tolerance / 10:
        # What is left falls with the square of the channels, nearly; where that guess leads nowhere, halve.
        ends = [(1 + excess(end)) ** -0.5 for end in (below, steps)]
        aim = (1 + tolerance / 20) ** -0.5
        share = (ends[0] - aim) / (ends[0] - ends[1]) if 2 * (steps - below) <= width else 0.5
        width = steps - below
        middle = min(max(below + round(share * width), below + 1), steps - 1)
        below, steps = (middle, steps) if excess(middle) < 0 else (below, middle)
    return below if excess(steps) > tolerance and excess(below) >= -tolerance else steps
