"""NNI 3.0's evaluator, made from a user's AutoCompress class, whose trainers have the form of NNI 2.10.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import nni
import torch
import torch.nn as nn
from nni.compression.utils import TorchEvaluator

from ..module_class import ModuleClass, Trainer, name_of


class _EnoughSteps(Exception):
    """Ends a trainer in the middle of an epoch."""


def torch_evaluator(
    module_class: ModuleClass,
    network: nn.Module,
    factory: Callable[..., Any],
    criterion: Callable[..., Any],
    trainer: Trainer | None,
) -> TorchEvaluator:
    """An evaluator that trains by the trainer of a user's class.

    NNI 3.0 changes the loss for some algorithms. The trainer gets the changed loss as its ``criterion``.

    Args:
        module_class: the user's class; its ``evaluator()`` is NNI's evaluation function.
        network: the network. The optimizer that NNI makes has the class and the parameter groups of the one that
            ``factory`` makes.
        factory: makes an optimizer for parameters.
        criterion: the loss.
        trainer: trains one epoch: ``(model, optimizer, criterion, epoch)``; None for algorithms that do not train.
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
                cast(Trainer, trainer)(model, optimizer=optimizer, criterion=loss, epoch=epoch)
                if steps == before:
                    raise RuntimeError(
                        f"the trainer of {name_of(module_class)} made no optimizer.step() in epoch {epoch}"
                    )
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
    return TorchEvaluator(
        train, optimizer, lambda batch, model: criterion(*batch), evaluating_func=module_class.evaluator()
    )
