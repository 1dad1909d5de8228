"""One trial of a joint search: limits, pruning, scaling, fine-tuning, evaluation. Knows nothing of NNI."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch loads it when costs are first counted: not in the time of a trial
import torch.nn as nn

from ..algorithms.registry import find_algorithm
from .fitted_input import fit_images
from .limits import METRICS, count_costs, outline_costs, violation
from .search_space import Trial


def run_trial(
    module: type[Any],
    parameters: Mapping[str, Any],
    *,
    config_list: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
    unchanged: Mapping[str, float],
    reward_for_halving: Mapping[str, float],
    imports: Sequence[str] = (),
    record: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Do what a tuner asked for, and tell what came out.

    A point whose costs break the limits is not trained. It is not even pruned, where the criterion can tell the costs
    beforehand. A point that was tried before, which tuners do, gives the metrics that it gave then.

    Args:
        module: the user's AutoCompress class.
        parameters: a point of `search_space`.
        config_list: the layers to prune, in NNI's form, without the ratio.
        limits: by name of `COSTS`.
        unchanged: costs and ``"score"`` of the network as the class gives it.
        reward_for_halving: see `objective`.
        imports: modules in which algorithms register themselves.
        record: a file, a line of JSON a trial, in which points that were tried are looked up and written down.
        seed: of PyTorch's random numbers.

    Returns:
        Metrics: ``"default"``, the objective; ``"feasible"``; ``"accuracy"``, what the evaluator gave, only if
        feasible; the costs, under `METRICS`; ``"seconds"``; and ``"repeated"``, whether the point was tried before.

    Raises:
        ValueError, TypeError: an algorithm is unknown, the network cannot be changed so, the evaluator gives no number.
    """
    start, trial = time.perf_counter(), Trial.of(parameters)
    layers = trial.config_list(config_list)
    what = [dataclasses.asdict(trial), layers, dict(limits), dict(unchanged), dict(reward_for_halving), seed]
    key = json.dumps(what, sort_keys=True)
    if (earlier := _look_up(record, key)) is not None:
        return earlier | {"repeated": True}
    _prepare(imports, seed)
    model = module.model()
    costs = outline_costs(model, trial, module, layers) if limits else None
    if costs is None or not violation(costs, limits):
        model = compress(model, trial, module, layers)
        costs = count_costs(model, module.dummy_input())
    feasible = not violation(costs, limits)
    metrics: dict[str, Any] = {"feasible": feasible}
    if feasible:
        _fine_tune(module, model, trial)
        metrics["accuracy"] = evaluate(module, model)
        metrics["default"] = objective(metrics["accuracy"], costs, unchanged, reward_for_halving)
    else:
        metrics["default"] = penalty(violation(costs, limits), unchanged["score"])
    metrics |= {METRICS[cost]: value for cost, value in costs.items()}
    metrics |= {"repeated": False, "seconds": round(time.perf_counter() - start, 3)}
    _write_down(record, key, metrics)
    return metrics


def rebuild(
    module: type[Any],
    parameters: Mapping[str, Any],
    *,
    config_list: Sequence[Mapping[str, Any]],
    imports: Sequence[str] = (),
    seed: int = 0,
) -> nn.Module:
    """The network of a trial once more: pruned, scaled, trained. Arguments are those of `run_trial`."""
    _prepare(imports, seed)
    trial = Trial.of(parameters)
    model = compress(module.model(), trial, module, trial.config_list(config_list))
    _fine_tune(module, model, trial)
    return model


def compress(model: nn.Module, trial: Trial, module: type[Any], config_list: list[dict[str, Any]]) -> nn.Module:
    """Prune a network, then scale its resolution.

    In this order: to really remove what it prunes, NNI traces the network, and cannot trace a transformer that may take
    images of another size than it was built for.

    Args:
        model: the network.
        trial: what to do to it.
        module: the user's AutoCompress class.
        config_list: which layers are pruned, and how much of them.

    Returns:
        The network, which takes images of the size that it took before.
    """
    if trial.prunes:
        model = find_algorithm(trial.criterion).compress(model, config_list, module, **trial.options)
    if trial.sizes:
        model = find_algorithm("resolution").compress(model, [], module, **trial.sizes)
        model = fit_images(model, trial.sizes)
    return model


def objective(
    score: float, costs: Mapping[str, float], unchanged: Mapping[str, float], reward_for_halving: Mapping[str, float]
) -> float:
    """The score, and what the saved costs are worth: for each cost, so much every time that it is halved."""
    return score + math.fsum(
        reward * math.log2(unchanged[cost] / max(1, costs[cost])) for cost, reward in reward_for_halving.items()
    )


def penalty(violation: float, unchanged_score: float) -> float:
    """The objective of a point that breaks the limits: finite, lower the more it does, below any useful score."""
    return -max(1.0, 3 * abs(unchanged_score)) * (1 + min(violation, 1e6))


def fine_tune(module: type[Any], model: nn.Module, algorithm: str) -> None:
    """Train as the user's class says for an algorithm, with a new optimizer, and arguments by position, as NNI does.

    Raises:
        TypeError: there is a trainer, and no optimizer.
    """
    trainer, epochs = (
        module.post_compress_finetuning_trainer(algorithm),
        module.post_compress_finetuning_epochs(algorithm),
    )
    if trainer is None or not epochs:
        return
    factory = module.optimizer_factory()
    if factory is None:
        raise TypeError(f"{module.__name__}.optimizer_factory() gave None, but there is a fine-tuning trainer")
    optimizer = factory(model.parameters())
    for epoch in range(epochs):
        trainer(model, optimizer, module.criterion(), epoch)


def evaluate(module: type[Any], model: nn.Module) -> float:
    """What the user's evaluator says of a network.

    Raises:
        TypeError: that is no number.
        ValueError: it is NaN or infinite.
    """
    score = module.evaluator()(model)
    if isinstance(score, torch.Tensor) and score.numel() == 1:
        score = score.item()
    if isinstance(score, (str, bytes, bool)) or not hasattr(score, "__float__"):
        raise TypeError(f"{module.__name__}.evaluator() gave {score!r}; expected a number, higher is better")
    if not math.isfinite(score):
        raise ValueError(f"{module.__name__}.evaluator() gave {score!r}; expected a finite number")
    return float(score)


def _fine_tune(module: type[Any], model: nn.Module, trial: Trial) -> None:
    """For the criterion, or for ``'resolution'`` where nothing is pruned; an unchanged network is not trained."""
    if trial.prunes or trial.sizes:
        fine_tune(module, model, trial.criterion if trial.prunes else "resolution")


def _prepare(imports: Sequence[str], seed: int) -> None:
    for name in imports:
        importlib.import_module(name)
    torch.manual_seed(seed)


def _look_up(record: str | None, key: str) -> dict[str, Any] | None:
    """The metrics of an earlier trial of the same point. A line that a kill cut off is passed over."""
    if record is None or not Path(record).exists():
        return None
    for line in Path(record).read_text().splitlines():
        try:
            point, metrics = json.loads(line)
        except ValueError:
            continue
        if point == key:
            return metrics
    return None


def _write_down(record: str | None, key: str, metrics: dict[str, Any]) -> None:
    """One short write in append mode, on a line of its own also after one that a kill cut off."""
    if record is not None:
        with open(record, "a") as file:
            file.write(f"\n{json.dumps([key, metrics])}\n")
