"""Operations that change the number of pixels or tokens: pooling, upsampling, padding, taking some."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F

from ..labels import NONE, Labelled, moved
from ..network import Operation
from .movement import same_dimensions

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclasses.dataclass(eq=False)
class Resample(Operation):
    """Pooling by 2, upsampling by 2, padding of the last dimension: a channel stays a channel."""

    kind: str

    def run(self, net, x):
        rank = x.dim() - 2
        if self.kind == "max":
            return MAX_POOLS[rank](x, 2)
        if self.kind == "mean":
            return MEAN_POOLS[rank](x, 2)
        if self.kind == "adaptive":
            return ADAPTIVE[rank](x, 1)
        if self.kind == "nearest":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.kind == "linear":
            return F.interpolate(x, scale_factor=2, mode=LINEAR[rank], align_corners=False)
        if self.kind == "stride":
            return x[..., ::2]
        mode = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}[self.kind]
        return F.pad(x, [1, 1, *[0] * (2 * rank - 2)], mode=mode)

    def follow(self, follower, x):
        y = follower.reduced(x, range(2, len(x.shape)))
        if self.kind in ("max", "mean"):
            space = [size // 2 for size in x.shape[2:]]
        elif self.kind == "adaptive":
            space = [1] * len(x.shape[2:])
        elif self.kind in ("nearest", "linear"):
            space = [size * 2 for size in x.shape[2:]]
        elif self.kind == "stride":
            space = [*x.shape[2:-1], (x.shape[-1] + 1) // 2]
        else:
            space = [*x.shape[2:-1], x.shape[-1] + 2]
        rank = len(space)
        return moved(
            y,
            (*x.shape[:2], *space),
            lambda index: (*index[:2], *[0] * rank),
            same_dimensions(len(x.shape)),
        )


@dataclasses.dataclass(eq=False)
class PadChannels(Operation):
    """Channels of zeros before and behind, as in ResNets without projections; these have no labels."""

    before: int
    behind: int

    def run(self, net, x):
        return F.pad(x, [*[0] * (2 * x.dim() - 4), self.before, self.behind])

    def follow(self, follower, x):
        return Labelled(
            (x.shape[0], self.before + x.shape[1] + self.behind, *x.shape[2:]),
            lambda i: (
                x.at[(i[0], i[1] - self.before, *i[2:])]
                if self.before <= i[1] < self.before + x.shape[1]
                else [NONE] * len(x.shape)
            ),
        )


@dataclasses.dataclass(eq=False)
class AsMap(Operation):
    """A vector as a map of one pixel."""

    rank: int

    def run(self, net, x):
        return x.view(*x.shape, *[1] * self.rank)

    def follow(self, follower, x):
        shape = (*x.shape, *[1] * self.rank)
        return moved(x, shape, lambda index: index[:2], [[0], [1], *[[]] * self.rank])


@dataclasses.dataclass(eq=False)
class FirstToken(Operation):
    """The first token as a vector."""

    def run(self, net, x):
        return x[:, 0]

    def follow(self, follower, x):
        return moved(x, (x.shape[0], x.shape[2]), lambda i: (i[0], 0, i[1]), [[0], [2]])


@dataclasses.dataclass(eq=False)
class OtherTokens(Operation):
    """All tokens but the first."""

    def run(self, net, x):
        return x[:, 1:]

    def follow(self, follower, x):
        b, n, c = x.shape
        return moved(x, (b, n - 1, c), lambda i: (i[0], i[1] + 1, i[2]), same_dimensions(3))
