"""Reduction after the first convolution (FCR): a network that reads full images and works at a lower resolution."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
import torch.nn as nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..ground.shapes import Size, UnfitSizeError, as_size, run_shapes, shape_copy
from .resized_conv import (
    INTERPOLATIONS,
    FirstConvReduction,
    LastConvRestoration,
    ResizedConv2d,
    proportional,
    resize_maps,
    resize_output,
    undo_resize_output,
)


def reduce_after_first_conv(
    model: nn.Module,
    size: int | Size,
    input_size: int | Size | None = None,
    *,
    in_channels: int | None = None,
    interpolation: str = "bilinear",
    restore_outputs: bool = True,
) -> nn.Module:
    """Let a CNN read images at their full size and work, from its first convolution on, as on smaller ones (FCR).

    Morlier et al., GRETSI 2025, section 3.3, "deuxième méthode": the output of the first convolution is downsampled
    to the size that a smaller image would give. All convolutions that read what the first one reads (the branches of
    a RepVGG stem) are reduced alike. ``FLOPs(FCR) = FLOPs(low) - FLOPs(first conv, low) + FLOPs(first conv, full)``.

    The paper does not say how it downsamples; ours is bilinear with antialiasing, with ``"nearest"`` for parity with
    its authors.

    Memory is saved less surely than FLOPs, because the first convolution still makes its full map. ResNet-50 at 160 px
    for 224, one image in float32: the largest operator goes from 6.4 to 4.8 MB (a 160 px image: 3.3 MB) and is now the
    resize; the peak from 11.0 to 5.9 MB (5.6 MB). Where the first convolution was the peak already it stays there, and
    with norms and activations fused the resize can even raise it (ResNet-18: from 4.6 to 5.4 MB): `profile` tells.
    And the resize stands between the convolution and its batch norm, so that compilers no longer fold the two: where
    this matters, `fold_first_batch_norm`.

    Args:
        model: the network, which takes one batch of images ``[batch, channels, height, width]``; changed in place, on
            its device. Keys of the ``state_dict``, pickling, export, ONNX and Torch-Pruning's graph work as before. A
            network that was reduced already is reduced anew from its original size.
        size: the lower size, px: a number, or (height, width).
        input_size: size of the images that the network reads, px. Default: what a timm network says that it was made
            for, else 224. Images of other sizes are reduced in the same proportion.
        in_channels: channels of the images. Default: as timm says, else what the first convolution reads.
        interpolation: ``"bilinear"`` or ``"bicubic"`` (both with antialiasing), ``"area"``, ``"nearest"``.
        restore_outputs: bring outputs that are maps (of segmentation, of U-Nets) back to the size that they had, by
            bilinear interpolation: after the network, or after its last convolution where the image is added to
            what follows (residual denoisers). Networks that resize their maps by themselves are left alone.

    Returns:
        ``model``. `undo_first_conv_reduction` takes the reduction back.

    Raises:
        TypeError, ValueError: an argument is not usable, the network has no convolution, or it cannot work at
            ``size`` (the text names the layer). The network is then as it was.

    Example:
        >>> reduce_after_first_conv(torchvision.models.resnet50(), 160).conv1
        FirstConvReduction(3, 64, kernel_size=(7, 7), ..., 112x112 -> 80x80 bilinear)
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; expected one of {', '.join(INTERPOLATIONS)}")
    low, (channels, full) = as_size(size, "size"), image_of(model, input_size, in_channels)
    if low[0] > full[0] or low[1] > full[1]:
        raise ValueError(f"size is {size!r}, larger than input_size, {full}: FCR only lowers the resolution")
    draft = undo_first_conv_reduction(shape_copy(model))
    full_maps, last, outputs = convolution_maps(draft, full, channels)
    low_maps, last_low, _ = convolution_maps(draft, low, channels)
    if full_maps.keys() != low_maps.keys():
        raise ValueError(f"{type(model).__name__} begins with {[*full_maps]} at {full} but with {[*low_maps]} at {low}")
    changes: dict[str, tuple[Any, ...]] = {}
    if low != full:
        changes = {name: (FirstConvReduction, full_maps[name], low_maps[name], interpolation) for name in full_maps}
    _resize_outputs(draft, changes)
    try:
        reduced = run_shapes(draft, full, channels)
    except UnfitSizeError as error:  # something reads the full image again: perhaps after the last convolution
        restoration = {last[0]: (LastConvRestoration, last_low[1], last[1], "bilinear")}
        if not restore_outputs or last[0] in changes or last[0] != last_low[0]:
            raise _does_not_fit(model, low, full, error) from error
        _resize_outputs(draft, restoration)
        try:
            reduced = run_shapes(draft, full, channels)
        except UnfitSizeError:
            raise _does_not_fit(model, low, full, error) from error
        changes |= restoration
    sizes = _lost_sizes(outputs, reduced) if restore_outputs else []
    undo_first_conv_reduction(model)  # from here on nothing can fail
    _resize_outputs(model, changes)
    if any(sizes):
        model.register_forward_hook(RestoreOutputs(sizes, full), with_kwargs=True)
    return model


