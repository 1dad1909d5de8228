"""What random networks are made of: each recipe looks for tensors that it can take, and adds one or more operations."""

from __future__ import annotations

import math

from .attention import CrossAttention, DynamicConvolution, PixelAttention, SelfAttention
from .builder import MOST_CHANNELS, Builder, DoesNotFit
from .convolutions import Convolution, Linear, LinearOnMap, SameWeight, TiedLinear
from .elementwise import ACTIVATIONS, Activation, Add, MeanOverSpace, MeanOverTokens, Multiply, OverChannels
from .movement import (
    ChannelShuffle,
    Concatenate,
    Flatten,
    Flip,
    Half,
    PixelShuffle,
    PixelUnshuffle,
    Roll,
    ToMap,
    ToTokens,
    WindowPartition,
    WindowReverse,
)
from .norms import (
    BatchNorm,
    ClassToken,
    FreeParameter,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LayerNormOfMap,
    PReLU,
    Softmax,
)
from .space import AsMap, FirstToken, OtherTokens, PadChannels, Resample


def convolution(b: Builder):
    b.convolution(b.pick("map"), b.width(), kernel=b.choose((1, 3, 3)))


def strided_convolution(b: Builder):
    b.convolution(b.pick("map", where=lambda x: min(b.shape(x)[2:]) >= 2), b.width(), stride=2)


def transposed_convolution(b: Builder):
    kernel = b.choose((1, 2))
    b.convolution(b.pick("map"), b.width(), kernel=kernel, stride=kernel, transposed=True)


def grouped_convolution(b: Builder):
    x = b.pick("map", where=lambda x: b.channels(x) % 2 == 0 and b.channels(x) >= 4)
    outputs = b.choose((4, 6, 8))
    groups = 4 if b.channels(x) == outputs == 8 and b.chance(0.3) else 2
    kernel = b.choose((1, 3))
    b.convolution(x, outputs, kernel=kernel, groups=groups, transposed=b.chance(0.3))


def depthwise_convolution(b: Builder):
    x = b.pick("map", where=lambda x: b.channels(x) > 1)
    multiplier = b.choose((1, 1, 1, 2, 3))
    if b.channels(x) * multiplier > MOST_CHANNELS:
        raise DoesNotFit
    transposed = b.chance(0.2)
    b.convolution(x, b.channels(x) * multiplier, groups=b.channels(x), kernel=b.choose((1, 3)), transposed=transposed)


def linear(b: Builder):
    b.linear(b.pick("tokens", "vector"), b.width())


def linear_on_map(b: Builder):
    x = b.pick("map")
    b.do(LinearOnMap(b.name("linear"), b.channels(x), b.width()), x)


def inverted_bottleneck(b: Builder):
    x = b.pick("map", where=lambda x: b.channels(x) > 1)
    y = b.do(Activation("relu"), b.convolution(x, 6, kernel=1))
    y = b.do(Activation("relu"), b.convolution(y, 6, groups=6))
    b.do(Add(), x, b.convolution(y, b.channels(x), kernel=1))


def batch_norm(b: Builder):
    x = b.pick("map")
    b.do(BatchNorm(b.name("norm"), b.rank(x), b.channels(x)), x)


def instance_norm(b: Builder):
    x = b.pick("map", where=lambda x: math.prod(b.shape(x)[2:]) > 1)
    b.do(InstanceNorm(b.name("norm"), b.rank(x), b.channels(x), b.chance(0.6)), x)


def group_norm(b: Builder):
    x = b.pick("map")
    options = [groups for groups in (1, 2, 4) if b.channels(x) % groups == 0 and b.channels(x) > groups]
    if not options:
        raise DoesNotFit
    b.do(GroupNorm(b.name("norm"), b.choose(options), b.channels(x)), x)


def layer_norm(b: Builder):
    x = b.pick("tokens", "vector")
    b.do(LayerNorm(b.name("norm"), b.channels(x)), x)


def layer_norm_of_map(b: Builder):
    x = b.pick("map")
    b.do(LayerNormOfMap(b.name("norm"), b.channels(x)), x)


def activation(b: Builder):
    x = b.pick("map", "tokens", "vector")
    kinds = [kind for kind in ACTIVATIONS if kind != "relu_"]
    b.do(Activation(b.choose(kinds)), x)


