"""The sides of layers: which dimensions of which tensors belong to the inputs of a layer, and which to its outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph

from .labels.parameters import Axes, attribute_of, is_weight, layer_of

Key = tuple[str, int]
"""A dimension of a tensor: name of the parameter or buffer, and dimension."""

PRODUCERS = (tp.ops.TORCH_CONV, nn.Linear)
TYPES = tp.ops.OPTYPE
SAME = (TYPES.BN, TYPES.LN, TYPES.GN, TYPES.IN, TYPES.PRELU, TYPES.EMBED, TYPES.DEPTHWISE_CONV)
"""Types of layers of which the input channels are the output channels (or which have no input channels)."""


class TensorAxis(nn.Module):
    """A dimension of a tensor that belongs to no layer that Torch-Pruning knows, as the target of a dependency.

    Args:
        name: the name of the parameter or buffer.
        dim: the dimension.
        size: its present size.
        tensors: gives the network's parameters and buffers by name.
    """

    def __init__(self, name: str, dim: int, size: int, tensors: Callable[[str], torch.Tensor | None]):
        super().__init__()
        self.name, self.dim, self.size, self._tensors = name, dim, size, tensors

    def rows(self, gradient: bool) -> torch.Tensor | None:
        """The tensor as it is now, or its gradient: a row an index, ``[size, any]``; None if it is a vector or none."""
        tensor = self._tensors(self.name)
        tensor = tensor.grad if gradient and tensor is not None else tensor
        return None if tensor is None or tensor.dim() < 2 else tensor.detach().movedim(self.dim, 0).flatten(1)


class CoupledChannels(nn.Module):
    """Channels that can only be removed together with others: the root of their group.

    Args:
        size: their number.

    Attributes:
        size: their present number.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size


class CountedPruner(tp.pruner.BasePruningFunc):
    """How Torch-Pruning sees a `TensorAxis` and `CoupledChannels`; the dependency removes what is to be removed."""

    def prune_out_channels(self, layer: Any, idxs: Any) -> Any:
        """Do nothing."""
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: Any) -> int:
        """The number of channels left."""
        return layer.size

    get_in_channels = get_out_channels


COUNTED = CountedPruner()
COUPLED = COUNTED.prune_out_channels
"""The handler of `CoupledChannels`."""


class GroupedTransposedPruner(tp.pruner.function.ConvPruner):
    """Of transposed convolutions with groups; the dependency removes what is to be removed.

    With a function of its own for their outputs, Torch-Pruning's importances pass over them: they would look at the
    outputs of one group only, and fail at those of the others. A stand-in has their weights.
    """

    def prune_out_channels(self, layer: Any, idxs: Any) -> Any:
        """Do nothing."""
        return layer


GROUPED_TRANSPOSED = GroupedTransposedPruner()
PRUNERS: dict[type, tp.pruner.BasePruningFunc] = {
    TensorAxis: COUNTED,
    CoupledChannels: COUNTED,
    GroupedTransposedPruner: GROUPED_TRANSPOSED,
}
"""What a graph must know of beside Torch-Pruning's own pruners, as ``customized_pruners``."""


@dataclass
class Side:
    """The input side or the output side of a layer.

    Attributes:
        layer: the layer; a `TensorAxis` for tensors outside of known layers.
        is_output: whether these are output channels; True if they are the input channels as well.
        handler: Torch-Pruning's function for this side.
        labels: the labels of its channels, ``[channels]``.
        keys: the dimensions of tensors that lose entries with the channels.
        name: the name of the layer, or of the tensor.
        is_depthwise: whether each group of the convolution reads one channel, and disappears with it.
    """

    layer: nn.Module
    is_output: bool
    handler: Callable[..., Any]
    labels: torch.Tensor
    keys: list[Key]
    name: str
    is_depthwise: bool = False

    @property
    def is_tensor(self) -> bool:
        """Whether these are channels of a tensor outside of known layers."""
        return isinstance(self.layer, TensorAxis)

    @property
    def root_name(self) -> str:
        """Its name as the root of a group."""
        return f"{self.name}[{self.keys[0][1]}]" if self.is_tensor else self.name


