"""Stand-ins: with them Torch-Pruning's importances give one score to each channel of a group.

An importance makes as many scores as the first layer that it looks at has channels, and adds those of the other layers
at the places of their root channels. In most groups that first layer is the root. Where channels depend on each other
by number, as the halves of a chunk, no layer may have each channel of the group once. Then a stand-in goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Dependency
from torch_pruning.dependency.node import Node

from .private_names import group_item, roots_of
from .sides import GROUPED_TRANSPOSED, TensorAxis

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
OUTPUTS, INPUTS = (
    (tp.prune_conv_out_channels, tp.prune_linear_out_channels, GROUPED_TRANSPOSED.prune_out_channels),
    (tp.prune_conv_in_channels, tp.prune_linear_in_channels),
)
READ = (*OUTPUTS[:2], *INPUTS)
"""The functions of layers that importances look at by themselves."""
NORMS = {
    tp.prune_batchnorm_out_channels: (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    tp.prune_layernorm_out_channels: (nn.LayerNorm,),
}
"""Norms that importances look at, by Torch-Pruning's functions for them."""


class StandIn(nn.Module):
    """A layer that is in no network. For each channel of a group it has the weights of the layers for which it stands.

    Importances know it by its type. It has a row of weights for each channel, and nothing is removed from it.

    Args:
        rows: gives the weights, biases and their gradients: ``[channels, any]``, or None where there are none.
    """

    groups, out_channels, transposed, affine = 1, None, False, False

    def __init__(self, rows: Callable[[str, bool], torch.Tensor | None]):
        nn.Module.__init__(self)
        self._rows = rows

    @property
    def weight(self) -> torch.Tensor | None:
        """The weights of each channel side by side, as they are now, ``[channels, any]``."""
        return _with_gradient(self._rows("weight", False), self._rows("weight", True))

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias of each channel, ``[channels]``; the norm of several, with a gradient that keeps the product."""
        values, gradients = self._rows("bias", False), self._rows("bias", True)
        if values is None or values.shape[1] == 1:
            return _with_gradient(*(None if rows is None else rows.flatten() for rows in (values, gradients)))
        norm = values.norm(dim=1)
        product = None if gradients is None else (values * gradients).abs().sum(1) / norm.clamp(min=1e-30)
        return _with_gradient(norm, product)

    def extra_repr(self) -> str:
        """What it is, for messages of Torch-Pruning that print it."""
        return "stands for layers of a group of which none has all channels"


class LayerStandIn(StandIn, *LAYERS):  # type: ignore[misc]
    """Stands for convolutions and linear layers."""


class BatchNormStandIn(StandIn, *NORMS[tp.prune_batchnorm_out_channels]):  # type: ignore[misc]
    """Goes before batch norms."""


class LayerNormStandIn(StandIn, *NORMS[tp.prune_layernorm_out_channels]):  # type: ignore[misc]
    """Goes before layer norms."""


class StandInDependency(Dependency):
    """A dependency with nothing to remove."""

    def __call__(self, idxs: list[int]) -> Any:
        """Do nothing."""
        return self.target.module


def with_stand_ins(items: Sequence[Any]) -> list[Any]:
    """The items of a group, with stand-ins where Torch-Pruning's importances need them.

    The layers for which a stand-in stands are left out of scores, so that nothing counts twice.

    Args:
        items: the root first, then the others in the order of the forward pass.
    """
    root, roots = items[0], list(items[0].idxs)
    outputs, inputs = ([item for item in items if item.dep.handler in kind] for kind in (OUTPUTS, INPUTS))
    weights = [item for item in items if isinstance(item.dep.target.module, TensorAxis)]  # of no layer of PyTorch
    first, covered = list[Any](), set[int]()
    for item in (*outputs, *inputs, *weights):
        if item.dep.handler == OUTPUTS[-1] or not covered.issuperset(roots_of(item)):
            first.append(item)
            covered.update(roots_of(item))
    ahead = first if len(first) == 1 and first[0].dep.handler in READ and _is_whole(first[0], roots) else []
    if first and not ahead:
        ahead = [_item(root, LayerStandIn(partial(_rows, first, roots)), roots, True)]
        shadows = [group_item(item.dep, item.idxs, roots_of(item), counted=False) for item in first]
    else:
        shadows = first
    shadow_of = {id(item): shadow for item, shadow in zip(first, shadows, strict=True)}
    for handler, kind in zip(NORMS, (BatchNormStandIn, LayerNormStandIn), strict=True):
        norms = [item for item in items if item.dep.handler == handler]
        if norms and not _is_whole(norms[0], roots):
            ahead.append(_item(root, kind(partial(_zeros, len(roots))), roots, False))
    others = [shadow_of.get(id(item), item) for item in items[1:] if all(item is not one for one in ahead)]
    return [shadow_of.get(id(root), root), *(item for item in ahead if item is not root), *others]


def _is_whole(item: Any, roots: Sequence[int]) -> bool:
    """Whether a layer has each channel of the group once."""
    return sorted(roots_of(item)) == sorted(roots)


def _item(root: Any, stand_in: StandIn, roots: Sequence[int], counted: bool) -> Any:
    node = Node(stand_in, None, type(stand_in).__name__)
    dep = StandInDependency(root.dep.handler, OUTPUTS[1], root.dep.target, node)
    return group_item(dep, list(range(len(roots))), roots, counted=counted)


def _zeros(channels: int, attribute: str, gradient: bool) -> torch.Tensor | None:
    return torch.zeros(channels, 1) if attribute == "weight" else None


def _rows(items: Sequence[Any], roots: Sequence[int], attribute: str, gradient: bool) -> torch.Tensor | None:
    """For each channel of a group its weights in all layers, one after the other, and zeros to the longest row."""
    position = {root: i for i, root in enumerate(roots)}
    ends, parts = torch.zeros(len(roots), dtype=torch.long), []
    for item in items:
        if attribute == "bias" and item.dep.handler in INPUTS:
            continue
        values = _values(item.dep.target.module, attribute, gradient, item.dep.handler in OUTPUTS)
        if values is None:
            continue
        width = values.shape[1]
        for channel, root in zip(item.idxs, roots_of(item), strict=True):
            place = position[root]  # a layer may have several channels for one root
            parts.append((place, int(ends[place]), values[channel]))
            ends[place] += width
    if not parts:
        return None
    rows = parts[0][2].new_zeros(len(roots), int(ends.max()))
    for place, start, values in parts:
        rows[place, start : start + len(values)] = values.to(rows)
    return rows


def _values(layer: Any, attribute: str, gradient: bool, output: bool) -> torch.Tensor | None:
    """The weights of each channel of a layer, ``[channels, any]``."""
    if isinstance(layer, TensorAxis):
        return layer.rows(gradient) if attribute == "weight" else None
    tensor = getattr(layer, attribute)
    tensor = tensor.grad if gradient and tensor is not None else tensor
    if tensor is None:
        return None
    if attribute == "bias":
        return tensor.detach().reshape(-1, 1)
    weight, groups = tensor.detach(), getattr(layer, "groups", 1)
    transposed = bool(getattr(layer, "transposed", False))
    if output == transposed:  # the channels are the second dimension, those of a group beside each other
        return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
    return weight.flatten(1)


def _with_gradient(values: torch.Tensor | None, gradient: torch.Tensor | None) -> torch.Tensor | None:
    if values is not None and gradient is not None and gradient.shape == values.shape:
        values.grad = gradient
    return values
