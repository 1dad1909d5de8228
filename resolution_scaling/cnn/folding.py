"""Folding the batch norm that follows a network's first convolution into the convolution, for deployment."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from ..ground.models import device_of
from ..ground.shapes import image_of, run_shapes, shape_copy
from ..ground.sizes import Size
from .reduction import convolution_maps


class _Folded(NamedTuple):
    """What folding one pair replaced."""

    convolution: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    norm: str
    norm_module: nn.Module


def fold_first_batch_norm(model: nn.Module, input_size: int | Size | None = None) -> nn.Module:
    """Fold the batch norm that reads the output of a network's first convolution into the convolution.

    Compilers do this themselves if one follows the other directly, but FCR puts a resize between them. Folding, before
    or after `reduce_after_first_conv`, gives the same function up to rounding, because a resize acts on each channel
    separately and keeps constants. The network runs once before and once after folding, on a random image, to check.

    Args:
        model: the network, in evaluation mode. It is changed in place: the convolution gets a bias, and `nn.Identity`,
            or the activation of timm's ``BatchNormAct2d``, replaces the norm. This cannot be undone: fold a copy.
        input_size: as for `reduce_after_first_conv`.

    Returns:
        ``model``.

    Raises:
        ValueError: the network is in training mode, no batch norm reads the output of the first convolution, or
            another layer reads it too. The network is then as it was.
    """
    if model.training:
        raise ValueError("model is in training mode, where a batch norm has no constants to fold: call model.eval()")
    channels, size = image_of(model, input_size)
    pairs = _convolutions_and_norms(shape_copy(model), size, channels)
    if not pairs:
        raise ValueError(f"{type(model).__name__} has no batch norm that reads the output of its first convolution")
    image = torch.rand(1, channels, *size, device=device_of(model), dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        before = tree_leaves(model(image))
        folded = [_fold(model, *pair) for pair in pairs]
        after = tree_leaves(model(image))
    if not all(_same(a, b) for a, b in zip(before, after, strict=True)):
        for pair in folded:
            convolution: Any = model.get_submodule(pair.convolution)
            convolution.weight, convolution.bias = pair.weight, pair.bias
            _put(model, pair.norm, pair.norm_module)
        raise ValueError(
            f"{pairs[0][0]} of {type(model).__name__} is read by more than {pairs[0][1]}: they cannot be folded"
        )
    return model


def _convolutions_and_norms(draft: nn.Module, size: Size, channels: int) -> list[tuple[str, str]]:
    """Names of the convolutions that read the image, each with the name of the batch norm that reads its output."""
    outputs: dict[str, torch.Tensor] = {}
    pairs: list[tuple[str, str]] = []
    for name in convolution_maps(draft, size, channels)[0]:
        draft.get_submodule(name).register_forward_hook(lambda *call, name=name: outputs.update({name: call[2]}))
    for name, module in draft.named_modules():
        if getattr(module, "running_mean", None) is not None and hasattr(module, "eps"):

            def look(_: nn.Module, args: Any, name: str = name) -> None:
                pairs.extend((conv, name) for conv, output in outputs.items() if args[0] is output)

            module.register_forward_pre_hook(look)
    run_shapes(draft, size, channels)
    return pairs


def _fold(model: nn.Module, conv_name: str, norm_name: str) -> _Folded:
    """Fold one pair."""
    convolution: Any = model.get_submodule(conv_name)
    norm: Any = model.get_submodule(norm_name)  # of PyTorch or timm
    weight, bias = convolution.weight, convolution.bias
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        *(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    )
    activation = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    _put(model, norm_name, nn.Sequential(*activation) if activation else nn.Identity())
    return _Folded(conv_name, weight, bias, norm_name, norm)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not a.is_floating_point():
        return True
    return bool((a - b).abs().max() <= 1e-2 * a.abs().max())