def undo_first_conv_reduction(model: nn.Module) -> nn.Module:
    """Take `reduce_after_first_conv` back, in place: the network as it was before, bit by bit, with its weights of now.

    Also for a copy, or a network that was pickled. A network that was not reduced is left alone. Returns ``model``.
    """
    for module in model.modules():
        if isinstance(module, ResizedConv2d):
            undo_resize_output(module)
        for handle, hook in list(module._forward_hooks.items()):
            if isinstance(hook, RestoreOutputs):
                del module._forward_hooks[handle], module._forward_hooks_with_kwargs[handle]
    return model


class RestoreOutputs:
    """Forward hook of a network: brings outputs that FCR made smaller back to their sizes.

    Args:
        sizes: for each leaf of the output, in the order of ``torch.utils._pytree``: the height and width that it had
            for an image of ``input_size``, or None where it is to be left alone.
        input_size: height and width of the image, px. For other images the sizes are in proportion.
    """

    def __init__(self, sizes: list[Size | None], input_size: Size):
        self.sizes, self.input_size = sizes, input_size

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """As PyTorch calls hooks that are registered ``with_kwargs=True``."""
        image = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        own = (image.shape[-2], image.shape[-1])
        leaves, structure = tree_flatten(output)
        for i, size in enumerate(self.sizes[: len(leaves)]):
            if size is not None:
                leaves[i] = resize_maps(leaves[i], proportional(own, self.input_size, size), "bilinear")
        return tree_unflatten(leaves, structure)


def image_of(
    model: nn.Module, input_size: int | Size | None = None, in_channels: int | None = None
) -> tuple[int, Size]:
    """Channels and size of the images that a network reads: as given, else as a timm network says, else guessed.

    Raises:
        TypeError, ValueError: the size is none, or the network has no convolution.
    """
    config = getattr(model, "pretrained_cfg", None)
    channels, *own = (config if isinstance(config, dict) else {}).get("input_size") or (None, 224, 224)
    size = as_size(tuple(own) if input_size is None else input_size, "input_size")
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no Conv2d, so that nothing can be reduced after it")
    return in_channels or channels or first.in_channels, size


def convolution_maps(draft: nn.Module, size: Size, channels: int) -> tuple[dict[str, Size], tuple[str, Size], Any]:
    """By name, the output sizes of the convolutions that read the image; those of the last; the network's outputs."""
    maps: dict[str, Size] = {}
    source: list[torch.Tensor] = []  # what the first convolution reads
    last: list[tuple[str, Size]] = []

    def record(_: nn.Module, args: Any, output: Any, name: str) -> None:
        last[:] = [(name, (output.shape[-2], output.shape[-1]))]
        if not source or args[0] is source[0]:
            source[:] = args[:1]
            maps[name] = last[0][1]

    convolutions = [(name, module) for name, module in draft.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(functools.partial(record, name=name)) for name, module in convolutions]
    try:
        outputs = run_shapes(draft, size, channels)
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise ValueError(f"{type(draft).__name__} calls no Conv2d, so that nothing can be reduced after it")
    return maps, last[0], outputs


def _resize_outputs(model: nn.Module, changes: dict[str, tuple[Any, ...]]) -> None:
    for name, change in changes.items():
        resize_output(cast(nn.Conv2d, model.get_submodule(name)), *change)


def _does_not_fit(model: nn.Module, low: Size, full: Size, error: UnfitSizeError) -> ValueError:
    return ValueError(
        f"{type(model).__name__} runs at {low} but not with its first convolution reduced from {full} to that: "
        f"something behind it also reads the image, or has the size fixed. {error}"
    )


def _lost_sizes(outputs: Any, reduced: Any) -> list[Size | None]:
    """For each leaf of the output, the height and width that it had before the reduction, or None if it has it yet."""
    sizes: list[Size | None] = []
    for before, after in zip(tree_leaves(outputs), tree_leaves(reduced), strict=True):
        is_tensor = isinstance(before, torch.Tensor)
        if not (is_tensor or before is None or isinstance(before, (bool, int, float, str))):
            raise ValueError(f"outputs are in a {type(before).__name__}, which PyTorch cannot look into: {_LEAVE}")
        changed = is_tensor and before.shape != after.shape
        if changed and (before.ndim != 4 or before.shape[:2] != after.shape[:2]):
            raise ValueError(
                f"an output of shape {[*before.shape]} becomes {[*after.shape]}, not a smaller map: {_LEAVE}"
            )
        sizes.append(tuple(before.shape[-2:]) if changed else None)
    return sizes


_LEAVE = "pass restore_outputs=False to leave the outputs at their reduced sizes"
