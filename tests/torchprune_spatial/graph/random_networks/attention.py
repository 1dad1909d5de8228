"""Multi-head attention, and weights that are computed per image."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from .convolutions import follow_linear
from .labels import NONE, Labelled
from .network import Operation


def attend(q, k, v, scale, bias, sdpa):
    """Tensors ``[batch, heads, tokens, channels of a head]``."""
    if sdpa:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    weights = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        weights = weights + bias
    return F.softmax(weights, -1) @ v


def follow_heads(follower, q, k, v, heads, fused):
    """Labels of queries and keys of a head are united; each head must lose as many channels as the others."""

    def blocks_of(x):
        size = x.shape[-1] // heads
        channels = [x.at[(0, 0, channel)][2] for channel in range(x.shape[-1])]
        return [channels[start : start + size] for start in range(0, x.shape[-1], size)]

    for (batch, token, channel), labels in q.at.items():
        del token
        for other in range(k.shape[1]):
            follower.meet(labels[2], k.at[(batch, other, channel)][2])
    if fused:
        follower.blocks([*blocks_of(q), *blocks_of(k), *blocks_of(v)])
    else:
        follower.blocks([*blocks_of(q), *blocks_of(k)])
        follower.blocks(blocks_of(v))
    for x in (q, k, v):
        for labels in x.at.values():
            follower.freeze(labels[1])  # tokens are looked at by all others
    return Labelled((q.shape[0], q.shape[1], v.shape[2]), lambda i: [NONE, NONE, v.at[(i[0], 0, i[2])][2]])


@dataclasses.dataclass(eq=False)
class SelfAttention(Operation):
    """One linear layer for queries, keys and values; ``inner`` is the number of channels of each of them."""

    name: str
    inputs: int
    inner: int
    outputs: int
    heads: int
    tokens: int
    sdpa: bool
    biased: bool

    def layers(self):
        layers = {
            f"{self.name}_qkv": nn.Linear(self.inputs, 3 * self.inner),
            f"{self.name}_proj": nn.Linear(self.inner, self.outputs),
        }
        if self.biased:
            layers[f"{self.name}_position"] = nn.Parameter(
                torch.ones(self.heads, self.tokens, self.tokens, dtype=torch.float64)
            )
        return layers

    def run(self, net, x):
        b, n, _ = x.shape
        qkv = getattr(net, f"{self.name}_qkv")(x)
        qkv = qkv.reshape(b, n, 3, self.heads, qkv.shape[-1] // (3 * self.heads)).permute(2, 0, 3, 1, 4)
        bias = getattr(net, f"{self.name}_position") if self.biased else None
        y = attend(qkv[0], qkv[1], qkv[2], 0.3, bias, self.sdpa)
        return getattr(net, f"{self.name}_proj")(y.transpose(1, 2).reshape(b, n, -1))

    def follow(self, follower, x):
        qkv = follow_linear(follower, x, f"{self.name}_qkv.weight", f"{self.name}_qkv.bias")
        parts = [
            Labelled((*x.shape[:2], self.inner), lambda i, part=part: qkv.at[(*i[:2], part * self.inner + i[2])])
            for part in range(3)
        ]
        if self.biased:
            for labels in follower.parameter(f"{self.name}_position").at.values():
                for along in labels:
                    follower.freeze(along)
        y = follow_heads(follower, *parts, self.heads, fused=True)
        return follow_linear(follower, y, f"{self.name}_proj.weight", f"{self.name}_proj.bias")


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
