"""Data movement: each operation says from which element of its input an element of its output comes."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from ..labels import NONE, Labelled, moved
from ..network import Operation


def same_dimensions(rank):
    return [[d] for d in range(rank)]


@dataclasses.dataclass(eq=False)
class Concatenate(Operation):
    """Of any number of tensors."""

    dimension: int = 1

    def run(self, net, *tensors):
        return torch.cat(tensors, self.dimension)

    def follow(self, follower, *tensors):
        pieces = [(x, i) for x in tensors for i in range(x.shape[self.dimension])]
        shape = list(tensors[0].shape)
        shape[self.dimension] = len(pieces)

        def labels(index):
            x, i = pieces[index[self.dimension]]
            return x.at[(*index[: self.dimension], i, *index[self.dimension + 1 :])]

        y = Labelled(shape, labels)
        follower.reduced(y, (self.dimension,))  # all pieces lose the same indices of the other dimensions
        return y


@dataclasses.dataclass(eq=False)
class Half(Operation):
    """One of the two halves of the channels: by chunk, split or slicing."""

    way: str
    which: int
    dimension: int = 1

    def run(self, net, x):
        half = x.shape[self.dimension] // 2
        if self.way == "chunk":
            return x.chunk(2, self.dimension)[self.which]
        if self.way == "split":
            return x.split(half, self.dimension)[self.which]
        part = slice(half) if self.which == 0 else slice(half, None)
        return x[:, part] if self.dimension == 1 else x[..., part]

    def follow(self, follower, x):
        shape, d = list(x.shape), self.dimension % len(x.shape)
        shape[d] //= 2
        start = self.which * shape[d]
        zero = [0] * len(x.shape)
        channels = [x.at[(*zero[:d], i, *zero[d + 1 :])][d] for i in range(x.shape[d])]
        follower.blocks([channels[: shape[d]], channels[shape[d] :]])
        return moved(
            x, shape, lambda index: (*index[:d], index[d] + start, *index[d + 1 :]), same_dimensions(len(shape))
        )


@dataclasses.dataclass(eq=False)
class PixelShuffle(Operation):
    """By a factor of 2: of PyTorch, or written with views and a permutation."""

    by_hand: bool

    def run(self, net, x):
        if not self.by_hand:
            return F.pixel_shuffle(x, 2)
        b, c, h, w = x.shape
        return x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)

    def follow(self, follower, x):
        b, c, h, w = x.shape
        for index in x.at:
            for other in range(index[1] // 4 * 4, index[1] // 4 * 4 + 4):
                follower.meet(x.at[index][1], x.at[(index[0], other, *index[2:])][1])
        return moved(
            x,
            (b, c // 4, 2 * h, 2 * w),
            lambda i: (i[0], i[1] * 4 + i[2] % 2 * 2 + i[3] % 2, i[2] // 2, i[3] // 2),
            same_dimensions(4),
        )


@dataclasses.dataclass(eq=False)
class PixelUnshuffle(Operation):
    def run(self, net, x):
        return F.pixel_unshuffle(x, 2)

    def follow(self, follower, x):
        b, c, h, w = x.shape
        return moved(
            x,
            (b, c * 4, h // 2, w // 2),
            lambda i: (i[0], i[1] // 4, i[2] * 2 + i[1] % 4 // 2, i[3] * 2 + i[1] % 2),
            same_dimensions(4),
        )


@dataclasses.dataclass(eq=False)
class ChannelShuffle(Operation):
    """Of ShuffleNet: channels of the groups in turn. Of all groups, the same channels must be removed."""

    groups: int

    def run(self, net, x):
        b, c, *space = x.shape
        return x.view(b, self.groups, c // self.groups, *space).transpose(1, 2).reshape(b, c, *space)

    def follow(self, follower, x):
        size = x.shape[1] // self.groups
        rest = [0] * (len(x.shape) - 2)
        channels = [x.at[(0, channel, *rest)][1] for channel in range(x.shape[1])]
        follower.blocks([channels[start : start + size] for start in range(0, x.shape[1], size)])
        return moved(
            x,
            x.shape,
            lambda index: (index[0], index[1] % self.groups * size + index[1] // self.groups, *index[2:]),
            same_dimensions(len(x.shape)),
        )


@dataclasses.dataclass(eq=False)
class WindowPartition(Operation):
    """A map as the tokens of windows of 2 x 2 pixels: ``[batch * windows, 4, channels]``."""

    def run(self, net, x):
        b, c, h, w = x.shape
        return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)

    def follow(self, follower, x):
        _, c, h, w = x.shape
        across = w // 2
        return moved(
            x,
            (h * w // 4, 4, c),
            lambda i: (0, i[2], i[0] // across * 2 + i[1] // 2, i[0] % across * 2 + i[1] % 2),
            [[0], [2, 3], [1]],
        )


@dataclasses.dataclass(eq=False)
class WindowReverse(Operation):
    height: int
    width: int

    def run(self, net, x):
        h, w, c = self.height // 2, self.width // 2, x.shape[-1]
        return x.view(-1, h, w, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(-1, c, self.height, self.width)

    def follow(self, follower, x):
        across = self.width // 2
        return moved(
            x,
            (1, x.shape[2], self.height, self.width),
            lambda i: (i[2] // 2 * across + i[3] // 2, i[2] % 2 * 2 + i[3] % 2, i[1]),
            [[0], [2], [1], [1]],
        )


@dataclasses.dataclass(eq=False)
class Roll(Operation):
    """By one pixel along the last dimension, as for shifted windows."""

    def run(self, net, x):
        return torch.roll(x, 1, -1)

    def follow(self, follower, x):
        return moved(x, x.shape, lambda i: (*i[:-1], (i[-1] - 1) % x.shape[-1]), same_dimensions(len(x.shape)))


@dataclasses.dataclass(eq=False)
class Flip(Operation):
    """Reverses the order of channels."""

    def run(self, net, x):
        return x.flip(1)

    def follow(self, follower, x):
        return moved(x, x.shape, lambda i: (i[0], x.shape[1] - 1 - i[1], *i[2:]), same_dimensions(len(x.shape)))


@dataclasses.dataclass(eq=False)
class Flatten(Operation):
    """A map as one vector of features per image."""

    def run(self, net, x):
        return x.flatten(1)

    def follow(self, follower, x):
        def source(index):
            rest, position = index[1], []
            for size in reversed(x.shape[1:]):
                position.append(rest % size)
                rest //= size
            return (index[0], *reversed(position))

        features = 1
        for size in x.shape[1:]:
            features *= size
        return moved(follower.removable(x), (x.shape[0], features), source, [[0], list(range(1, len(x.shape)))])


@dataclasses.dataclass(eq=False)
class ToTokens(Operation):
    """A map ``[batch, channels, ...]`` as tokens ``[batch, positions, channels]``."""

    def run(self, net, x):
        return x.flatten(2).transpose(1, 2)

    def follow(self, follower, x):
        b, c, *space = x.shape
        positions = list(Labelled(space, lambda index: [NONE] * len(space)).at)
        return moved(
            x,
            (b, len(positions), c),
            lambda i: (i[0], i[2], *positions[i[1]]),
            [[0], list(range(2, len(x.shape))), [1]],
        )


@dataclasses.dataclass(eq=False)
class ToMap(Operation):
    """Tokens as a map of the given size."""

    space: tuple[int, ...]

    def run(self, net, x):
        return x.transpose(1, 2).reshape(x.shape[0], -1, *self.space)

    def follow(self, follower, x):
        positions = list(Labelled(self.space, lambda index: [NONE] * len(self.space)).at)
        return moved(
            x,
            (x.shape[0], x.shape[2], *self.space),
            lambda i: (i[0], positions.index(i[2:]), i[1]),
            [[0], [2], *[[1]] * len(self.space)],
        )
