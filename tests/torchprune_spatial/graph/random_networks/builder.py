"""A network that grows by one operation after another, whose tensors are computed on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor

from .network import Network, Operation, Step
from .operations.convolutions import Convolution, Linear
from .operations.elementwise import Add, Multiply
from .operations.norms import BatchNorm

WIDTHS = (2, 3, 4, 4, 6, 8, 8)
MOST_CHANNELS = 16
MOST_ELEMENTS = 512

Option = TypeVar("Option")


class DoesNotFit(Exception):
    """No tensor that the recipe can take."""


class Builder:
    """A network that grows.

    Attributes:
        net: the network.
        tensors: all tensors so far, for a batch of one.
        kinds: what each tensor is: a "map" ``[batch, channels, ...]``, "tokens" ``[batch, tokens, channels]``, or a
            "vector" ``[batch, channels]``.
        fresh: names of tensors that were written by an arithmetic operation and are read by none: these may be changed
            in place.
    """

    def __init__(self, random: Random):
        self.random = random
        self.net = Network()
        self.tensors: dict[str, Tensor] = {}
        self.kinds: dict[str, str] = {}
        self.fresh: set[str] = set()
        self.operations: list[Operation] = []

    def input(self, kind: str, shape: tuple[int, ...]) -> None:
        name = f"input{len(self.net.shapes)}"
        self.net.shapes[name] = shape
        self.tensors[name] = torch.rand(shape, dtype=torch.float64)
        self.kinds[name] = kind

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.operations) + 1}"

    def do(self, operation: Operation, *sources: str, kind: str | None = None) -> str:
        """Add a step; the result has the kind of the first source, unless another is given."""
        known = operation in self.operations
        if not known:
            operation.register(self.net)
            self.net.eval()
        with torch.no_grad():
            result = operation.run(self.net, *(self.tensors[name].clone() for name in sources))
        if result.numel() > MOST_ELEMENTS:
            for name in () if known else operation.layers():
                delattr(self.net, name)
            raise DoesNotFit
        if not known:
            self.operations.append(operation)
        target = f"t{len(self.net.steps)}"
        self.net.steps.append(Step(operation, target, sources))
        self.tensors[target] = result
        self.kinds[target] = kind or self.kinds[sources[0]]
        self.fresh.difference_update(sources)
        if isinstance(operation, (Convolution, Linear, BatchNorm, Multiply)) or (
            isinstance(operation, Add) and not operation.inplace
        ):
            self.fresh.add(target)
        return target

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def channel_dimension(self, name: str) -> int:
        return 2 if self.kinds[name] == "tokens" else 1

    def channels(self, name: str) -> int:
        return self.shape(name)[self.channel_dimension(name)]

    def rank(self, name: str) -> int:
        """The number of dimensions of a map behind the channels."""
        return len(self.shape(name)) - 2

    def without_channels(self, name: str) -> tuple[int, ...]:
        shape = list(self.shape(name))
        del shape[self.channel_dimension(name)]
        return tuple(shape)

    def pick(self, *kinds: str, where: Callable[[str], Any] = lambda name: True) -> str:
        """A tensor of one of the kinds: rather one of the last."""
        names = [name for name in self.tensors if self.kinds[name] in kinds and where(name)]
        if not names:
            raise DoesNotFit
        return names[-1] if self.chance(0.5) else self.choose(names)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choose(self, options: Sequence[Option]) -> Option:
        return options[self.random.randrange(len(options))]

    def width(self) -> int:
        return self.choose(WIDTHS)

    def convolution(self, source: str, outputs: int, **options: Any) -> str:
        operation = Convolution(
            self.name("conv"), self.rank(source), self.channels(source), outputs, bias=self.chance(0.5), **options
        )
        return self.do(operation, source)

    def linear(self, source: str, outputs: int) -> str:
        return self.do(Linear(self.name("linear"), self.channels(source), outputs, self.chance(0.7)), source)

    def projected(self, source: str, outputs: int) -> str:
        """By a 1x1 convolution or a linear layer."""
        if self.kinds[source] == "map":
            return self.convolution(source, outputs, kernel=1)
        return self.linear(source, outputs)
