"""The criteria that the recipes compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

import torchprune_spatial  # noqa: F401  registers the criteria on tp.importance

CRITERIA: dict[str, Callable[[Iterable], tp.importance.Importance]] = {
    "random": lambda loader: tp.importance.RandomImportance(),
    "weight_sum": lambda loader: tp.importance.WeightSumImportance(group_reduction="first"),
    "apoz": lambda loader: tp.importance.APoZImportance(loader),
    "mean_activation": lambda loader: tp.importance.MeanActivationImportance(loader),
    "thinet": lambda loader: tp.importance.ThiNetImportance(loader),
    "taylor": lambda loader: tp.importance.GroupTaylorImportance(),
    "spatial_mask": lambda loader: tp.importance.SpatialMaskImportance(loader, threshold=0.5),
}
"""The six of the paper (its "Mean-mean" is the mean activation), and Taylor."""


def backward(network: nn.Module, calibration: Iterable, device: torch.device) -> None:
    """Gradients of the loss, summed over the calibration batches."""
    for inputs, targets, *_ in calibration:
        F.binary_cross_entropy_with_logits(network(inputs.to(device)), targets.to(device)).backward()
