"""What is checked before a search starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...ground.arguments import real_number
from ..algorithms.module_class import ModuleClass, dummy_input_of
from .limits import COSTS, count_costs, outline_costs, violation
from .search_space import Trial, corners
from .search_trial import evaluate


def check_rewards(reward_for_halving: Mapping[str, float] | None) -> dict[str, float]:
    """The rewards for halved costs, after a check.

    Raises:
        ValueError: a key is not in `COSTS`, or a reward is not a number of at least 0.
    """
    for cost, reward in (reward_for_halving or {}).items():
        if cost not in COSTS:
            raise ValueError(f"reward_for_halving has the key {cost!r}; expected {', '.join(map(repr, COSTS))}")
        real_number(reward, f"reward_for_halving[{cost!r}]", least=0)
    return dict(reward_for_halving or {})


def check_search(
    module_class: ModuleClass,
    space: Mapping[str, Any],
    config_list: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
) -> dict[str, float]:
    """Check that a search can succeed, as far as that is possible without a trial.

    Each resolution is tried on the meta device, and the unchanged network is evaluated once.

    Args:
        module_class: the user's AutoCompress class.
        space: the search space.
        config_list: the layers to prune, in NNI's form, without the ratio.
        limits: by name of `COSTS`.

    Returns:
        Costs and ``"score"`` of the unchanged network.

    Raises:
        TypeError, ValueError: a resolution is impossible, no network keeps the limits, the evaluator gives no number.
    """
    inputs = dummy_input_of(module_class, "a search counts costs for")
    model = module_class.model()
    unchanged = count_costs(model, inputs)
    for trial in _resolutions(space):
        try:
            outline_costs(model, trial, module_class, [])
        except (TypeError, ValueError) as error:
            given = ", ".join(f"{name}={side}" for name, side in trial.sizes.items())
            raise type(error)(f"{given} is impossible for {type(model).__name__}: {error}") from error
    smallest: dict[str, float] = dict.fromkeys(limits, math.inf)
    for parameters in corners(space) if limits else ():
        trial = Trial.of(parameters)
        costs = outline_costs(model, trial, module_class, trial.config_list(config_list))
        if costs is None or not violation(costs, limits):
            break
        smallest = {name: min(least, costs[name]) for name, least in smallest.items()}
    else:
        if limits:
            found = ", ".join(f"{name} {least:,.0f} (limit {limits[name]:,.0f})" for name, least in smallest.items())
            raise ValueError(
                f"limits cannot be kept by any network of the search; the least that was found: {found}. Raise the "
                "limits, prune more, or lower the resolution further"
            )
    return {**unchanged, "score": evaluate(module_class, model)}


def _resolutions(space: Mapping[str, Any]) -> list[Trial]:
    """Every combination of sizes, without pruning."""
    trials = []
    for option in space["resolution"]["_value"]:
        names = [name for name in option if name != "_name"]
        for values in itertools.product(*(option[name]["_value"] for name in names)):
            trials.append(Trial("none", None, {}, dict(zip(names, values, strict=True))))
    return [trial for trial in trials if trial.sizes]
