"""One trial of an AutoCompress search: compress as the tuner says, fine-tune, evaluate, count what is left."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn

from ..algorithms.pruners import FINE_TUNED
from ..algorithms.registry import dummy_input_of, find_algorithm
from ..joint_search.limits import METRICS, count_costs
from ..joint_search.search_trial import fine_tune
from .compact_space import decode


def compress_and_evaluate(module: Any, parameters: Mapping[str, Any], *, imports: Sequence[str] = ()) -> dict[str, Any]:
    """What NNI 2.10.1's engine does in a trial; the same on 3.0.

    Args:
        module: the user's AutoCompress class.
        parameters: what the tuner chose in the space of `AutoCompressionSearchSpaceGenerator`.
        imports: modules in which algorithms of others are registered.

    Returns:
        Metrics: ``"default"``, what the evaluator gave; and, if the class has a ``dummy_input``, ``"flops"``,
        ``"parameter_count"``, ``"memory_bytes"`` and ``"peak_bytes"`` for it. Of quantized networks only the first two,
        which quantization leaves as they are.
    """
    for name in imports:
        importlib.import_module(name)
    choice = parameters["algorithm_name"]
    algorithm = find_algorithm(choice["_name"])
    config_list, options = decode(choice)
    model = module.model()
    quantized = _costs(module, model) if algorithm.name in FINE_TUNED else None
    network = algorithm.compress(model, config_list, module, **options)
    if quantized is None:
        fine_tune(module, network, algorithm.name)
        costs = _costs(module, network)
    else:
        costs = {name: value for name, value in quantized.items() if name in ("flops", "parameter_count")}
    score = module.evaluator()(network)
    return (dict(score) if isinstance(score, Mapping) else {"default": score}) | costs


def _costs(module: Any, network: nn.Module) -> dict[str, Any]:
    """Costs, where they can be counted: not of networks that look at the values of tensors."""
    if (example := dummy_input_of(module)) is None:
        return {}
    try:
        return {METRICS[name]: value for name, value in count_costs(network, example).items()}
    except (ValueError, TypeError, RuntimeError) as error:
        return {"costs_unknown": str(error)[:500]}
