"""Element-wise operations without parameters, and reductions."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from ..labels import Labelled
from ..network import Operation

ACTIVATIONS = {
    "relu": F.relu,
    "relu_": F.relu_,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "halved": lambda x: 0.5 * x,
}


@dataclasses.dataclass(eq=False)
class Activation(Operation):
    kind: str

    def run(self, net, x):
        return ACTIVATIONS[self.kind](x)

    def follow(self, follower, x):
        return x


@dataclasses.dataclass(eq=False)
class Add(Operation):
    inplace: bool = False

    def run(self, net, a, b):
        if self.inplace:
            a += b
            return a
        return a + b

    def follow(self, follower, a, b):
        return follower.combine(a, b)


@dataclasses.dataclass(eq=False)
class Multiply(Operation):
    """``a * b``, also with broadcasting."""

    def run(self, net, a, b):
        return a * b

    def follow(self, follower, a, b):
        return follower.combine(a, b)


@dataclasses.dataclass(eq=False)
class MeanOverSpace(Operation):
    """Mean over all dimensions behind the channels."""

    keepdim: bool

    def run(self, net, x):
        return x.mean(tuple(range(2, x.dim())), keepdim=self.keepdim)

    def follow(self, follower, x):
        y = follower.reduced(x, range(2, len(x.shape)))
        if self.keepdim:
            return y
        rest = [0] * (len(x.shape) - 2)
        return Labelled(x.shape[:2], lambda index: y.at[(*index, *rest)][:2])


@dataclasses.dataclass(eq=False)
class MeanOverTokens(Operation):
    def run(self, net, x):
        return x.mean(1)

    def follow(self, follower, x):
        y = follower.reduced(x, (1,))
        return Labelled((x.shape[0], x.shape[2]), lambda index: [y.at[(index[0], 0, index[1])][d] for d in (0, 2)])


@dataclasses.dataclass(eq=False)
class OverChannels(Operation):
    """The mean or the maximum over channels, which keep size 1, as in CBAM."""

    sees_removed = True
    kind: str

    def run(self, net, x):
        return x.mean(1, keepdim=True) if self.kind == "mean" else x.amax(1, keepdim=True)

    def run_masked(self, net, masks, x):
        if self.kind == "mean":
            return torch.where(masks[0], x, 0).sum(1, keepdim=True) / masks[0].sum(1, keepdim=True)
        return torch.where(masks[0], x, -torch.inf).amax(1, keepdim=True)

    def follow(self, follower, x):
        return follower.reduced(x, (1,))
