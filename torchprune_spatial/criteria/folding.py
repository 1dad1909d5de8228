"""Folding: changes of the weights of the next layers that make up for channels about to be removed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn

from ..graph.groups import Member


def columns_of(member: Member) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The channels of a layer and their positions in the group: pairs of tensors, with each position at most once.

    There are several pairs if the layer reads a flattened map: each channel of the group is then several features.
    """
    seen: dict[int, int] = {}
    times: dict[int, list[tuple[int, int]]] = {}
    for channel, position in zip(member.channels.tolist(), member.positions.tolist(), strict=True):
        time = seen[position] = seen.get(position, -1) + 1
        times.setdefault(time, []).append((channel, position))
    return [(pairs[:, 0], pairs[:, 1]) for pairs in map(torch.tensor, times.values())]


def filters_of(layer: Any) -> torch.Tensor:
    """A view of the weights of a convolution or linear layer, ``[groups, out / groups, in / groups, ...]``."""
    weight: torch.Tensor = layer.weight.detach().unflatten(0, (getattr(layer, "groups", 1), -1))
    return weight.transpose(1, 2) if getattr(layer, "transposed", False) else weight


@torch.no_grad()
def fold_by_least_squares(
    layer: nn.Module, columns: torch.Tensor, gram: torch.Tensor, removed: torch.Tensor, ridge: float
) -> None:
    """Replace channels that will be removed by linear combinations of the kept ones, in the weights of a reader.

    A ridge regression gives the factors of the combinations. The weights of the removed channels, multiplied by these
    factors, are added to the weights of the kept channels.

    Args:
        layer: a convolution or linear layer that mixes channels; changed in place.
        columns: input channels of the layer, ``[channels]``.
        gram: their Gram matrix, ``[channels, channels]`` float64.
        removed: which of them will be removed, ``[channels]`` bool.
        ridge: the penalty of the regression, in units of the mean energy of the kept channels.
    """
    for i, filters in enumerate(filters_of(layer).unbind(0)):
        width = filters.shape[1]
        here = columns // width == i
        kept, gone = (here & ~removed).nonzero().flatten(), (here & removed).nonzero().flatten()
        if not len(kept) or not len(gone):
            continue
        normal = gram[kept][:, kept]
        penalty = (ridge * normal.diag().mean()).clamp_min(1e-30)  # above zero where all kept channels are dead
        normal = normal + penalty * torch.eye(len(kept), dtype=torch.float64)
        factors = torch.linalg.solve(normal, gram[kept][:, gone]).to(filters)  # [kept, gone]
        added = torch.tensordot(filters[:, columns[gone] % width], factors, ([1], [1])).movedim(-1, 1)
        filters[:, columns[kept] % width] += added


@torch.no_grad()
def fold_factors(layer: nn.Module, columns: torch.Tensor, factors: torch.Tensor) -> None:
    """Multiply the weights of some input channels of a reader.

    Args:
        layer: a convolution or linear layer that mixes channels; changed in place.
        columns: input channels of the layer, ``[channels]``.
        factors: the factors of their weights, ``[channels]``.
    """
    for i, filters in enumerate(filters_of(layer).unbind(0)):
        width = filters.shape[1]
        here = columns // width == i
        scale = factors[here].to(filters)
        filters[:, columns[here] % width] *= scale.view(-1, *[1] * (filters.ndim - 2))
