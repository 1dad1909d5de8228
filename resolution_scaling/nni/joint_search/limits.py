"""What a network costs, and by how much that exceeds the limits of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from ...cost.profiling import profile
from ...ground.arguments import positive_number
from ...ground.meta import meta_copy
from ..algorithms.module_class import ModuleClass, dummy_input_of
from ..algorithms.registry import find_algorithm
from .fitted_input import fit_images
from .search_space import Trial

COSTS = ("flops", "memory_bytes", "peak_bytes", "parameters")
"""The costs that can be limited: FLOPs, bytes of the weights and the largest operator, peak bytes of the activations
(see `profile`), number of weights."""

METRICS = {cost: "parameter_count" if cost == "parameters" else cost for cost in COSTS}
"""The names under which trials report costs. In NNI's metrics ``"parameters"`` are those that the tuner chose."""


def count_costs(model: nn.Module, inputs: Any) -> dict[str, int]:
    """What one forward pass costs, and the number of parameters, by name of `COSTS`. Only shapes are looked at.

    Args:
        model: the network, on any device.
        inputs: example inputs: the costs are those of this batch.
    """
    report = profile(model, inputs)
    return {
        "flops": report.flops,
        "memory_bytes": report.memory_bytes,
        "peak_bytes": report.peak_bytes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def outline_costs(
    model: nn.Module, trial: Trial, module_class: ModuleClass, config_list: list[dict[str, Any]]
) -> dict[str, int] | None:
    """What a network would cost after a trial's pruning and scaling, from shapes alone.

    Args:
        model: the network; it is not changed.
        trial: what would be done to it.
        module_class: the user's AutoCompress class.
        config_list: the layers to prune, with their ratios.

    Returns:
        See `count_costs`; None for criteria whose result is known only after pruning, as NNI's own.

    Raises:
        TypeError, ValueError: the network cannot be pruned or scaled so.
    """
    (draft,) = meta_copy(model)
    if trial.prunes:
        criterion = find_algorithm(trial.criterion)
        if criterion.outline is None:
            return None
        draft = criterion.outline(draft, config_list, module_class, **trial.options)
        if draft is None:
            return None
    if trial.sizes:
        outline: Any = find_algorithm("resolution").outline
        draft = fit_images(outline(draft, [], module_class, **trial.sizes), trial.sizes)
    return count_costs(draft, dummy_input_of(module_class))


def violation(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """The shares by which costs exceed their limits, added up; 0 if all limits hold."""
    return math.fsum(max(0.0, costs[name] / limit - 1) for name, limit in limits.items())


def check_limits(limits: Mapping[str, float] | None) -> dict[str, float]:
    """The limits of a search, after a check.

    Raises:
        TypeError, ValueError: a key is not in `COSTS`, or a limit is not a number above 0.
    """
    for name, limit in (limits or {}).items():
        if name not in COSTS:
            raise ValueError(f"limits has the key {name!r}; expected one of {', '.join(map(repr, COSTS))}")
        positive_number(limit, f"limits[{name!r}]")
    return dict(limits or {})
