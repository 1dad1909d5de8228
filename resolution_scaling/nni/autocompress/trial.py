"""One trial of an AutoCompress search: compress as the tuner chose, fine-tune, evaluate, count the costs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn

from ..algorithms.module_class import ModuleClass, dummy_input_of
from ..algorithms.pruners import FINE_TUNED
from ..algorithms.registry import find_algorithm
from ..joint_search.limits import METRICS, count_costs
from ..joint_search.search_trial import fine_tune
from .compact_space import decode


def compress_and_evaluate(
    module_class: ModuleClass, parameters: Mapping[str, Any], *, imports: Sequence[str] = ()
) -> dict[str, Any]:
    """Do in a trial what NNI 2.10.1's engine does, on either generation.

    Args:
        module_class: the user's AutoCompress class.
        parameters: what the tuner chose in the space of `AutoCompressionSearchSpaceGenerator`.
        imports: modules that register algorithms which are not NNI's.

    Returns:
        Metrics: ``"default"``, the evaluator's number; and, if the class has a ``dummy_input``, ``"flops"``,
        ``"parameter_count"``, ``"memory_bytes"`` and ``"peak_bytes"`` for it. For quantized networks only the first two
        are counted, which quantization does not change.
    """
    for name in imports:
        importlib.import_module(name)
    choice = parameters["algorithm_name"]
    algorithm = find_algorithm(choice["_name"])
    config_list, options = decode(choice)
    model = module_class.model()
    quantized = _costs(module_class, model) if algorithm.name in FINE_TUNED else None
    network = algorithm.compress(model, config_list, module_class, **options)
    if quantized is None:
        fine_tune(module_class, network, algorithm.name)
        costs = _costs(module_class, network)
    else:
        costs = {name: cost for name, cost in quantized.items() if name in ("flops", "parameter_count")}
    score = module_class.evaluator()(network)
    return (dict(score) if isinstance(score, Mapping) else {"default": score}) | costs


def _costs(module_class: ModuleClass, network: nn.Module) -> dict[str, Any]:
    """Costs; ``"costs_unknown"``, the reason, for networks whose shapes depend on the values of tensors."""
    if (example := dummy_input_of(module_class)) is None:
        return {}
    try:
        return {METRICS[name]: cost for name, cost in count_costs(network, example).items()}
    except (ValueError, TypeError, RuntimeError) as error:
        return {"costs_unknown": str(error)[:500]}