def inplace_relu(b: Builder):
    b.do(
        Activation("relu_"),
        b.pick("map", "tokens", "vector", where=lambda x: x in b.fresh and x == list(b.tensors)[-1]),
    )


def prelu(b: Builder):
    x = b.pick("map")
    b.do(PReLU(b.name("prelu"), b.choose((1, b.channels(x)))), x)


def like_another(b: Builder):
    """A tensor, and another of its shape, which is projected from any with as many pixels if there is none."""
    x = b.pick("map", "tokens", "vector")
    same = [y for y in b.tensors if b.shape(y) == b.shape(x) and b.kinds[y] == b.kinds[x] and y != x]
    if same and b.chance(0.5):
        return x, b.choose(same)
    y = b.pick(b.kinds[x], where=lambda y: b.without_channels(y) == b.without_channels(x))
    return x, b.projected(y, b.channels(x))


def residual(b: Builder):
    x, y = like_another(b)
    last_is_fresh = y in b.fresh and y == list(b.tensors)[-1]
    b.do(Add(inplace=True), y, x) if last_is_fresh and b.chance(0.3) else b.do(Add(), x, y)


def gate(b: Builder):
    x, y = like_another(b)
    b.do(Multiply(), x, b.do(Activation("sigmoid"), y) if b.chance(0.7) else y)


def squeeze_excite(b: Builder):
    x = b.pick("map")
    y = b.do(MeanOverSpace(True), x)
    y = b.do(Activation("relu"), b.convolution(y, 2, kernel=1))
    y = b.do(Activation("sigmoid"), b.convolution(y, b.channels(x), kernel=1))
    b.do(Multiply(), x, y)


def gate_from_vector(b: Builder):
    """Gates of channels by a linear layer on a vector, as in conditioned networks."""
    x, vector = b.pick("map"), b.pick("vector")
    if b.shape(vector)[0] != b.shape(x)[0]:
        raise DoesNotFit
    y = b.do(AsMap(b.rank(x)), b.linear(vector, b.channels(x)), kind="map")
    b.do(b.choose((Multiply(), Add())), x, y)


def spatial_gate(b: Builder):
    x = b.pick("map")
    y = b.do(OverChannels(b.choose(("mean", "max"))), x)
    b.do(Multiply(), x, b.do(Activation("sigmoid"), y))


def channel_softmax(b: Builder):
    b.do(Softmax(), b.pick("map"))


def concatenation(b: Builder):
    x = b.pick("map", "tokens", "vector")
    others = [y for y in b.tensors if b.kinds[y] == b.kinds[x] and b.without_channels(y) == b.without_channels(x)]
    pieces = [x, *(b.choose(others) for _ in range(b.choose((1, 1, 2))))]
    if sum(map(b.channels, pieces)) > MOST_CHANNELS:
        raise DoesNotFit
    b.random.shuffle(pieces)
    b.do(Concatenate(b.channel_dimension(x)), *pieces)


def halved(b: Builder):
    """Both halves of a tensor: multiplied with each other, one of them convolved and concatenated, or none read."""
    x = b.pick("map", "tokens", where=lambda x: b.channels(x) % 2 == 0 and b.channels(x) >= 4)
    way, dimension = b.choose(("chunk", "split", "slice")), {1: 1, 2: -1}[b.channel_dimension(x)]
    first, second = (b.do(Half(way, which, dimension), x) for which in (0, 1))
    use = b.choose(("gate", "branch", "apart"))
    if use == "gate":
        b.do(Multiply(), first, second)
    elif use == "branch":
        second = b.projected(second, b.channels(second))
        b.do(Concatenate(b.channel_dimension(x)), first, second)


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


def attended(b: Builder, x: str) -> str:
    heads = b.choose((1, 2))
    outputs = b.choose((b.channels(x), b.width()))
    inputs, way = b.channels(x), b.choose(("inferred", "inputs", "attribute"))
    inner = heads * b.choose((2, 3))
    if way == "inputs" and (inputs % heads or inputs < 2 * heads):
        way = "inferred"
    if way == "inputs":
        inner = inputs
    position = b.shape(x)[1] if b.chance(0.3) else 0
    operation = SelfAttention(b.name("attention"), inputs, inner, outputs, heads, way, b.chance(0.5), position)
    return b.do(operation, x)


