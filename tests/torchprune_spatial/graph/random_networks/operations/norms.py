"""Normalizations, and parameters that are added to or multiply channels."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from ..labels import NONE, Labelled
from ..network import Operation

BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def along_channels(follower, parameter, rank, dimension=1):
    """A parameter ``[channels]`` as a tensor of ``rank`` dimensions, of which one is not 1."""
    shape = [1] * rank
    shape[dimension] = follower.shapes[parameter][0]
    dimension %= rank
    return Labelled(
        shape,
        lambda index: [follower.label(parameter, 0, index[dimension]) if d == dimension else NONE for d in range(rank)],
    )


def follow_affine(follower, x, name, dimension=1):
    for parameter in (f"{name}.weight", f"{name}.bias"):
        if parameter in follower.shapes:
            x = follower.combine(x, along_channels(follower, parameter, len(x.shape), dimension))
    return x


def standardized(x, mask, dimensions):
    """Minus the mean, divided by the standard deviation of the elements whose mask is True; zero elsewhere."""
    count = mask.sum(dimensions, keepdim=True).clamp(min=1)
    mean = torch.where(mask, x, 0).sum(dimensions, keepdim=True) / count
    centred = torch.where(mask, x - mean, 0)
    return centred / ((centred**2).sum(dimensions, keepdim=True) / count + 1e-5).sqrt()


class _Norm(Operation):
    def run(self, net, x):
        return getattr(net, self.name)(x)

    def follow(self, follower, x):
        return follow_affine(follower, x, self.name)


@dataclasses.dataclass(eq=False)
class BatchNorm(_Norm):
    name: str
    rank: int
    channels: int

    def layers(self):
        return {self.name: BATCH_NORMS[self.rank](self.channels)}


@dataclasses.dataclass(eq=False)
class InstanceNorm(_Norm):
    name: str
    rank: int
    channels: int
    affine: bool

    def layers(self):
        return {self.name: INSTANCE_NORMS[self.rank](self.channels, affine=self.affine)}


@dataclasses.dataclass(eq=False)
class GroupNorm(_Norm):
    sees_removed = True
    name: str
    groups: int
    channels: int

    def layers(self):
        return {self.name: nn.GroupNorm(self.groups, self.channels)}

    def run_masked(self, net, masks, x):
        norm, (mask,) = getattr(net, self.name), masks
        grouped = [t.reshape(t.shape[0], self.groups, -1) for t in (x, mask)]
        y = standardized(*grouped, (2,)).reshape(x.shape)
        affine = [p.reshape(-1, *[1] * (x.dim() - 2)) for p in (norm.weight, norm.bias)]
        return y * affine[0] + affine[1]

    def follow(self, follower, x):
        y = super().follow(follower, x)
        if self.groups > 1:
            size = self.channels // self.groups
            rest = [0] * (len(x.shape) - 2)
            channels = [x.at[(0, channel, *rest)][1] for channel in range(self.channels)]
            follower.blocks([channels[start : start + size] for start in range(0, self.channels, size)])
        return y


@dataclasses.dataclass(eq=False)
class LayerNorm(_Norm):
    sees_removed = True
    name: str
    channels: int

    def layers(self):
        return {self.name: nn.LayerNorm(self.channels)}

    def run_masked(self, net, masks, x):
        norm = getattr(net, self.name)
        return standardized(x, masks[0], (-1,)) * norm.weight + norm.bias

    def follow(self, follower, x):
        return follow_affine(follower, x, self.name, -1)


class ChannelsFirstLayerNorm(nn.Module):
    """The layer norm of ConvNeXt over the channels of a map, written with elementary operations."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
        shape = (-1, *[1] * (x.dim() - 2))
        return self.weight.view(shape) * x + self.bias.view(shape)


@dataclasses.dataclass(eq=False)
class LayerNormOfMap(_Norm):
    sees_removed = True
    name: str
    channels: int

    def layers(self):
        return {self.name: ChannelsFirstLayerNorm(self.channels)}

    def run_masked(self, net, masks, x):
        norm = getattr(net, self.name)
        shape = (-1, *[1] * (x.dim() - 2))
        return standardized(x, masks[0], (1,)) * norm.weight.view(shape) + norm.bias.view(shape)


@dataclasses.dataclass(eq=False)
class PReLU(_Norm):
    name: str
    channels: int

    def layers(self):
        return {self.name: nn.PReLU(self.channels)}


@dataclasses.dataclass(eq=False)
class FreeParameter(Operation):
    """A parameter of the network itself that is added or multiplied: a layer scale, a position table, a bias."""

    name: str
    shape: tuple[int, ...]
    multiplies: bool

    def layers(self):
        return {self.name: nn.Parameter(torch.ones(self.shape, dtype=torch.float64))}

    def run(self, net, x):
        return x * getattr(net, self.name) if self.multiplies else x + getattr(net, self.name)

    def follow(self, follower, x):
        return follower.combine(x, follower.parameter(self.name))


@dataclasses.dataclass(eq=False)
class ClassToken(Operation):
    """A token ``[1, 1, channels]`` of the network is put before the others."""

    name: str
    channels: int

    def layers(self):
        return {self.name: nn.Parameter(torch.ones(1, 1, self.channels, dtype=torch.float64))}

    def run(self, net, x):
        return torch.cat([getattr(net, self.name).expand(x.shape[0], -1, -1), x], 1)

    def follow(self, follower, x):
        batch, tokens, channels = x.shape
        for _, token, channel in x.at:
            follower.meet(follower.label(self.name, 2, channel), x.at[(0, token, channel)][2])
        first = [follower.label(self.name, 2, channel) for channel in range(channels)]
        return Labelled(
            (batch, tokens + 1, channels),
            lambda index: x.at[(index[0], index[1] - 1, index[2])] if index[1] else [NONE, NONE, first[index[2]]],
        )


@dataclasses.dataclass(eq=False)
class Softmax(Operation):
    """Over channels, a softmax; a norm without parameters."""

    sees_removed = True

    def run(self, net, x):
        return F.softmax(x, 1)

    def run_masked(self, net, masks, x):
        return torch.where(masks[0], F.softmax(torch.where(masks[0], x, -torch.inf), 1), 0)

    def follow(self, follower, x):
        return x
