"""The criteria that recipes compare, by name: those of the library's registry, and others of Torch-Pruning.

A criterion of one's own is a class in a file of one's own, which registers it; ``--import FILE`` then makes its name
known to ``--criteria``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from torchprune_spatial import CalibratedImportance
from torchprune_spatial.criteria.registry import CRITERIA

Criterion = Callable[[nn.Module, Iterable], tp.importance.Importance]
"""Makes an importance of a network to prune and batches ``(inputs, targets)`` or ``(inputs, targets, masks)``.

It may leave gradients in the network."""

OPTIONS: dict[str, dict[str, Any]] = {"weight_sum": {"group_reduction": "first"}}
"""Arguments of registered criteria that differ from their defaults, by name: the paper sums the filters alone."""


def taylor(network: nn.Module, batches: Iterable) -> tp.importance.Importance:
    """Torch-Pruning's Taylor importance, from the gradient of the loss over all batches."""
    for inputs, targets, *_ in batches:
        _loss(network, inputs, targets).backward()
    return tp.importance.GroupTaylorImportance()


def hessian(network: nn.Module, batches: Iterable) -> tp.importance.Importance:
    """Torch-Pruning's Hessian importance, from the squared gradient of each image.

    The squares are summed here, because ``accumulate_grad`` of Torch-Pruning 1.6.1 keeps those of the last image alone.
    """
    squares = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    for inputs, targets, *_ in batches:
        for image, target in zip(inputs.split(1), targets.split(1), strict=True):
            network.zero_grad()
            _loss(network, image, target).backward()
            for parameter, total in squares.items():
                total += parameter.grad.square()
    for parameter, total in squares.items():
        parameter.grad = total
    return tp.importance.GroupHessianImportance()


def _loss(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    device = next(network.parameters()).device
    return F.binary_cross_entropy_with_logits(network(inputs.to(device)), targets.to(device))


PAPERS = ("random", "weight_sum", "apoz", "mean_activation", "thinet", "taylor", "spatial_mask")
"""The six criteria of the spatial-mask paper (its "Mean-mean" is the mean activation), and Taylor."""
OF_TORCH_PRUNING: dict[str, Criterion] = {
    "random": lambda network, batches: tp.importance.RandomImportance(),
    "taylor": taylor,
    "hessian": hessian,
    "fpgm": lambda network, batches: tp.importance.FPGMImportance(),
    "group_norm": lambda network, batches: tp.importance.GroupMagnitudeImportance(),
    "bn_scale": lambda network, batches: tp.importance.BNScaleImportance(),
}
"""Torch-Pruning's own. ``bn_scale`` needs batch norms, and makes sense after sparse training only."""


def all_criteria() -> dict[str, Criterion]:
    """Every criterion by name; those of the registry as it is now."""
    return OF_TORCH_PRUNING | {name: _registered(name, kind) for name, kind in CRITERIA.items()}


def _registered(name: str, kind: type) -> Criterion:
    options = OPTIONS.get(name, {})
    if issubclass(kind, CalibratedImportance):
        return lambda network, batches: kind(batches, **options)
    return lambda network, batches: kind(**options)
