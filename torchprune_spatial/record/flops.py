"""FLOPs of a network by module, from the cost model of `resolution_scaling`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.nn as nn

from resolution_scaling.cost.tracing import trace
from resolution_scaling.ground.meta import call_on_meta, meta_copy

from ..calibration.batches import Forward, call_model

__all__ = ["call_on_meta", "count_flops", "meta_copy"]


def count_flops(model: nn.Module, example_inputs: Any, forward: Forward = call_model) -> Counter[str]:
    """Floating-point operations of one forward pass in evaluation mode, by the name of the module that does them.

    Convolutions and matrix products (also those of attention) count, a multiplication and an addition as two; norms,
    activations and other element-wise work do not. A module counts what its children do; ``""`` is the network.

    Args:
        model: the network; it is not run, and may be on any device.
        example_inputs: as for Torch-Pruning; the count is for this batch and size.
        forward: ``(model, inputs)`` -> outputs.

    Raises:
        ValueError: the network looks at the values of tensors.
    """
    flops: Counter[str] = Counter()
    for operator in trace(model, example_inputs, forward).operators:
        flops.update(dict.fromkeys({"", *operator.modules}, operator.flops))
    return flops
