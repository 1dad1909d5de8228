"""The quantities that a budget can limit, and the functions that count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn as nn

from resolution_scaling.ground.arguments import real_number

from ..calibration.batches import Forward
from ..record.flops import flops_by_module, parameters_by_module

Count = Callable[[nn.Module, Any, Forward], Mapping[str, float]]
"""``(model, example_inputs, forward)`` -> the cost of each module, by name; ``""`` is the network.

The model may be on the meta device: a count may use the shapes of tensors, but not their values."""


def count_parameters(model: nn.Module, example_inputs: Any, forward: Forward) -> dict[str, int]:
    """Count the parameters of each module, including those of its children."""
    return parameters_by_module(model)


LIMITS: dict[str, Count] = {"compression": count_parameters, "speedup": flops_by_module}
"""What `prune_to` can limit. The count before pruning, divided by the count after it, must reach the limit.

A new kind of budget needs one more entry here, and one more argument of `prune_to`."""


def checked_limits(limits: Mapping[str, float | None]) -> dict[str, float]:
    """Check the limits, and return those that are not None.

    Raises:
        TypeError, ValueError: all are None, or one is not a number above 1.
    """
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        raise ValueError(
            "prune_to needs a target: pass compression=... or speedup=..., such as compression=20, or both"
        )
    return {name: real_number(value, name, above=1, example=f"{name}=4") for name, value in given.items()}
