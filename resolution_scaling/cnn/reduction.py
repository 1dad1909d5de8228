"""Reduction after the first convolution (FCR): a network that reads full images and works at a lower resolution."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
import torch.nn as nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..ground.shapes import UnfitSizeError, image_of, run_shapes, shape_copy
from ..ground.sizes import Size, as_size
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

Change = tuple[type[ResizedConv2d], Size, Size, str]
"""What `resize_output` makes of a convolution: role, own size, size to which its output is resized, interpolation."""


def reduce_after_first_conv(
    model: nn.Module,
    size: int | Size,
    input_size: int | Size | None = None,
    *,
    in_channels: int | None = None,
    interpolation: str = "bilinear",
    restore_outputs: bool = True,
) -> nn.Module:
    """Let a CNN read full images and work, after its first convolution, on maps as small as a smaller image gives.

    Reduction after the first convolution (FCR): Morlier et al., GRETSI 2025, section 3.3, "deuxième méthode". The
    output of the first convolution is downsampled to the size that a smaller image would give. If several convolutions
    read the image (the branches of a RepVGG stem), all of them are reduced. ``FLOPs(FCR) = FLOPs(low) - FLOPs(first
    conv, low) + FLOPs(first conv, full)``.

    The paper does not say how it downsamples. We use bilinear interpolation with antialiasing; ``"nearest"`` is what
    its authors use.

    FCR saves less memory than FLOPs, because the first convolution still computes its full map. For ResNet-50 at 160
    instead of 224 px, one image in float32, the largest operator falls from 6.4 to 4.8 MB (3.3 MB for an image of 160
    px) and is now the resize; the peak falls from 11.0 to 5.9 MB (5.6 MB). A peak in the first convolution stays where
    it is, and with norms and activations fused the resize can even raise the peak (ResNet-18: from 4.6 to 5.4 MB).
    `profile` counts it. The resize is between the convolution and its batch norm, so compilers cannot fold the two any
    more: call `fold_first_batch_norm` if that matters.

    Args:
        model: the network, which takes one batch of images ``[batch, channels, height, width]``. It is changed in
            place, on its device. Keys of the ``state_dict``, pickling, export, ONNX and Torch-Pruning's graph work as
            before. A network that is reduced already is reduced again from its original size.
        size: the lower size, px: a number, or (height, width).
        input_size: size of the images that the network reads, px. Default: the size that a timm network was made for,
            else 224. Images of other sizes are reduced in the same proportion.
        in_channels: channels of the images. Default: found from the network, see `image_of`.
        interpolation: ``"bilinear"`` or ``"bicubic"`` (both with antialiasing), ``"area"``, ``"nearest"``.
        restore_outputs: resize outputs that are maps (of segmentation networks and U-Nets) back to the size that they
            had, by bilinear interpolation: after the network, or after its last convolution if the image is added
            later (residual denoisers). Networks that resize their maps themselves are left alone.

    Returns:
        ``model``. `undo_first_conv_reduction` undoes the reduction.

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
        raise ValueError(
            f"size is {size!r}, larger than input_size, {full}: FCR only lowers the resolution, pass a smaller size"
        )
    draft = undo_first_conv_reduction(shape_copy(model))
    full_maps, last, outputs = convolution_maps(draft, full, channels)
    low_maps, last_low, _ = convolution_maps(draft, low, channels)
    if full_maps.keys() != low_maps.keys():
        raise ValueError(f"{type(model).__name__} begins with {[*full_maps]} at {full} but with {[*low_maps]} at {low}")
    changes: dict[str, Change] = {}
    if low != full:
        changes = {name: (FirstConvReduction, full_maps[name], low_maps[name], interpolation) for name in full_maps}
    _resize_outputs(draft, changes)
    try:
        reduced = run_shapes(draft, full, channels)
    except UnfitSizeError as error:  # the full image is read again, perhaps after the last convolution
        restoration: dict[str, Change] = {last[0]: (LastConvRestoration, last_low[1], last[1], "bilinear")}
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
    """Undo `reduce_after_first_conv` in place: the network is as before, with the weights that it has now.

    This works for a copy or an unpickled network too. A network that was not reduced is left alone. Returns ``model``.
    """
    for module in model.modules():
        if isinstance(module, ResizedConv2d):
            undo_resize_output(module)
        for handle, hook in list(module._forward_hooks.items()):
            if isinstance(hook, RestoreOutputs):
                del module._forward_hooks[handle], module._forward_hooks_with_kwargs[handle]
    return model


class RestoreOutputs:
    """Forward hook of a network that resizes outputs, which FCR made smaller, to the sizes that they had.

    Args:
        sizes: for each leaf of the output, in the order of ``torch.utils._pytree``, the height and width that it had
            for an image of ``input_size``; None for a leaf that is left alone.
        input_size: height and width of the image, px. For other images the sizes change in proportion.
    """

    def __init__(self, sizes: list[Size | None], input_size: Size):
        self.sizes, self.input_size = sizes, input_size

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Resize the output; PyTorch calls this as a hook that is registered ``with_kwargs=True``."""
        image = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        own = (image.shape[-2], image.shape[-1])
        leaves, structure = tree_flatten(output)
        for i, size in enumerate(self.sizes[: len(leaves)]):
            if size is not None:
                leaves[i] = resize_maps(leaves[i], proportional(own, self.input_size, size), "bilinear")
        return tree_unflatten(leaves, structure)


def convolution_maps(draft: nn.Module, size: Size, channels: int) -> tuple[dict[str, Size], tuple[str, Size], Any]:
    """Find the convolutions that read the image, and the last one that runs.

    Args:
        draft: a `shape_copy` of the network.
        size: height and width of the image, px.
        channels: of the image.

    Returns:
        The output sizes of the convolutions that read the image, by name; name and output size of the last
        convolution; the network's outputs.

    Raises:
        ValueError: no convolution is called, or the network cannot run at this size.
    """
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
        raise ValueError(f"{type(draft).__name__} calls no Conv2d, but FCR downsamples the output of the first one")
    return maps, last[0], outputs


def _resize_outputs(model: nn.Module, changes: dict[str, Change]) -> None:
    for name, change in changes.items():
        resize_output(cast(nn.Conv2d, model.get_submodule(name)), *change)


def _does_not_fit(model: nn.Module, low: Size, full: Size, error: UnfitSizeError) -> ValueError:
    return ValueError(
        f"{type(model).__name__} runs at {low} but not with its first convolution reduced from {full} to that: "
        f"a later layer also reads the image, or has a fixed size. {error}"
    )


def _lost_sizes(outputs: Any, reduced: Any) -> list[Size | None]:
    """For each leaf of the output, the height and width before the reduction; None if the reduction keeps them."""
    sizes: list[Size | None] = []
    for before, after in zip(tree_leaves(outputs), tree_leaves(reduced), strict=True):
        is_tensor = isinstance(before, torch.Tensor)
        if not (is_tensor or before is None or isinstance(before, (bool, int, float, str))):
            raise ValueError(
                f"outputs are in a {type(before).__name__}, and PyTorch cannot take it apart to resize them: {_LEAVE}"
            )
        changed = is_tensor and before.shape != after.shape
        if changed and (before.ndim != 4 or before.shape[:2] != after.shape[:2]):
            raise ValueError(
                f"an output of shape {[*before.shape]} becomes {[*after.shape]}, not a smaller map: {_LEAVE}"
            )
        sizes.append(tuple(before.shape[-2:]) if changed else None)
    return sizes


_LEAVE = "pass restore_outputs=False to leave the outputs at their reduced sizes"