def self_attention(b: Builder):
    x = b.pick("tokens")
    y = attended(b, x)
    if b.channels(y) == b.channels(x):
        b.do(Add(), x, y)


def cross_attention(b: Builder):
    x = b.pick("tokens")
    memory = b.pick("tokens", where=lambda y: b.shape(y)[0] == b.shape(x)[0])
    heads = b.choose((1, 2))
    inner, values = heads * b.choose((2, 3)), heads * b.choose((2, 3))
    name, sizes = b.name("attention"), (b.channels(x), b.channels(memory), inner, values, b.width())
    b.do(CrossAttention(name, *sizes, heads, b.chance(0.5)), x, memory)


def pixel_attention(b: Builder):
    x = b.pick("map", where=lambda x: b.rank(x) == 2)
    y = b.do(PixelAttention(b.name("attention"), b.channels(x), b.choose((2, 3)), b.channels(x)), x)
    b.do(Add(), x, y)


def dynamic_convolution(b: Builder):
    x, vector = b.pick("map", where=lambda x: b.channels(x) <= 8), b.pick("vector")
    if b.shape(vector)[0] != b.shape(x)[0]:
        raise DoesNotFit
    way = b.choose(("einsum", "matmul"))
    sizes = (b.channels(vector), b.channels(x), b.choose((2, 3)))
    b.do(DynamicConvolution(b.name("dynamic"), *sizes, way), vector, x, kind="map")


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


def layer_scale(b: Builder):
    x = b.pick("map", "tokens", "vector")
    channels = b.channels(x)
    shape = (channels, *[1] * b.rank(x)) if b.kinds[x] == "map" else (channels,)
    if b.chance(0.3):
        shape = (1,) * (len(b.shape(x)) - len(shape)) + shape
    b.do(FreeParameter(b.name("scale"), shape, b.chance(0.6)), x)


def position_table(b: Builder):
    x = b.pick("map", "tokens", where=lambda x: b.shape(x)[0] == 1)
    b.do(FreeParameter(b.name("table"), b.shape(x), False), x)


def class_token(b: Builder):
    x = b.pick("tokens")
    y = b.do(ClassToken(b.name("token"), b.channels(x)), x)
    if b.chance(0.5):
        y = attended(b, y)
    b.do(FirstToken(), y, kind="vector")
    if b.chance(0.5):
        b.do(OtherTokens(), y)


def shared_module(b: Builder):
    """A layer once more, on another tensor."""
    kinds = {Convolution: "map", Linear: "tokens", LinearOnMap: "map"}
    layers = [operation for operation in b.operations if type(operation) in kinds]
    if not layers:
        raise DoesNotFit
    layer = b.choose(layers)
    x = b.pick(
        *({"map"} if kinds[type(layer)] == "map" else {"tokens", "vector"}),
        where=lambda x: b.channels(x) == layer.inputs and (type(layer) is not Convolution or b.rank(x) == layer.rank),
    )
    b.do(layer, x)


def tied_weight(b: Builder):
    layers = [operation for operation in b.operations if type(operation) is Linear]
    if not layers:
        raise DoesNotFit
    layer, transposed = b.choose(layers), b.chance(0.5)
    read = layer.outputs if transposed else layer.inputs
    x = b.pick("tokens", "vector", where=lambda x: b.channels(x) == read)
    if transposed or b.chance(0.5):
        b.do(TiedLinear(layer.name, transposed), x)
    else:
        b.do(SameWeight(b.name("linear"), layer.name, layer.inputs, layer.outputs, b.chance(0.5)), x)


SIMPLE = (convolution, convolution, batch_norm, activation, inplace_relu, residual, concatenation, resample)
"""Recipes of networks on which Torch-Pruning's own graph is right."""

RARE = (tied_weight, dynamic_convolution, mean_over_space, pixel_shuffle, class_token, cross_attention, shared_module)
"""Recipes that often find no tensor that they can take: these are tried twice as often."""

ALL = RARE + tuple(
    recipe
    for name, recipe in list(globals().items())
    if getattr(recipe, "__module__", None) == __name__ and recipe.__code__.co_argcount == 1 and name != "like_another"
)
