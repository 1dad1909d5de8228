"""Gradient descent on a few parameters of a network, towards the outputs of a reference or towards labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from .resized_batches import ResizedBatch

Loss = Callable[[Any, Any], torch.Tensor]
"""``(output, target)`` -> scalar."""

MOMENTUM = 0.9


def descend(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    reference: nn.Module | None,
    batches: Iterable[ResizedBatch],
    *,
    epochs: int,
    lr: float,
    loss: Loss | None = None,
) -> None:
    """Train parameters in place by stochastic gradient descent with momentum 0.9. ``.grad`` is not touched.

    Args:
        model: the network, in evaluation mode; it reads the resized images.
        parameters: those of the model that are trained, by name.
        reference: its outputs for the full images are the targets; None takes the labels.
        batches: can be iterated again and again.
        epochs: passes over the batches.
        lr: the learning rate.
        loss: default: for logits ``[batch, classes, ...]``, divergence from the reference, or cross-entropy.

    Raises:
        ValueError: the loss became infinite or NaN.
    """
    loss = loss or (F.cross_entropy if reference is None else divergence)
    momenta = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for _ in range(epochs):
        for batch in batches:
            target = batch.labels if reference is None else reference(batch.full)
            gradients = _gradients(model, parameters, batch.resized, target, loss)
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                momenta[name].mul_(MOMENTUM).add_(gradient)
                parameter.sub_(lr * momenta[name])


def divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of classes ``[batch, classes, ...]`` from the target's, both as logits."""
    both = logits.log_softmax(1), target.log_softmax(1)
    return F.kl_div(*both, log_target=True, reduction="none").sum(1).mean()


def _gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], images: torch.Tensor, target: Any, loss: Loss
) -> tuple[torch.Tensor, ...]:
    """Gradients of the loss. ``requires_grad`` of the parameters is afterwards as it was."""
    required = [parameter.requires_grad for parameter in parameters.values()]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            value = loss(model(images), target)
            if not value.isfinite():
                raise ValueError(f"the loss became {value.item()}: lower lr, or check the images and targets")
            return torch.autograd.grad(value, list(parameters.values()))
    finally:
        for parameter, needed in zip(parameters.values(), required, strict=True):
            parameter.requires_grad_(needed)
