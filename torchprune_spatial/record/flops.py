"""FLOPs and parameters of a network by module; the FLOPs are those of the cost model of `resolution_scaling`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.nn as nn

from resolution_scaling.cost.tracing import trace
from resolution_scaling.ground.calls import Forward, call_model


def flops_by_module(model: nn.Module, example_inputs: Any, forward: Forward = call_model) -> Counter[str]:
    """Floating-point operations of one forward pass in evaluation mode, by the name of the module.

    Convolutions and matrix products (also those of attention) are counted, with a multiplication and an addition as
    two operations. Norms, activations and other element-wise operations are not counted. The number of a module
    includes those of its children; ``""`` is the whole network.

    Args:
        model: the network, on any device. It is not run.
        example_inputs: as for Torch-Pruning. The count is for this batch and size.
        forward: ``(model, inputs)`` -> outputs.

    Raises:
        ValueError: the network looks at the values of tensors.
    """
    flops: Counter[str] = Counter()
    for operator in trace(model, example_inputs, forward).operators:
        flops.update(dict.fromkeys({"", *operator.modules}, operator.flops))
    return flops


def parameters_by_module(model: nn.Module) -> dict[str, int]:
    """The number of parameters of each module, including those of its children, by the name of the module.

    What a module holds several times counts once. ``""`` is the whole network.
    """
    found: dict[str, dict[nn.Parameter, int]] = {name: {} for name, _ in model.named_modules()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        while name:
            name = name.rpartition(".")[0]
            if name in found:
                found[name][parameter] = parameter.numel()
    return {name: sum(counts.values()) for name, counts in found.items()}
