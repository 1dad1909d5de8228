"""The shapes of a network's feature maps, computed on a copy without weights, and the images that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves

from .arguments import whole_number
from .meta import meta_copy, on_meta
from .sizes import Size, as_size


class UnfitSizeError(ValueError):
    """The network cannot run at this image size. The message names the layer that fails."""


def shape_copy(model: nn.Module) -> nn.Module:
    """Copy a network without its weights, in evaluation mode, for `run_shapes` and for trying a change.

    Nothing that a forward pass caches in the copy's modules, or that is replaced in the copy, affects the network.
    """
    return meta_copy(model)[0].eval()


def run_shapes(draft: nn.Module, size: Size, in_channels: int) -> Any:
    """Compute the shapes of the outputs for one image ``[1, in_channels, height, width]``.

    Args:
        draft: a `shape_copy`.
        size: height and width of the image, px.
        in_channels: channels of the image.

    Returns:
        The outputs, whose tensors have shapes but no data.

    Raises:
        UnfitSizeError: the network raised an error. The message names the innermost layer that failed, and its input.
    """
    dtype = next((p.dtype for p in draft.parameters() if p.is_floating_point()), torch.get_default_dtype())
    with on_meta(), torch.no_grad(), _running(draft) as stack:
        image = torch.empty(1, in_channels, *size, dtype=dtype)
        try:
            return draft(image)
        except Exception as error:
            name, shapes = stack[-1] if stack else ("", [])
            layer = draft.get_submodule(name)
            what = f"{name} ({type(layer).__name__})" if name else f"the forward of {type(layer).__name__}"
            maps = " and ".join("x".join(map(str, shape[2:])) for shape in shapes if len(shape) == 4)
            message = (
                f"{type(draft).__name__} cannot run at {size[0]}x{size[1]} px: {what} fails"
                f"{f' on its {maps} map' if maps else ''}: {str(error).splitlines()[0] if str(error) else error!r}"
            )
            if isinstance(error, NotImplementedError):
                message += ". If it looks at values, as detectors do, scale the part that does not: its backbone"
            raise UnfitSizeError(message) from error


def image_of(
    model: nn.Module, input_size: int | Size | None = None, in_channels: int | None = None
) -> tuple[int, Size]:
    """Find the channels and the size of the images that a network reads.

    Args:
        model: the network.
        input_size: the size, px, if it is known. Default: the size in timm's configuration of the network, else 224.
        in_channels: the channels, if they are known. Default: those that the network's first convolution reads. If the
            network does not run with these, but with those in timm's configuration, the latter are taken: the network
            may rearrange pixels into channels before its first convolution.

    Raises:
        TypeError, ValueError: an argument is not usable, or the network has no convolution to find the channels by.
    """
    config = getattr(model, "pretrained_cfg", None)
    made_for, *own = (config if isinstance(config, dict) else {}).get("input_size") or (None, 224, 224)
    own_size = as_size(tuple(own), "pretrained_cfg['input_size']")
    size = own_size if input_size is None else as_size(input_size, "input_size")
    if in_channels is not None:
        return whole_number(in_channels, "in_channels"), size
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(
            f"{type(model).__name__} has no Conv2d from which the number of image channels could be read: pass "
            "in_channels, or the whole input shape"
        )
    if made_for in (None, first.in_channels):
        return first.in_channels, size
    draft = shape_copy(model)  # timm's configuration describes the pretrained network; this one may have other channels
    only_as_made = not _runs(draft, own_size, first.in_channels) and _runs(draft, own_size, made_for)
    return made_for if only_as_made else first.in_channels, size


def _runs(draft: nn.Module, size: Size, in_channels: int) -> bool:
    try:
        run_shapes(draft, size, in_channels)
    except UnfitSizeError:
        return False
    return True


@contextmanager
def _running(model: nn.Module) -> Iterator[list[tuple[str, list[torch.Size]]]]:
    """Track the modules that are running: a stack of names and shapes of the inputs, the innermost last."""
    stack: list[tuple[str, list[torch.Size]]] = []
    handles = []
    for name, module in model.named_modules():

        def begin(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            stack.append((name, [leaf.shape for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]))

        def end(*_: Any) -> None:
            stack.pop()

        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(end))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
