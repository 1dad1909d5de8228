"""Convolutional networks with fewer channels in every layer, and random weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ground.arguments import positive_number
from ..ground.meta import meta_copy

KNOWN = (nn.Conv2d, nn.Linear, _BatchNorm)


class WidthAxis:
    """The widths of a network, in steps of one channel of its widest layer.

    The new number of channels of a layer depends on its old number alone, so layers whose outputs are added keep equal
    numbers. Channels of grouped convolutions stay multiples of their groups; depthwise convolutions stay depthwise.
    Channels of the image and outputs of the last layer stay.
    """

    name = "width"

    def __init__(self, base: nn.Module):
        self.base = base
        layers = _layers(base)
        if not layers or not isinstance(layers[0], nn.Conv2d):
            raise TypeError(f"base is a {type(base).__name__}, which does not begin with a convolution; use a ResNet")
        for path, module in base.named_modules():
            own = [
                *module.parameters(recurse=False),
                *(b for b in module.buffers(recurse=False) if b.is_floating_point()),
            ]
            if own and not isinstance(module, KNOWN):
                raise TypeError(
                    f"{type(base).__name__} cannot be built with another width: {path or 'it'} has weights of its "
                    f"own, and {type(module).__name__} is neither a convolution nor a batch norm nor a linear layer"
                )
        self.quantum: dict[int, int] = defaultdict(lambda: 1)
        """For each number of channels, the number of which it must stay a multiple."""
        for layer in layers:
            if isinstance(layer, nn.Conv2d) and not _is_depthwise(layer):
                for channels in (layer.in_channels, layer.out_channels):
                    self.quantum[channels] = math.lcm(self.quantum[channels], layer.groups)
        self.widest = self.step = max(layer.weight.shape[0] for layer in layers[:-1] or layers)

    def step_of(self, size: float) -> int:
        """The step nearest to a factor.

        Raises:
            TypeError, ValueError: it is not a number above 0.
        """
        return max(1, round(positive_number(size, "size", example="the factor 0.5 of the width") * self.widest))

    def configuration(self, step: int) -> dict[str, float]:
        """The factor of the width at a step."""
        return {"width": step / self.widest}

    def build(self, step: int, device: torch.device) -> nn.Module:
        """The network at a step. Its convolutions are initialised as in ResNets (He et al., fan out)."""

        def scaled(channels: int) -> int:
            quantum = self.quantum.get(channels, 1)
            return quantum * max(1, math.floor(channels * step / self.widest / quantum + 0.5))

        (model,) = meta_copy(self.base)
        first, *_, last = _layers(model)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.groups = scaled(module.groups) if _is_depthwise(module) else module.groups
                module.in_channels = module.in_channels if module is first else scaled(module.in_channels)
                module.out_channels = module.out_channels if module is last else scaled(module.out_channels)
                shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            elif isinstance(module, nn.Linear):
                module.in_features = scaled(module.in_features)
                module.out_features = module.out_features if module is last else scaled(module.out_features)
                shape = (module.out_features, module.in_features)
            elif isinstance(module, _BatchNorm):
                module.num_features = scaled(module.num_features)
                shape = (module.num_features,)
            else:
                continue
            _remake(module, shape, device)
        _correct_records(model, scaled)
        if device.type != "meta":
            _initialise(model)
        return model


def _layers(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def _is_depthwise(layer: nn.Conv2d) -> bool:
    """Whether each output channel reads one input channel, and each input channel is read by one output channel."""
    return layer.groups == layer.in_channels == layer.out_channels > 1


def _remake(module: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Give a layer new tensors: a weight of this shape, and all others with as many numbers as its first dimension."""
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    for held in tables:
        for name, tensor in held.items():
            if tensor is not None and tensor.is_floating_point():
                empty = tensor.new_empty(shape if name == "weight" else shape[:1], device=device)
                held[name] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _correct_records(model: nn.Module, scaled: Callable[[int], int]) -> None:
    """Correct the numbers of channels that timm's networks record."""
    for name in ("num_features", "head_hidden_size"):
        if isinstance(getattr(model, name, None), int):
            setattr(model, name, scaled(getattr(model, name)))
    for info in getattr(model, "feature_info", None) or []:
        info["num_chs"] = scaled(info["num_chs"])


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, KNOWN):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    start = getattr(model, "init_weights", None)
    if start is not None:
        start()  # timm's own, which also initialises each block as an identity
