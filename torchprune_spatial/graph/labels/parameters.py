"""The first labels: those of parameters, buffers and other tensors that modules hold."""

from __future__ import annotations

import torch
import torch.nn as nn

from resolution_scaling.ground.models import attribute_tensors

from .following import Following
from .storages import storage_key

Axes = dict[tuple[str, int], torch.Tensor]
"""The labels of parameters, buffers and other tensors: ``(name, dimension)`` -> ``[size]``."""


WEIGHTS = ("weight", "weight_v", "weight_g", "weight_orig", "original", "original0", "original1")
"""Attributes with the weight of a layer, or with what a norm of PyTorch makes it from."""


def label_parameters(model: nn.Module, following: Following, known: Axes | None) -> Axes:
    """Give each tensor that modules hold its labels: one for each index of each dimension, kernels left out."""
    axes: Axes = {}
    seen: set[int] = set()
    for name, tensor in [*model.named_parameters(), *model.named_buffers(), *attribute_tensors(model).items()]:
        if id(tensor) in seen or not has_storage(tensor) or tensor.dim() == 0:
            continue
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        seen.add(id(tensor))
        convolution = _convolution_of(model, name, tensor)
        tracks = []
        for dim, size in enumerate(tensor.shape):
            if known is not None:
                if (name, dim) not in known:
                    continue
                axes[name, dim] = known[name, dim]
            elif (size == 1 and not _is_grouped(convolution, dim)) or (convolution is not None and dim > 1):
                continue
            else:
                of_groups = convolution.groups if _is_grouped(convolution, dim) and convolution is not None else 1
                if size * of_groups == 1 or (of_groups > 1 and size == 1):
                    continue
                axes[name, dim] = following.classes.new(size * of_groups)
            tracks.append(track_of(axes[name, dim], tensor, dim))
        following.storages.set(tensor, tracks)
        following.storages.parameters.add(storage_key(tensor))
    return axes


def _convolution_of(model: nn.Module, name: str, tensor: torch.Tensor) -> nn.modules.conv._ConvNd | None:
    """The convolution of which a parameter is the weight, or what a parametrization makes it from."""
    layer = model.get_submodule(layer_of(name))
    if not isinstance(layer, nn.modules.conv._ConvNd) or tensor.dim() != len(layer.kernel_size) + 2:
        return None
    return layer if is_weight(name) else None


def is_weight(name: str) -> bool:
    """Whether a parameter is the weight of its layer, or has its shape, because a norm makes it from that."""
    return attribute_of(name) in WEIGHTS and name.rpartition(".")[2] in WEIGHTS


def layer_of(name: str) -> str:
    """The name of the layer that a parameter belongs to, parametrized or not."""
    path = name.rpartition(".")[0]
    return f".{path}".partition(".parametrizations.")[0].removeprefix(".")


def attribute_of(name: str) -> str:
    """The attribute of the layer that a parameter is, or that it parametrizes."""
    first, *rest = name.removeprefix(layer_of(name)).removeprefix(".").split(".")
    return rest[0] if first == "parametrizations" and rest else first


def _is_grouped(convolution: nn.modules.conv._ConvNd | None, dim: int) -> bool:
    """Whether each group of a convolution has channels of its own along a dimension of its weight."""
    return convolution is not None and convolution.groups > 1 and dim == 1


def track_of(labels: torch.Tensor, tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """The labels of a dimension of a parameter as a track of it."""
    groups = len(labels) // max(1, tensor.shape[dim])
    if groups <= 1:
        return labels.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])
    of_group = labels.reshape(groups, 1, tensor.shape[dim])
    rows = of_group.expand(groups, tensor.shape[0] // groups, tensor.shape[dim])
    return rows.reshape(tensor.shape[0], tensor.shape[dim], *[1] * (tensor.dim() - 2))


def has_storage(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a plain one, of which the elements lie in a storage."""
    return tensor.layout == torch.strided and not tensor.is_quantized and type(tensor) in (torch.Tensor, nn.Parameter)
