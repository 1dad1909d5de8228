"""What a network computes, operation by operation: its numbers must be the same after channels have been removed.

Code can compute numbers from its numbers of channels in ways that no one can follow, as in ``1.0 / x.shape[1]``, or
take another branch. This shows when the operations of two forward passes are compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

OF_VALUES = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "_unique2", "unique_dim")
"""Operations with which code depends on values: it may run otherwise with any other weights."""

VALUED = ("Tensor", "Optional[Tensor]", "number", "Optional[number]", "float", "Optional[float]")
"""Types of arguments in which numbers are values, not sizes or dimensions."""


ANY_SHAPE = ("mm", "bmm", "addmm", "baddbmm", "add", "mul", "sum", "clone", "_to_copy", "copy", "_unsafe_view", "empty")
"""Operations that PyTorch replaces by each other, or leaves out, if a size is 1: only their numbers count."""


@dataclass(frozen=True)
class Step:
    """An operation.

    Attributes:
        name: its name.
        values: the numbers among its arguments that are not sizes.
    """

    name: str
    values: tuple[float, ...]


def steps_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], of_sum: bool) -> list[Step]:
    """An operation as a step; none if it says nothing.

    Args:
        function, args, kwargs: the operation and its arguments.
        of_sum: whether it computes with a sum over channels. If this is divided by their number, it is an average.
    """
    name, of_values = _signature(function)
    given = [value for of_value, value in zip(of_values.values(), args, strict=False) if of_value]
    given += [value for key, value in kwargs.items() if of_values[key]]
    if name == "native_group_norm":
        channels, groups = args[4], args[6]
        given.append(groups % channels)  # zero where each channel is a group
    values = [float(value) for value in given if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if of_sum or (not values and (function.is_view or base_name(name) in ANY_SHAPE)):
        return []
    return [Step(name, tuple(values))]


@cache
def _signature(function: Any) -> tuple[str, dict[str, bool]]:
    """The name of an operation without its namespace, and which of its arguments are values if they are numbers."""
    name = function._schema.name.split("::")[1]
    return name, {argument.name: str(argument.type) in VALUED for argument in function._schema.arguments}


def base_name(name: str) -> str:
    """The name of an operation without the underscore of its in-place form."""
    return name if name.startswith("__") else name.rstrip("_")


def depends_on_values(steps: Sequence[Step]) -> bool:
    """Whether the code looks at values of tensors, so that it may run otherwise with any other weights."""
    return any(step.name in OF_VALUES for step in steps)


def of_code(steps: Sequence[Step], others: Sequence[Step]) -> list[Step]:
    """The steps without the numbers of operations that have others with other weights: nan stands for them.

    Such numbers can be equal by chance, so that all of an operation are left out.

    Args:
        steps: what the network computes.
        others: what it computes with other weights.
    """
    counts, other_counts = Counter(steps), Counter(others)
    of_values = {step.name for step in counts | other_counts if counts[step] != other_counts[step]}
    return [Step(s.name, (math.nan,) * len(s.values)) if s.name in of_values else s for s in steps]


def difference(before: Sequence[Step], after: Sequence[Step], ratios: Sequence[float]) -> str:
    """What is computed otherwise, in words; empty if nothing is.

    Args:
        before, after: the steps of two forward passes; numbers that are nan before are not compared.
        ratios: by which numbers may have changed, because weights make up for that.
    """
    allowed = [ratio**power for ratio in (1.0, *ratios) for power in (1, 0.5, -1)]  # attention takes roots
    if [step.name for step in before] != [step.name for step in after]:
        return "" if depends_on_values(before) else "without it, the code runs otherwise"
    for one, other in zip(before, after, strict=True):
        if len(one.values) != len(other.values):
            return "without it, the code runs otherwise"
        for old, new in zip(one.values, other.values, strict=True):
            alone = one.name == "native_group_norm" and new == 0  # a channel is left of each group
            same = old == new or math.isnan(old) or alone
            if not same and not any(math.isclose(new, old * ratio, rel_tol=1e-6) for ratio in allowed):
                return f"the code computes with its number ({one.name} with {old:g}, then {new:g})"
    return ""
