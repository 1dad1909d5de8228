"""The class that a user of AutoCompress writes: what a search calls on it, and what it must have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch.nn as nn
from torch.optim import Optimizer

Trainer = Callable[..., None]
"""Trains one epoch: ``(model, optimizer, criterion, epoch)``.

NNI 2.10.1 passes all but the first by name while it prunes, and by position while it fine-tunes. So the arguments need
these names and this order.
"""


class ModuleClass(Protocol):
    """The user's AutoCompress class itself, not an instance: searches call its class methods.

    It need not derive from `AbstractAutoCompressionModule`. Two more class methods are optional: ``dummy_input()``, see
    `dummy_input_of`, and ``calibration_loader()``: batches of ``(input, target)`` for criteria that look at data.
    """

    def model(self) -> nn.Module:
        """The network to compress, with its weights."""

    def evaluator(self) -> Callable[[nn.Module], Any]:
        """A function that evaluates a compressed network; it returns one number."""

    def optimizer_factory(self) -> Callable[[Iterable[Any]], Optimizer] | None:
        """A function that makes an optimizer for ``model.parameters()``; None if nothing is trained."""

    def criterion(self) -> Callable[..., Any] | None:
        """The loss of training; None if nothing is trained."""

    def sparsifying_trainer(self, compress_algorithm_name: str, /) -> Trainer | None:
        """Trains one epoch for algorithms that learn what to prune (``'slim'``, ``'taylorfo'``, ...)."""

    def post_compress_finetuning_trainer(self, compress_algorithm_name: str, /) -> Trainer | None:
        """Trains one epoch after compression; None for no fine-tuning."""

    def post_compress_finetuning_epochs(self, compress_algorithm_name: str, /) -> int:
        """The number of epochs of fine-tuning."""


CLASS_METHODS = (
    "model",
    "evaluator",
    "optimizer_factory",
    "criterion",
    "sparsifying_trainer",
    "post_compress_finetuning_trainer",
    "post_compress_finetuning_epochs",
)
"""The class methods that every user's class must have."""


def name_of(module_class: object) -> str:
    """The name of a user's class, for messages."""
    return getattr(module_class, "__name__", repr(module_class))


def check_module_class(module_class: Any) -> None:
    """Check that a user's class has what trials will call.

    Raises:
        TypeError: it is no class, or lacks a class method.
    """
    if not inspect.isclass(module_class):
        raise TypeError(f"module_class is {module_class!r}; expected your class itself: trials use its class methods")
    abstract = getattr(module_class, "__abstractmethods__", ())
    for name in CLASS_METHODS:
        if name in abstract or not callable(getattr(module_class, name, None)):
            raise TypeError(
                f"{name_of(module_class)} lacks the class method {name}(); it needs {', '.join(CLASS_METHODS)}"
            )


def dummy_input_of(module_class: Any, reason: str | None = None) -> Any:
    """The example inputs of a user's network: one input with the batch first, or several.

    NNI traces the network with them to remove pruned channels, and costs are counted for them. Without them only
    ``'level'``, most quantizers and ``'resolution'`` can be searched.

    Args:
        module_class: the user's AutoCompress class.
        reason: what needs the example inputs, as the rest of a sentence: ``"'l1' needs to speed the network up"``.
            None if they are optional.

    Returns:
        What ``module_class.dummy_input()`` gives; None without that class method.

    Raises:
        TypeError: a reason is given, and there is no ``dummy_input()``.
    """
    if callable(getattr(module_class, "dummy_input", None)) and (inputs := module_class.dummy_input()) is not None:
        return inputs
    if reason is None:
        return None
    raise TypeError(
        f"{name_of(module_class)} has no dummy_input(), which {reason}. Add to it:\n"
        "    @classmethod\n"
        "    def dummy_input(cls):\n"
        "        return torch.rand(1, 3, 224, 224)  # an input of the network"
    )


def training_needs(module_class: ModuleClass, algorithm: str) -> tuple[Callable[..., Any], Callable[..., Any], Trainer]:
    """Optimizer factory, criterion and sparsifying trainer of a user's class, for an algorithm that trains.

    Raises:
        TypeError: one of them is None.
    """
    needs: dict[str, Any] = {
        "optimizer_factory()": module_class.optimizer_factory(),
        "criterion()": module_class.criterion(),
        f"sparsifying_trainer({algorithm!r})": module_class.sparsifying_trainer(algorithm),
    }
    for name, value in needs.items():
        if value is None:
            raise TypeError(f"{name_of(module_class)}.{name} gave None, but {algorithm!r} trains before it prunes")
    return tuple(needs.values())
