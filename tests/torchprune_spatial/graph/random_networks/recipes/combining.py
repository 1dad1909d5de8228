"""Several tensors that are combined, or one with what is computed from it."""

from __future__ import annotations

from ..builder import MOST_CHANNELS, Builder, DoesNotFit
from ..operations.attention import CrossAttention, DynamicConvolution, PixelAttention, SelfAttention
from ..operations.elementwise import Activation, Add, MeanOverSpace, Multiply, OverChannels
from ..operations.movement import Concatenate, Half
from ..operations.norms import ClassToken
from ..operations.space import AsMap, FirstToken, OtherTokens


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


def class_token(b: Builder):
    x = b.pick("tokens")
    y = b.do(ClassToken(b.name("token"), b.channels(x)), x)
    if b.chance(0.5):
        y = attended(b, y)
    b.do(FirstToken(), y, kind="vector")
    if b.chance(0.5):
        b.do(OtherTokens(), y)
