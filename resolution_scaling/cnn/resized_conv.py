"""Convolutions that resize their output; a network's own convolution becomes one by a change of its class."""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..ground.sizes import Size

INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear", "antialias": True},
    "bicubic": {"mode": "bicubic", "antialias": True},
    "area": {"mode": "area"},
    "nearest": {"mode": "nearest"},
}
"""Ways to resize maps: the options of ``torch.nn.functional.interpolate`` by name."""


def resize_maps(maps: torch.Tensor, size: Size, interpolation: str) -> torch.Tensor:
    """Resize ``[batch, channels, height, width]`` to ``[batch, channels, *size]``; the dtype stays.

    Maps of integers (labels) are resized by nearest neighbour.
    """
    options = INTERPOLATIONS[interpolation if maps.is_floating_point() else "nearest"]
    if maps.is_floating_point() and not (maps.device.type == "cpu" and maps.dtype in (torch.half, torch.bfloat16)):
        return F.interpolate(maps, size, **options)
    return F.interpolate(maps.float(), size, **options).to(maps.dtype)  # PyTorch has no kernels for these dtypes


def proportional(size: Size, old: Size, new: Size) -> Size:
    """Compute ``size * new / old`` in integers, rounded to the nearest (halves upwards)."""
    height, width = ((2 * n * b + a) // (2 * a) for n, a, b in zip(size, old, new, strict=True))
    return height, width


def scale_maps(maps: torch.Tensor, own_size: Size, resized: Size, interpolation: str) -> torch.Tensor:
    """Resize ``[batch, channels, height, width]`` by ``resized / own_size``."""
    return resize_maps(maps, proportional((maps.shape[-2], maps.shape[-1]), own_size, resized), interpolation)


torch.fx.wrap("scale_maps")  # torch.fx records one call of it, and not the arithmetic on sizes


class ResizedConv2d(nn.Conv2d):
    """A convolution that resizes its output; `resize_output` makes it from an `nn.Conv2d`.

    Parameters, buffers and their names are those of the convolution. A convolution of a subclass (such as timm's
    ``Conv2dSame``) stays an instance of this subclass.

    Attributes:
        own_size: height and width of the convolution's own output at the input size for which this was made.
        resized: height and width to which such an output is resized; outputs of other sizes change in proportion.
        interpolation: a key of `INTERPOLATIONS`.
    """

    own_size: Size
    resized: Size
    interpolation: str

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, in_channels, height, width]`` -> ``[batch, out_channels, resized height, resized width]``."""
        return scale_maps(super().forward(x), self.own_size, self.resized, self.interpolation)

    def extra_repr(self) -> str:
        """The arguments of the convolution, and both sizes."""
        sizes = " -> ".join("x".join(map(str, size)) for size in (self.own_size, self.resized))
        return f"{super().extra_repr()}, {sizes} {self.interpolation}"

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _blank, role_and_plain(type(self)), self.__dict__.copy()


class FirstConvReduction(ResizedConv2d):
    """The first convolution of a network, whose output is downsampled; see `reduce_after_first_conv`."""


class LastConvRestoration(ResizedConv2d):
    """The last convolution of a network, whose output is resized to full size; see `reduce_after_first_conv`."""


def resize_output(
    convolution: nn.Conv2d, role: type[ResizedConv2d], own_size: Size, resized: Size, interpolation: str
) -> None:
    """Turn a convolution, in place, into one that resizes its output. Nothing is copied, and nothing can fail."""
    if getattr(vars(convolution).get("forward"), "__func__", None) is type(convolution).forward:
        del convolution.forward  # NNI leaves a bound method on layers that it unwraps: it would hide the new class's
    resized_one: Any = convolution  # it becomes one below
    resized_one.own_size, resized_one.resized, resized_one.interpolation = own_size, resized, interpolation
    resized_one.__class__ = _resized_class(role, type(convolution))  # type: ignore[arg-type]  # classes are hashable


def undo_resize_output(convolution: ResizedConv2d) -> None:
    """Turn it, in place, into the convolution that it was."""
    plain_one: Any = convolution  # it becomes one below
    plain_one.__class__ = role_and_plain(type(convolution))[1]
    del convolution.own_size, convolution.resized, convolution.interpolation


@functools.cache
def _resized_class(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> type[ResizedConv2d]:
    if plain is nn.Conv2d:
        return role
    return type(role.__name__, (role, plain), {"__module__": __name__})


def role_and_plain(resized: type[ResizedConv2d]) -> tuple[type[ResizedConv2d], type[nn.Conv2d]]:
    """The role of a class of resized convolutions, and the class that the convolution had before."""
    if resized in (FirstConvReduction, LastConvRestoration):
        return resized, nn.Conv2d
    role, plain = resized.__bases__
    return role, plain


def _blank(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> ResizedConv2d:
    resized = _resized_class(role, plain)  # type: ignore[arg-type]  # classes are hashable
    return resized.__new__(resized)
