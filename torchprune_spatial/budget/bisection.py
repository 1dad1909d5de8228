"""A search for the fewest steps that reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable


def fewest_steps(most: int, excess: Callable[[int], float], tolerance: float) -> int:
    """Find the smallest N for which N steps reach the target.

    Args:
        most: the number of steps that can be taken.
        excess: gives how far N steps exceed the target, as a share of it. It must grow with N, and is negative where
            the target is missed. It is called for few values of N, for some of them repeatedly.
        tolerance: the excess, positive or negative, that counts as near enough.

    Returns:
        The smallest N whose excess is not negative. If that N exceeds the target by more than the tolerance, and N - 1
        misses it by no more than the tolerance, N - 1. If all the steps miss the target, their number.
    """
    below, steps, width = 0, most, math.inf
    if excess(steps) < 0:
        return steps
    while steps - below > 1 and excess(steps) > tolerance / 10:
        # Costs fall roughly with the square of the channels that are left. Interpolate accordingly; halve the interval
        # where the last interpolation shortened it too little.
        ends = [(1 + excess(end)) ** -0.5 for end in (below, steps)]
        aim = (1 + tolerance / 20) ** -0.5
        share = (ends[0] - aim) / (ends[0] - ends[1]) if 2 * (steps - below) <= width else 0.5
        width = steps - below
        middle = min(max(below + round(share * width), below + 1), steps - 1)
        below, steps = (middle, steps) if excess(middle) < 0 else (below, middle)
    return below if excess(steps) > tolerance and excess(below) >= -tolerance else steps
