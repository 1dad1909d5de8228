"""The abstract class from which users derive theirs. NNI 3.0 dropped NNI 2.10.1's; this is the same for both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch.nn as nn
from torch.optim import Optimizer

from ..algorithms.generation import NNI_3
from ..algorithms.module_class import Trainer

if NNI_3:

    class AbstractAutoCompressionModule(ABC):
        """What a search needs to know about a network, as class methods.

        One class serves both generations: on NNI 2.10.1 this is NNI's own, on NNI 3.0 it is this one. Put your class in
        a file of its own in the trial code directory: trials import it. Two more class methods are optional:

        ``dummy_input()``: an input of the network, a tensor with the batch first. NNI traces the network with it to
        remove pruned channels, and costs are counted for it. Without it only ``'level'``, most quantizers and
        ``'resolution'`` can be searched.

        ``calibration_loader()``: batches of ``(input, target)``, for criteria that look at activations.
        """

        @classmethod
        @abstractmethod
        def model(cls) -> nn.Module:
            """The network to compress, with its weights."""

        @classmethod
        @abstractmethod
        def evaluator(cls) -> Callable[[nn.Module], float]:
            """A function that evaluates a compressed network; it returns one number."""

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
            """The number of epochs of fine-tuning."""
else:
    from nni.algorithms.compression.pytorch.auto_compress import AbstractAutoCompressionModule  # type: ignore[no-redef]  # noqa: F401
