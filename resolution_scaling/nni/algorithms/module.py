"""The class that a user of AutoCompress writes, as NNI 2.10.1 has it; NNI 3.0 dropped it, and gets it from here."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import nni
import torch.nn as nn
from torch.optim import Optimizer

from .registry import dummy_input_of

NNI_3 = int(nni.__version__.split(".")[0]) >= 3

Trainer = Callable[..., None]
"""``(model, optimizer, criterion, epoch)``. NNI 2.10.1 names all but the first while it prunes, and passes them by
position while it fine-tunes: give the arguments these names, in this order."""


if NNI_3:

    class AbstractAutoCompressionModule(ABC):
        """What a search needs to know, as class methods.

        One class serves both generations: on NNI 2.10.1 this is NNI's own, on 3.0, which has none, it is this one. Put
        yours in a file of its own in the trial code directory: trials import it. Two more class methods are optional:

        ``dummy_input()``: an input of the network, a tensor with the batch first. NNI traces the network with it to
        make pruned layers really smaller, and costs are counted for it. Without it only ``'level'``, most quantizers
        and ``'resolution'`` can be searched.

        ``calibration_loader()``: batches of ``(input, target)``, for criteria that look at activations.
        """

        @classmethod
        @abstractmethod
        def model(cls) -> nn.Module:
            """The network to compress, with its weights."""

        @classmethod
        @abstractmethod
        def evaluator(cls) -> Callable[[nn.Module], float]:
            """A function that tells how good a compressed network is: one number."""

        @classmethod
        @abstractmethod
        def optimizer_factory(cls) -> Callable[[Iterable[Any]], Optimizer] | None:
            """A function that makes an optimizer for ``model.parameters()``; None if nothing is trained."""

        @classmethod
        @abstractmethod
        def criterion(cls) -> Callable[..., Any] | None:
            """The loss of training; None if nothing is trained."""

        @classmethod
        @abstractmethod
        def sparsifying_trainer(cls, compress_algorithm_name: str) -> Trainer | None:
            """Trains one epoch for algorithms that learn what to prune (``'slim'``, ``'taylorfo'``, ...)."""

        @classmethod
        @abstractmethod
        def post_compress_finetuning_trainer(cls, compress_algorithm_name: str) -> Trainer | None:
            """Trains one epoch after compression; None for no fine-tuning."""

        @classmethod
        @abstractmethod
        def post_compress_finetuning_epochs(cls, compress_algorithm_name: str) -> int:
            """How many epochs of fine-tuning."""
else:
    from nni.algorithms.compression.pytorch.auto_compress import AbstractAutoCompressionModule  # type: ignore[no-redef]  # noqa: F401

METHODS = (
    "model",
    "evaluator",
    "optimizer_factory",
    "criterion",
    "sparsifying_trainer",
    "post_compress_finetuning_trainer",
    "post_compress_finetuning_epochs",
)


def check_module(module: Any) -> None:
    """See that a class has what trials will call. It need not derive from `AbstractAutoCompressionModule`.

    Raises:
        TypeError: it is no class, or lacks a method.
    """
    if not inspect.isclass(module):
        raise TypeError(f"auto_compress_module is {module!r}; expected your class itself: trials use its class methods")
    abstract = getattr(module, "__abstractmethods__", ())
    missing = [name for name in METHODS if name in abstract or not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(f"{module.__name__} lacks the class method {missing[0]}(); it needs {', '.join(METHODS)}")


def example_input(module: Any, reason: str) -> Any:
    """The ``dummy_input`` of a user's class.

    Raises:
        TypeError: it has none; the text says what it is needed for.
    """
    if (example := dummy_input_of(module)) is None:
        raise TypeError(
            f"{getattr(module, '__name__', module)} has no dummy_input(), which {reason}: add a class method that "
            "gives an input of the network, as torch.rand(1, 3, 224, 224)"
        )
    return example


def training_needs(module: Any, algorithm: str) -> tuple[Callable[..., Any], Callable[..., Any], Trainer]:
    """Optimizer factory, criterion and sparsifying trainer of a user's class, for an algorithm that trains.

    Raises:
        TypeError: one of them is None.
    """
    needs = {
        "optimizer_factory()": module.optimizer_factory(),
        "criterion()": module.criterion(),
        f"sparsifying_trainer({algorithm!r})": module.sparsifying_trainer(algorithm),
    }
    for name, value in needs.items():
        if value is None:
            raise TypeError(f"{module.__name__}.{name} gave None, but {algorithm!r} trains before it prunes")
    return tuple(needs.values())