def sides_of(
    graph: DependencyGraph,
    axes: Axes,
    same_name: dict[str, str],
    tensors: Callable[[str], torch.Tensor | None],
    depthwise: Container[str] = (),
) -> list[Side]:
    """The sides of all layers of a network that have labels.

    Args:
        graph: the graph, for its network and its pruners.
        axes: the labels of all tensors.
        same_name: for parameters that several modules share, the name under which their labels are found.
        tensors: gives the network's parameters and buffers by name.
        depthwise: names of convolutions of which each group read one channel before pruning.
    """
    keys_in: dict[str, list[Key]] = defaultdict(list)
    for name, dim in axes:
        keys_in[layer_of(name)].append((name, dim))
    for alias, name in same_name.items():
        keys_in[layer_of(alias)] += [key for key in axes if key[0] == name]
    sides = []
    for name, module in graph.model.named_modules():
        keys = keys_in.pop(name, [])
        for side in _sides_of_layer(graph, name, module, keys, axes):
            side.is_depthwise = name in depthwise
            sides.append(side)
            keys = [key for key in keys if key not in side.keys]
        for key in keys:
            axis = TensorAxis(*key, len(axes[key]), tensors)
            sides.append(Side(axis, True, COUNTED.prune_out_channels, axes[key], [key], key[0]))
    return sides


def _sides_of_layer(
    graph: DependencyGraph, name: str, module: nn.Module, keys: list[Key], axes: Axes
) -> Iterator[Side]:
    kind = tp.ops.module2type(module)
    pruner = graph.get_pruner_of_module(module)
    if type(module) in graph.CUSTOMIZED_PRUNERS or module in graph.CUSTOMIZED_PRUNERS:
        same = pruner.prune_in_channels == pruner.prune_out_channels
        for side, handler in (("in", pruner.prune_in_channels), ("out", pruner.prune_out_channels)):
            key = (f"{name}.{side}", 0)
            if key in axes and not (same and side == "in"):
                yield Side(module, side == "out", handler, axes[key], [], name)
        return
    weight = getattr(module, "weight", None)
    if not keys or kind not in (*SAME, TYPES.CONV, TYPES.LINEAR) or not isinstance(weight, torch.Tensor):
        if kind == TYPES.BN and keys:
            yield _side(module, pruner.prune_out_channels, keys, axes, name)
        return
    if kind in SAME and kind != TYPES.DEPTHWISE_CONV:
        dim = 1 if kind == TYPES.EMBED else 0
        if kind != TYPES.LN or weight.dim() == 1:
            yield from _if_any(module, pruner.prune_out_channels, [key for key in keys if key[1] == dim], axes, name)
        return
    transposed = getattr(module, "transposed", False)
    out = 1 if transposed and kind == TYPES.CONV else 0
    weights = [key for key in keys if is_weight(key[0]) and _dims(graph.model, key[0]) == weight.dim()]
    outputs = [key for key in weights if key[1] == out]
    outputs = [key for key in outputs if len(axes[key]) == len(axes[outputs[0]])]
    others = [key for key in keys if attribute_of(key[0]) == "bias"]
    in_groups = transposed and getattr(module, "groups", 1) > 1 and kind == TYPES.CONV
    handler = GROUPED_TRANSPOSED.prune_out_channels if in_groups else pruner.prune_out_channels
    yield from _if_any(module, handler, outputs + others, axes, name)
    if kind != TYPES.DEPTHWISE_CONV:
        yield from _if_any(
            module, pruner.prune_in_channels, [key for key in weights if key[1] == 1 - out], axes, name, False
        )


def _dims(model: nn.Module, name: str) -> int:
    """The number of dimensions of a parameter or buffer."""
    path, _, attribute = name.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(path), attribute)
    return tensor.dim()


def _if_any(
    module: nn.Module, handler: Any, keys: list[Key], axes: Axes, name: str, is_output: bool = True
) -> Iterator[Side]:
    if keys:
        yield _side(module, handler, keys, axes, name, is_output)


def _side(module: nn.Module, handler: Any, keys: list[Key], axes: Axes, name: str, is_output: bool = True) -> Side:
    return Side(module, is_output, handler, axes[keys[0]], keys, name)


def reads_one_channel(layer: Any) -> bool:
    """Whether each group of a convolution reads one channel."""
    return isinstance(layer, tp.ops.TORCH_CONV) and layer.in_channels == layer.groups > 1


def fit_numbers(side: Side) -> None:
    """Set the numbers of channels that a layer of PyTorch holds."""
    layer: Any = side.layer
    count = len(side.labels)
    if isinstance(layer, tp.ops.TORCH_CONV):
        if side.is_output:
            per_group = layer.out_channels // layer.groups
            if side.is_depthwise:
                layer.in_channels = layer.groups = count // per_group
            layer.out_channels = count
        elif not side.is_depthwise:
            layer.in_channels = count
    elif isinstance(layer, nn.Linear):
        setattr(layer, "out_features" if side.is_output else "in_features", count)
    else:
        for attribute in ("num_features", "num_channels", "num_parameters", "embedding_dim"):
            if attribute in vars(layer):
                setattr(layer, attribute, count)
        if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
            layer.normalized_shape = (count,)
