"""Layers that read channels and produce others: what kinds there are, and watching what they read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn

CHANNEL_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers that read channels and produce others: the ones between which feature maps are pruned."""

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.Embedding, nn.RNNBase)
"""Layers whose channels are the last dimension; in all others they are the second."""


def is_depthwise(layer: nn.Module) -> bool:
    """Whether Torch-Pruning takes the layer for a depthwise convolution: its outputs are pruned with its inputs.

    Torch-Pruning does not look at the inputs, so this is True even if an output adds several of them, as in
    ``nn.Conv2d(8, 4, 3, groups=4)``. `resolution_scaling.rivals.narrowing` scales inputs and outputs apart, and takes
    only those convolutions for depthwise that have as many inputs as outputs.
    """
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels > 1


def mixes_channels(layer: nn.Module) -> bool:
    """Whether an output channel of the layer is a weighted sum of several input channels.

    True for linear layers and convolutions, unless each of their groups reads one channel; False for customized layers.
    """
    groups = getattr(layer, "groups", 1)
    return isinstance(layer, CHANNEL_LAYERS) and bool(groups == 1 or getattr(layer, "in_channels", 0) > groups)


def filter_norms(layer: Any) -> torch.Tensor:
    """The Euclidean norm of the weights of each output channel of a convolution or linear layer, ``[channels]``."""
    weight = layer.weight.detach().double().cpu()
    if getattr(layer, "transposed", False):
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1).norm(dim=1)


def channel_dimension(layer: nn.Module) -> int:
    """The dimension of a layer's inputs and outputs along which the channels run: 1 or -1.

    A class derived from ``nn.LayerNorm`` whose channels are the second dimension is known by its name, which has "2d"
    in it (``LayerNorm2d`` of timm and torchvision). In customized layers the channels must be the second dimension.
    """
    return -1 if isinstance(layer, CHANNELS_LAST) and "2d" not in type(layer).__name__ else 1


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The first tensor among the arguments of a call; None if there is none."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


@contextlib.contextmanager
def watching_inputs(
    layers: Iterable[nn.Module], watch: Callable[[nn.Module, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Inside, call ``watch(layer, input)`` whenever one of the layers is about to run.

    Args:
        layers: the layers. A call without any tensor is passed over.
        watch: is given the layer's first tensor argument, as the layer takes it (see `channel_dimension`). If it
            returns a tensor, the layer reads that one in its place.
    """

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        x = first_tensor(args, kwargs)
        other = None if x is None else watch(layer, x)
        if other is None:
            return None
        replaced = [other if value is x else value for value in args]
        return tuple(replaced), {name: other if value is x else value for name, value in kwargs.items()}

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield
