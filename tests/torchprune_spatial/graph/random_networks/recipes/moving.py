"""Data movement, changes of resolution, and changes of the kind of a tensor."""

from __future__ import annotations

import math

from ..builder import Builder
from ..operations.elementwise import MeanOverSpace, MeanOverTokens
from ..operations.movement import (
    ChannelShuffle,
    Flatten,
    Flip,
    PixelShuffle,
    PixelUnshuffle,
    Roll,
    ToMap,
    ToTokens,
    WindowPartition,
    WindowReverse,
)
from ..operations.space import PadChannels, Resample
from .combining import attended


def pixel_shuffle(b: Builder):
    x = b.pick("map", where=lambda x: b.rank(x) == 2 and b.channels(x) % 4 == 0 and b.channels(x) >= 8)
    b.do(PixelShuffle(b.chance(0.5)), x)


def pixel_unshuffle(b: Builder):
    x = b.pick("map", where=lambda x: b.rank(x) == 2 and b.channels(x) <= 4 and not any(n % 2 for n in b.shape(x)[2:]))
    b.do(PixelUnshuffle(), x)


def channel_shuffle(b: Builder):
    x = b.pick("map", where=lambda x: b.channels(x) % 2 == 0 and b.channels(x) >= 4)
    b.do(ChannelShuffle(b.choose([g for g in (2, 4) if b.channels(x) % g == 0 and b.channels(x) > g])), x)


def windows(b: Builder):
    """Attention or a linear layer in windows of 2 x 2, shifted or not."""
    x = b.pick("map", where=lambda x: b.rank(x) == 2 and not any(n % 2 for n in b.shape(x)[2:]))
    h, w = b.shape(x)[2:]
    y = b.do(Roll(), x) if b.chance(0.5) else x
    y = b.do(WindowPartition(), y, kind="tokens")
    y = attended(b, y) if b.chance(0.7) else b.linear(y, b.width())
    b.do(WindowReverse(h, w), y, kind="map")


def roll(b: Builder):
    b.do(Roll(), b.pick("map"))


def flip(b: Builder):
    b.do(Flip(), b.pick("map"))


def flatten(b: Builder):
    x = b.pick("map", where=lambda x: math.prod(b.shape(x)[1:]) <= 64)
    b.linear(b.do(Flatten(), x, kind="vector"), b.width())


def tokens(b: Builder):
    b.do(ToTokens(), b.pick("map"), kind="tokens")


def to_map(b: Builder):
    sizes = {4: (2, 2), 8: (2, 4), 16: (4, 4)}
    x = b.pick("tokens", where=lambda x: b.shape(x)[0] == 1 and b.shape(x)[1] in sizes)
    b.do(ToMap(sizes[b.shape(x)[1]]), x, kind="map")


def mean_over_space(b: Builder):
    if b.chance(0.5):
        b.do(MeanOverSpace(False), b.pick("map"), kind="vector")
    else:
        b.do(MeanOverTokens(), b.pick("tokens"), kind="vector")


def resample(b: Builder):
    kind = b.choose(("max", "mean", "adaptive", "nearest", "linear", "stride", "zeros", "reflect", "replicate"))
    least = {"max": 2, "mean": 2, "stride": 2, "reflect": 2}.get(kind, 1)
    x = b.pick("map", where=lambda x: min(b.shape(x)[2:]) >= least)
    b.do(Resample(kind), x)


def pad_channels(b: Builder):
    b.do(PadChannels(b.choose((0, 1)), b.choose((1, 2))), b.pick("map", where=lambda x: b.channels(x) <= 8))
