"""Resolution scaling as an algorithm of searches, under the name ``'resolution'``."""

from __future__ import annotations

from typing import Any

import torch.nn as nn

from ...ground.arguments import whole_number
from ...ground.calls import tensors_in
from ...scaling import METHODS, scale_resolution
from ...vit.registry import is_vit
from .module_class import ModuleClass, dummy_input_of
from .registry import Algorithm

SIZES = ("size", "grid", "patch_size")
"""Arguments of `resolution_scaling.scale_resolution` that a search can vary."""


def scale(
    model: nn.Module,
    config_list: list[dict[str, Any]],
    module_class: ModuleClass,
    *,
    size: Any = None,
    grid: Any = None,
    patch_size: Any = None,
    method: str = "auto",
) -> nn.Module:
    """Scale the resolution of a network, see `resolution_scaling.scale_resolution`. Works on the meta device too.

    Args:
        model: the network; it is not changed.
        config_list: must be empty: the whole network is scaled.
        module_class: the user's AutoCompress class. With its ``dummy_input``, a CNN is reduced in the proportion of
            ``size`` to that input; without one, in proportion to the input size that `reduce_after_first_conv` assumes.
        size: px; a number, or (height, width) for a CNN. NNI's ranges give floats: whole ones are accepted.
        grid: tokens a side, for a ViT.
        patch_size: px, for a ViT.
        method: ``"auto"``, ``"fcr"`` or ``"tokens"``.

    Raises:
        TypeError, ValueError: an argument is not usable, or the network cannot work at this resolution.
    """
    check_parameters(config_list, size=size, grid=grid, patch_size=patch_size, method=method)
    options: dict[str, Any] = {}
    if not is_vit(model) and method != "tokens" and (shape := input_shape(module_class)) is not None:
        options["input_size"] = shape[-2:]
    return scale_resolution(
        model, _whole(size), grid=_whole(grid), patch_size=_whole(patch_size), method=method, **options
    )


RESOLUTION = Algorithm("resolution", scale, outline=scale, needs_config_list=False)


def check_parameters(config_list: Any, **parameters: Any) -> None:
    """Check parameters of ``'resolution'`` as far as that is possible without the network.

    Raises:
        TypeError, ValueError: they cannot be used; the text names the parameter.
    """
    if config_list:
        raise ValueError(f"config_list of 'resolution' is {config_list!r}; expected []: the whole network is scaled")
    known = (*SIZES, "method")
    if unknown := set(parameters) - set(known):
        raise TypeError(f"'resolution' has no parameter {sorted(unknown)[0]!r}; it has {', '.join(known)}")
    method = parameters.get("method", "auto")
    if method not in METHODS:
        raise ValueError(f"method of 'resolution' is {method!r}; expected one of {', '.join(map(repr, METHODS))}")
    given = {name: parameters[name] for name in SIZES if parameters.get(name) is not None}
    if not given:
        raise TypeError("'resolution' needs a size in px, or for a ViT a grid or a patch_size")
    for name, value in given.items():
        sides = value if isinstance(value, (list, tuple)) and name == "size" else [value]
        unit = "tokens a side" if name == "grid" else "px"
        if len(sides) not in (1, 2):
            raise ValueError(f"{name} of 'resolution' is {value!r}; expected one number of {unit}, or two")
        for side in sides:
            whole_number(side, f"{name} of 'resolution'", unit=unit, whole_floats=True)


def input_shape(module_class: ModuleClass) -> tuple[int, ...] | None:
    """The shape of the image in the ``dummy_input`` of a user's class; None if there is none."""
    images = [tensor for tensor in tensors_in(dummy_input_of(module_class)) if tensor.ndim == 4]
    return tuple(images[0].shape) if images else None


def _whole(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(int, value)) if len(value) == 2 else int(value[0])
    return None if value is None else int(value)
