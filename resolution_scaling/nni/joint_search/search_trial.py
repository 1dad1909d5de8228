"""One trial of a joint search: limits, pruning, scaling, fine-tuning, evaluation. NNI is not needed for it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch._dynamo  # PyTorch loads it when costs are first counted: not in the time of a trial
import torch.nn as nn

from ..algorithms.module_class import ModuleClass, dummy_input_of, name_of
from ..algorithms.registry import find_algorithm
from ..experiment.results import PointRecord
from .fitted_input import fit_images
from .limits import METRICS, count_costs, outline_costs, violation
from .search_space import Trial


def run_trial(
    module_class: ModuleClass,
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
    """Measure the network that a tuner asked for.

    A network that exceeds the limits is not trained. It is not even pruned, if the criterion knows the costs before. A
    point that an earlier trial measured (tuners repeat points) returns the metrics of that trial.

    Args:
        module_class: the user's AutoCompress class.
        parameters: a point of `search_space`.
        config_list: the layers to prune, in NNI's form, without the ratio.
        limits: by name of `COSTS`.
        unchanged: costs and ``"score"`` of the network before any change.
        reward_for_halving: see `score_of`.
        imports: modules that register algorithms.
        record: file of the points that were measured (`PointRecord`), which several searches can share.
        seed: of PyTorch's random numbers.

    Returns:
        Metrics: ``"default"``, the score; ``"feasible"``, whether the limits hold; ``"accuracy"``, the evaluator's
        number, only if feasible; the costs, under `METRICS`; ``"seconds"``; ``"repeated"``, whether an earlier trial
        measured the point.

    Raises:
        ValueError, TypeError: an algorithm is unknown, the network cannot be changed so, the evaluator gives no number.
    """
    start, trial = time.perf_counter(), Trial.of(parameters)
    layers = trial.config_list(config_list)
    what = [dataclasses.asdict(trial), layers, dict(limits), dict(unchanged), dict(reward_for_halving), seed]
    point, points = json.dumps(what, sort_keys=True), None if record is None else PointRecord(record)
    if points is not None and (earlier := points.find(point)) is not None:
        return earlier | {"repeated": True}
    _prepare(imports, seed)
    model = module_class.model()
    costs = outline_costs(model, trial, module_class, layers) if limits else None
    if costs is None or not violation(costs, limits):
        model = compress(model, trial, module_class, layers)
        costs = count_costs(model, dummy_input_of(module_class))
    feasible = not violation(costs, limits)
    metrics: dict[str, Any] = {"feasible": feasible}
    if feasible:
        _fine_tune(module_class, model, trial)
        metrics["accuracy"] = evaluate(module_class, model)
        metrics["default"] = score_of(metrics["accuracy"], costs, unchanged, reward_for_halving)
    else:
        metrics["default"] = penalty(violation(costs, limits), unchanged["score"])
    metrics |= {METRICS[name]: cost for name, cost in costs.items()}
    metrics |= {"repeated": False, "seconds": round(time.perf_counter() - start, 3)}
    if points is not None:
        points.append(point, metrics)
    return metrics


def rebuild(
    module_class: ModuleClass,
    parameters: Mapping[str, Any],
    *,
    config_list: Sequence[Mapping[str, Any]],
    imports: Sequence[str] = (),
    seed: int = 0,
) -> nn.Module:
    """Make the network of a trial again: prune, scale, train. The arguments are those of `run_trial`."""
    _prepare(imports, seed)
    trial = Trial.of(parameters)
    model = compress(module_class.model(), trial, module_class, trial.config_list(config_list))
    _fine_tune(module_class, model, trial)
    return model


def compress(model: nn.Module, trial: Trial, module_class: ModuleClass, config_list: list[dict[str, Any]]) -> nn.Module:
    """Prune a network, then scale its resolution.

    The order matters: to remove what it prunes, NNI traces the network, and it cannot trace a transformer that accepts
    images of another size than it was built for.

    Args:
        model: the network.
        trial: what to do to it.
        module_class: the user's AutoCompress class.
        config_list: the layers to prune, with their ratios.

    Returns:
        The network. It accepts images of the size that it accepted before.
    """
    if trial.prunes:
        model = find_algorithm(trial.criterion).compress(model, config_list, module_class, **trial.options)
    if trial.sizes:
        model = find_algorithm("resolution").compress(model, [], module_class, **trial.sizes)
        model = fit_images(model, trial.sizes)
    return model


def score_of(
    accuracy: float, costs: Mapping[str, float], unchanged: Mapping[str, float], reward_for_halving: Mapping[str, float]
) -> float:
    """The score of a network: its accuracy, plus a reward for each halving of a cost of the unchanged network."""
    return accuracy + math.fsum(
        reward * math.log2(unchanged[cost] / max(1, costs[cost])) for cost, reward in reward_for_halving.items()
    )


def penalty(violation: float, unchanged_score: float) -> float:
    """The score of a network that exceeds the limits: finite, below useful scores, lower the more it exceeds them."""
    return -max(1.0, 3 * abs(unchanged_score)) * (1 + min(violation, 1e6))


def fine_tune(module_class: ModuleClass, model: nn.Module, algorithm: str) -> None:
    """Train by the user's trainer for an algorithm, with a new optimizer, and arguments by position, as NNI does.

    Raises:
        TypeError: there is a trainer, and no optimizer.
    """
    trainer = module_class.post_compress_finetuning_trainer(algorithm)
    epochs = module_class.post_compress_finetuning_epochs(algorithm)
    if trainer is None or not epochs:
        return
    factory = module_class.optimizer_factory()
    if factory is None:
        raise TypeError(f"{name_of(module_class)}.optimizer_factory() gave None, but there is a fine-tuning trainer")
    optimizer = factory(model.parameters())
    for epoch in range(epochs):
        trainer(model, optimizer, module_class.criterion(), epoch)


def evaluate(module_class: ModuleClass, model: nn.Module) -> float:
    """The number that the user's evaluator gives a network.

    Raises:
        TypeError: it gives something else.
        ValueError: it gives NaN or infinity.
    """
    accuracy = module_class.evaluator()(model)
    if isinstance(accuracy, torch.Tensor) and accuracy.numel() == 1:
        accuracy = accuracy.item()
    if isinstance(accuracy, (str, bytes, bool)) or not hasattr(accuracy, "__float__"):
        raise TypeError(f"{name_of(module_class)}.evaluator() gave {accuracy!r}; expected a number, higher is better")
    if not math.isfinite(accuracy):
        raise ValueError(f"{name_of(module_class)}.evaluator() gave {accuracy!r}; expected a finite number")
    return float(accuracy)


def _fine_tune(module_class: ModuleClass, model: nn.Module, trial: Trial) -> None:
    """Train for the criterion, or for ``'resolution'`` if nothing is pruned. An unchanged network is not trained."""
    if trial.prunes or trial.sizes:
        fine_tune(module_class, model, trial.criterion if trial.prunes else "resolution")


def _prepare(imports: Sequence[str], seed: int) -> None:
    for name in imports:
        importlib.import_module(name)
    torch.manual_seed(seed)
