"""NNI 3.0's evaluator made from a user's AutoCompress class, whose trainers have the form of 2.10.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nni
import torch
import torch.nn as nn
from nni.compression.utils import TorchEvaluator

from .module import Trainer


class _EnoughSteps(Exception):
    """Leaves a trainer in the middle of its epoch."""


def torch_evaluator(
    module: Any, network: nn.Module, factory: Callable[..., Any], criterion: Callable[..., Any], trainer: Trainer
) -> TorchEvaluator:
    """An evaluator that trains by the trainer of a user's class.

    NNI 3.0 changes the loss of some algorithms; it reaches a trainer of 2.10.1 through its ``criterion``.

    Args:
        module: the user's class; its ``evaluator()`` is NNI's evaluation function.
        network: the network; the optimizer that NNI makes has the class and the groups of that of ``factory``.
        factory: makes an optimizer for parameters.
        criterion: the loss.
        trainer: trains one epoch: ``(model, optimizer, criterion, epoch)``.
    """

    def train(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        training_step: Callable[..., Any],
        lr_schedulers: Any = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        *rest: Any,
        **options: Any,
    ) -> None:
        def loss(*arguments: Any) -> torch.Tensor:
            return training_step(arguments, model)

        steps = 0

        def count(*ignored: Any) -> None:
            nonlocal steps
            if max_steps is not None and steps >= max_steps:
                raise _EnoughSteps
            steps += 1

        counting = optimizer.register_step_pre_hook(count)
        epoch = 0
        try:
            while (max_steps is None or steps < max_steps) and (max_epochs is None or epoch < max_epochs):
                before = steps
                trainer(model, optimizer=optimizer, criterion=loss, epoch=epoch)
                if steps == before:
                    raise RuntimeError(f"the trainer of {module.__name__} made no optimizer.step() in epoch {epoch}")
                epoch += 1
                if max_steps is None and max_epochs is None:
                    break
        except _EnoughSteps:
            pass
        finally:
            counting.remove()

    made = factory(network.parameters())
    groups = [dict(group) for group in made.param_groups]
    optimizer = nni.trace(type(made))(groups, lr=groups[0]["lr"])
    return TorchEvaluator(train, optimizer, lambda batch, model: criterion(*batch), evaluating_func=module.evaluator())
