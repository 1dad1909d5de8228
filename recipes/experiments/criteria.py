"""The criteria that the recipes compare: each a function of the network to prune and of its calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

import torchprune_spatial  # noqa: F401  registers the criteria on tp.importance

Criterion = Callable[[nn.Module, Iterable], tp.importance.Importance]
"""``(network, batches)`` -> its importance.

Batches are ``(inputs, targets)`` or ``(inputs, targets, masks)``. The network may be left with gradients."""


def taylor(network: nn.Module, batches: Iterable) -> tp.importance.Importance:
    """Torch-Pruning's, from the gradient of the loss over all the batches."""
    for inputs, targets, *_ in batches:
        _loss(network, inputs, targets).backward()
    return tp.importance.GroupTaylorImportance()


def hessian(network: nn.Module, batches: Iterable) -> tp.importance.Importance:
    """Torch-Pruning's, from the squared gradients of the images.

    They are summed here: Torch-Pruning 1.6.1's own ``accumulate_grad`` holds those of the last image alone.
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


CRITERIA: dict[str, Criterion] = {
    "random": lambda network, loader: tp.importance.RandomImportance(),
    "weight_sum": lambda network, loader: tp.importance.WeightSumImportance(group_reduction="first"),
    "apoz": lambda network, loader: tp.importance.APoZImportance(loader),
    "mean_activation": lambda network, loader: tp.importance.MeanActivationImportance(loader),
    "thinet": lambda network, loader: tp.importance.ThiNetImportance(loader),
    "taylor": taylor,
    "spatial_mask": lambda network, loader: tp.importance.SpatialMaskImportance(loader, threshold=0.5),
}
"""The six of the spatial-mask paper (its "Mean-mean" is the mean activation), and Taylor."""
RIVALS: dict[str, Criterion] = {
    "hessian": hessian,
    "fpgm": lambda network, loader: tp.importance.FPGMImportance(),
    "group_norm": lambda network, loader: tp.importance.GroupMagnitudeImportance(),
    "bn_scale": lambda network, loader: tp.importance.BNScaleImportance(),
}
"""More of Torch-Pruning's, for the study. BN scale needs batch norms, and means something after sparse training."""
