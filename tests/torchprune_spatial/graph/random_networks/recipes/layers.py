"""Layers on one tensor, and parameters of the network itself."""

from __future__ import annotations

import math

from ..builder import MOST_CHANNELS, Builder, DoesNotFit
from ..operations.convolutions import Convolution, Linear, LinearOnMap, SameWeight, TiedLinear
from ..operations.elementwise import ACTIVATIONS, Activation, Add
from ..operations.norms import (
    BatchNorm,
    FreeParameter,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LayerNormOfMap,
    PReLU,
    Softmax,
)


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


def channel_softmax(b: Builder):
    b.do(Softmax(), b.pick("map"))


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
