"""Which shapes run through a network at a given input size, without arithmetic and without touching the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves

from .meta import meta_copy, on_meta

Size = tuple[int, int]
"""Height and width, px."""


class UnfitSizeError(ValueError):
    """The network cannot run at this input size; the text names the layer."""


def as_size(value: Any, name: str) -> Size:
    """One number of pixels, or height and width, as height and width.

    Raises:
        TypeError, ValueError: it is neither, or not positive; the text calls it ``name``.
    """
    pair = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(pair) != 2 or not all(isinstance(px, int) and not isinstance(px, bool) for px in pair):
        raise TypeError(f"{name} is {value!r}; expected a whole number of pixels, or a pair (height, width) of them")
    if min(pair) < 1:
        raise ValueError(f"{name} is {value!r}; expected at least 1 px")
    return pair


def shape_copy(model: nn.Module) -> nn.Module:
    """A copy without weights and in evaluation mode, for `run_shapes` and for drafts of a change.

    What a forward pass caches in its modules, or what is swapped in the copy, never reaches the network.
    """
    return meta_copy(model)[0].eval()


def run_shapes(draft: nn.Module, size: Size, in_channels: int) -> Any:
    """The outputs for one image ``[1, in_channels, height, width]``, as tensors with shapes but no data.

    Args:
        draft: a `shape_copy`.
        size: height and width of the image, px.
        in_channels: channels of the image.

    Raises:
        UnfitSizeError: the network raised; the text names the innermost layer that did, and what it read.
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


@contextmanager
def _running(model: nn.Module) -> Iterator[list[tuple[str, list[torch.Size]]]]:
    """Names of the modules that have begun and not ended, and the shapes that they read: the innermost is last."""
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
