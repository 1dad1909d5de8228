"""Multi-head attention, and weights that are computed per image."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from ..labels import NONE, Labelled
from ..network import Operation
from .convolutions import follow_linear


def attend(q, k, v, scale, bias, sdpa):
    """Tensors ``[batch, heads, tokens, channels of a head]``."""
    if sdpa:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    weights = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        weights = weights + bias
    return F.softmax(weights, -1) @ v


def blocks_of(tokens, heads):
    size = tokens.shape[-1] // heads
    channels = [tokens.at[(0, 0, channel)][2] for channel in range(tokens.shape[-1])]
    return [channels[start : start + size] for start in range(0, tokens.shape[-1], size)]


def follow_heads(follower, q, k, v, heads, fused, more=()):
    """Labels of queries and keys of a head are united; each head must lose as many channels as the others.

    Args:
        fused: whether queries, keys and values come from one layer, of which each third must lose as many.
        more: more blocks that must lose as many channels as a head.
    """

    for (batch, token, channel), labels in q.at.items():
        del token
        for other in range(k.shape[1]):
            follower.meet(labels[2], k.at[(batch, other, channel)][2])
    if fused:
        follower.blocks([*blocks_of(q, heads), *blocks_of(k, heads), *blocks_of(v, heads), *more])
    else:
        follower.blocks([*blocks_of(q, heads), *blocks_of(k, heads)])
        follower.blocks(blocks_of(v, heads))
    for x in (q, k, v):
        for labels in x.at.values():
            follower.freeze(labels[1])  # tokens are looked at by all others
    return Labelled((q.shape[0], q.shape[1], v.shape[2]), lambda i: [NONE, NONE, v.at[(i[0], 0, i[2])][2]])


class AttentionLayer(nn.Module):
    """Self-attention of a vision transformer, which finds the number of channels of a head in one of three ways.

    Args:
        inner: the number of channels of the queries, of the keys, and of the values.
        way: "inferred" from the layer's output; from the "inputs", as in older code, where there must be as many; or an
            "attribute".
    """

    def __init__(self, inputs, inner, outputs, heads, way, sdpa, position):
        super().__init__()
        self.qkv, self.proj = nn.Linear(inputs, 3 * inner), nn.Linear(inner, outputs)
        self.heads, self.head_dim, self.way, self.sdpa = heads, inner // heads, way, sdpa
        self.position = nn.Parameter(torch.ones(heads, position, position)) if position else None

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x)
        size = {
            "inferred": qkv.shape[-1] // (3 * self.heads),
            "inputs": c // self.heads,
            "attribute": self.head_dim,
        }[self.way]
        q, k, v = qkv.reshape(b, n, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(q, k, v, 0.3, self.position, self.sdpa)
        return self.proj(y.transpose(1, 2).reshape(b, n, size * self.heads))


@dataclasses.dataclass(eq=False)
class SelfAttention(Operation):
    """One linear layer for queries, keys and values; ``position`` tokens have a bias of their positions, if not 0."""

    name: str
    inputs: int
    inner: int
    outputs: int
    heads: int
    way: str
    sdpa: bool
    position: int

    def layers(self):
        sizes = (self.inputs, self.inner, self.outputs, self.heads)
        return {self.name: AttentionLayer(*sizes, self.way, self.sdpa, self.position)}

    def run(self, net, x):
        return getattr(net, self.name)(x)

    def follow(self, follower, x):
        qkv = follow_linear(follower, x, f"{self.name}.qkv.weight", f"{self.name}.qkv.bias")
        parts = [
            Labelled((*x.shape[:2], self.inner), lambda i, part=part: qkv.at[(*i[:2], part * self.inner + i[2])])
            for part in range(3)
        ]
        if self.position:
            for labels in follower.parameter(f"{self.name}.position").at.values():
                follower.freeze(NONE.union(*labels))
        more = blocks_of(x, self.heads) if self.way == "inputs" else []
        y = follow_heads(follower, *parts, self.heads, fused=True, more=more)
        return follow_linear(follower, y, f"{self.name}.proj.weight", f"{self.name}.proj.bias")


@dataclasses.dataclass(eq=False)
class CrossAttention(Operation):
    """Queries from one sequence, keys and values from another, by three linear layers."""

    name: str
    inputs: int
    memory: int
    inner: int
    values: int
    outputs: int
    heads: int
    sdpa: bool

    def layers(self):
        return {
            f"{self.name}_q": nn.Linear(self.inputs, self.inner),
            f"{self.name}_k": nn.Linear(self.memory, self.inner),
            f"{self.name}_v": nn.Linear(self.memory, self.values),
            f"{self.name}_proj": nn.Linear(self.values, self.outputs),
        }

    def run(self, net, x, memory):
        q, k, v = (
            getattr(net, f"{self.name}_{part}")(source) for part, source in zip("qkv", (x, memory, memory), strict=True)
        )
        q, k, v = (t.view(*t.shape[:2], self.heads, t.shape[-1] // self.heads).transpose(1, 2) for t in (q, k, v))
        y = attend(q, k, v, 0.3, None, self.sdpa)
        return getattr(net, f"{self.name}_proj")(y.transpose(1, 2).flatten(2))

    def follow(self, follower, x, memory):
        q, k, v = (
            follow_linear(follower, source, f"{self.name}_{part}.weight", f"{self.name}_{part}.bias")
            for part, source in zip("qkv", (x, memory, memory), strict=True)
        )
        y = follow_heads(follower, q, k, v, self.heads, fused=False)
        return follow_linear(follower, y, f"{self.name}_proj.weight", f"{self.name}_proj.bias")


@dataclasses.dataclass(eq=False)
class PixelAttention(Operation):
    """Attention of the pixels of a map with queries, keys and values by 1x1 convolutions, one head, as in SAGAN."""

    name: str
    inputs: int
    inner: int
    outputs: int

    def layers(self):
        return {
            f"{self.name}_q": nn.Conv2d(self.inputs, self.inner, 1),
            f"{self.name}_k": nn.Conv2d(self.inputs, self.inner, 1),
            f"{self.name}_v": nn.Conv2d(self.inputs, self.outputs, 1),
        }

    def run(self, net, x):
        q, k, v = (getattr(net, f"{self.name}_{part}")(x).flatten(2) for part in "qkv")
        weights = F.softmax(0.3 * torch.bmm(q.transpose(1, 2), k), -1)
        return torch.bmm(v, weights.transpose(1, 2)).view(x.shape[0], -1, *x.shape[2:])

    def follow(self, follower, x):
        b, c, h, w = x.shape
        tokens = Labelled((b, h * w, c), lambda i: [x.at[(i[0], i[2], i[1] // w, i[1] % w)][d] for d in (0, 2, 1)])
        q, k, v = (
            follow_linear(follower, tokens, f"{self.name}_{part}.weight", f"{self.name}_{part}.bias") for part in "qkv"
        )
        y = follow_heads(follower, q, k, v, 1, fused=False)
        return Labelled((b, y.shape[2], h, w), lambda i: [NONE, y.at[(i[0], i[2] * w + i[3], i[1])][2], NONE, NONE])


@dataclasses.dataclass(eq=False)
class DynamicConvolution(Operation):
    """A linear layer makes a 1x1 kernel ``[outputs, inputs]`` for each image from a vector.

    Where an input channel is removed, so are all elements of the kernel that read it. The number of outputs is fixed:
    an element of the kernel cannot go with its output and with its input.
    """

    name: str
    features: int
    inputs: int
    outputs: int
    way: str

    def layers(self):
        return {f"{self.name}_kernel": nn.Linear(self.features, self.inputs * self.outputs)}

    def run(self, net, vector, x):
        kernel = getattr(net, f"{self.name}_kernel")(vector).view(x.shape[0], self.outputs, -1)
        if self.way == "einsum":
            return torch.einsum("boi,bi...->bo...", kernel, x)
        return torch.matmul(kernel, x.flatten(2)).view(x.shape[0], self.outputs, *x.shape[2:])

    def follow(self, follower, vector, x):
        kernel = follow_linear(follower, vector, f"{self.name}_kernel.weight", f"{self.name}_kernel.bias")
        for (_, channel, *_), labels in x.at.items():
            for output in range(self.outputs):
                follower.meet(labels[1], kernel.at[(0, output * self.inputs + channel)][1])
        return Labelled((x.shape[0], self.outputs, *x.shape[2:]), lambda i: [NONE] * len(x.shape))
