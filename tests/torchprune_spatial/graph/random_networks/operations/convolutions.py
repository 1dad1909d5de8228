"""Convolutions of all kinds, and linear layers."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import nn

from ..labels import NONE, Labelled
from ..network import Operation

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@dataclasses.dataclass(eq=False)
class Convolution(Operation):
    name: str
    rank: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True
    transposed: bool = False

    def layers(self):
        padding = 0 if self.transposed else self.kernel // 2
        kind = TRANSPOSED if self.transposed else CONVOLUTIONS
        options = {"stride": self.stride, "padding": padding, "groups": self.groups, "bias": self.bias}
        return {self.name: kind[self.rank](self.inputs, self.outputs, self.kernel, **options)}

    def run(self, net, x):
        return getattr(net, self.name)(x)

    def follow(self, follower, x):
        weight, bias = f"{self.name}.weight", f"{self.name}.bias"
        reads, writes = self.inputs // self.groups, self.outputs // self.groups
        shared = self.groups > 1
        for (_, channel, *_), labels in x.at.items():
            for along in (0, *range(2, len(labels))):
                follower.freeze(labels[along])
            if self.transposed:
                follower.meet(labels[1], follower.label(weight, 0, channel))
            elif not shared:
                follower.meet(labels[1], follower.label(weight, 1, channel))
            elif reads > 1:
                of_weight = follower.label(weight, 1, channel % reads)
                follower.not_compared |= of_weight
                follower.aligned.append((labels[1] or follower.stuck()) | of_weight)

        def of_output(channel):
            labels = follower.label(bias, 0, channel)
            if not self.transposed:
                return labels | follower.label(weight, 0, channel)
            if not shared:
                return labels | follower.label(weight, 1, channel)
            of_weight, pseudo = follower.label(weight, 1, channel % writes), (f"{self.name} writes", 0, channel)
            follower.not_compared |= of_weight | {pseudo}
            if reads > 1:
                follower.aligned.append(labels | of_weight | {pseudo})
            else:  # an output goes with its input; the number of outputs of an input is fixed
                follower.freeze(of_weight)
            return labels | {pseudo}

        outputs = [of_output(channel) for channel in range(self.outputs)]
        for labels in outputs:
            follower.unite(labels)
        if shared:
            self._follow_groups(follower, x, outputs, reads, writes)
        sizes = [
            (size - 1) * self.stride + self.kernel if self.transposed else (size - 1) // self.stride + 1
            for size in x.shape[2:]
        ]
        if not self.transposed and self.kernel % 2 == 0:
            raise NotImplementedError("even kernels")
        return Labelled(
            (x.shape[0], self.outputs, *sizes), lambda index: [NONE, outputs[index[1]], *[NONE] * len(sizes)]
        )

    def _follow_groups(self, follower, x, outputs, reads, writes):
        channels = [[] for _ in range(self.inputs)]
        for (_, channel, *_), labels in x.at.items():
            channels[channel].append(labels[1])
        if reads > 1:
            channels = [NONE.union(*sets) if all(sets) else NONE for sets in channels]
            follower.blocks([channels[start : start + reads] for start in range(0, self.inputs, reads)])
            follower.blocks([outputs[start : start + writes] for start in range(0, self.outputs, writes)])
        else:
            for channel, sets in enumerate(channels):
                for labels in sets:
                    for output in outputs[channel * writes : (channel + 1) * writes]:
                        follower.meet(labels, output)


@dataclasses.dataclass(eq=False)
class Linear(Operation):
    """A linear layer on the last dimension."""

    name: str
    inputs: int
    outputs: int
    bias: bool = True

    def layers(self):
        return {self.name: nn.Linear(self.inputs, self.outputs, self.bias)}

    def run(self, net, x):
        return getattr(net, self.name)(x)

    def follow(self, follower, x):
        return follow_linear(follower, x, f"{self.name}.weight", f"{self.name}.bias")


def follow_linear(follower, x, weight, bias=None, transposed=False):
    read, written = (0, 1) if transposed else (1, 0)
    for index, labels in x.at.items():
        follower.meet(labels[-1], follower.label(weight, read, index[-1]))
    outputs = [
        follower.label(weight, written, i) | (follower.label(bias, 0, i) if bias else NONE)
        for i in range(follower.shapes[weight][written])
    ]
    for labels in outputs:
        follower.unite(labels)

    def at(index):
        rows = [x.at[(*index[:-1], i)] for i in range(x.shape[-1])]
        for row in rows[1:]:
            for one, other in zip(rows[0][:-1], row[:-1], strict=True):
                follower.meet(one, other)
        return [*rows[0][:-1], outputs[index[-1]]]

    return Labelled((*x.shape[:-1], len(outputs)), at)


@dataclasses.dataclass(eq=False)
class LinearOnMap(Linear):
    """A linear layer on the channels of a map, which is permuted to channels last and back, as in ConvNeXt."""

    def run(self, net, x):
        return getattr(net, self.name)(x.movedim(1, -1)).movedim(-1, 1)

    def follow(self, follower, x):
        rank = len(x.shape)
        last = Labelled(
            (x.shape[0], *x.shape[2:], x.shape[1]),
            lambda index: [x.at[(index[0], index[-1], *index[1:-1])][d] for d in (0, *range(2, rank), 1)],
        )
        y = super().follow(follower, last)
        return Labelled(
            (y.shape[0], y.shape[-1], *y.shape[1:-1]),
            lambda index: [y.at[(index[0], *index[2:], index[1])][d] for d in (0, rank - 1, *range(1, rank - 1))],
        )


@dataclasses.dataclass(eq=False)
class TiedLinear(Operation):
    """Multiplies by the weight of another linear layer, transposed or not."""

    layer: str
    transposed: bool

    def needs(self):
        return {self.layer}

    def run(self, net, x):
        weight = getattr(net, self.layer).weight
        return F.linear(x, weight.t() if self.transposed else weight)

    def follow(self, follower, x):
        return follow_linear(follower, x, f"{self.layer}.weight", transposed=self.transposed)


@dataclasses.dataclass(eq=False)
class SameWeight(Operation):
    """A second linear layer with the parameter of a first."""

    name: str
    layer: str
    inputs: int
    outputs: int
    bias: bool = True

    def layers(self):
        return {self.name: nn.Linear(self.inputs, self.outputs, self.bias)}

    def needs(self):
        return {self.name, self.layer}

    def register(self, net):
        super().register(net)
        getattr(net, self.name).weight = getattr(net, self.layer).weight

    def run(self, net, x):
        return getattr(net, self.name)(x)

    def follow(self, follower, x):
        return follow_linear(follower, x, f"{self.layer}.weight", f"{self.name}.bias")
