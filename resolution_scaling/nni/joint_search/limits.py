"""What a network costs, and by how much that breaks the limits of a search, before any weight is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from ...cost.profiling import profile
from ...ground.meta import meta_copy
from ..algorithms.registry import find_algorithm
from .fitted_input import fit_images
from .search_space import Trial

COSTS = ("flops", "memory_bytes", "peak_bytes", "parameters")
"""What a limit can be put on: FLOPs, weights and largest operator, peak of the activations (see `profile`), weights."""

METRICS = {cost: "parameter_count" if cost == "parameters" else cost for cost in COSTS}
"""Costs as trials report them: ``"parameters"`` are, in NNI's metrics, those that the tuner chose."""


def count_costs(model: nn.Module, inputs: Any) -> dict[str, int]:
    """What one forward pass costs, and the number of parameters, from shapes alone; by name of `COSTS`.

    Args:
        model: the network, on any device.
        inputs: example inputs: costs are of this batch.
    """
    report = profile(model, inputs)
    return {
        "flops": report.flops,
        "memory_bytes": report.memory_bytes,
        "peak_bytes": report.peak_bytes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def outline_costs(
    model: nn.Module, trial: Trial, module: type[Any], config_list: list[dict[str, Any]]
) -> dict[str, int] | None:
    """What a network would cost after a trial's pruning and scaling, told without doing either.

    Args:
        model: the network, which stays as it is.
        trial: what would be done to it.
        module: the user's AutoCompress class.
        config_list: which layers are pruned, and how much of them.

    Returns:
        As `count_costs`; None where the criterion cannot tell before it has pruned, as NNI's own pruners.

    Raises:
        TypeError, ValueError: the network cannot be pruned or scaled so.
    """
    (draft,) = meta_copy(model)
    if trial.prunes:
        criterion = find_algorithm(trial.criterion)
        if criterion.outline is None:
            return None
        draft = criterion.outline(draft, config_list, module, **trial.options)
        if draft is None:
            return None
    if trial.sizes:
        outline: Any = find_algorithm("resolution").outline
        draft = fit_images(outline(draft, [], module, **trial.sizes), trial.sizes)
    return count_costs(draft, module.dummy_input())


def violation(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """By what share the limits are exceeded, added up; 0 where all hold."""
    return math.fsum(max(0.0, costs[name] / limit - 1) for name, limit in limits.items())


def check_limits(limits: Mapping[str, float] | None) -> dict[str, float]:
    """The limits of a search, if they are usable.

    Raises:
        ValueError: one is on something else than `COSTS`, or is no number above 0.
    """
    for name, limit in (limits or {}).items():
        if name not in COSTS:
            raise ValueError(f"limits has the key {name!r}; expected one of {', '.join(map(repr, COSTS))}")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf:
            raise ValueError(f"limits[{name!r}] is {limit!r}; expected a number above 0")
    return dict(limits or {})
