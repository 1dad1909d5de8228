"""Model scaling, the rival of resolution scaling: smaller networks of the same family, at a given cost (section 4).

The paper compares its lower resolutions with ResNets that have fewer filters (width 0.5 and 0.25), and with ViTs that
have a smaller hidden size, a smaller MLP, fewer blocks, or a smaller hidden size and MLP (hybrid) and as many FLOPs as
the ViT at each resolution (Table 1). This file builds such networks from a base network and a number of FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn as nn

from ..cost.profiling import profile
from ..ground.arguments import positive_number
from ..ground.shapes import image_of
from ..vit.registry import is_vit, token_sizes
from .narrowing import WidthAxis
from .rebuilding import ViTAxis

NEAR_ENOUGH = 0.01
"""Relative deviation from the target from which on the text of a `ScaledModel` names the next nearest network."""


@dataclass
class ScaledModel:
    """A network of a given size, or of the size whose FLOPs are nearest to a target."""

    model: nn.Module
    """Randomly initialised; it has the device, the dtype and the mode of the base network."""
    method: str
    configuration: dict[str, float]
    """Its dimensions, such as ``{"hidden": 132, "mlp": 1536, "depth": 12, "heads": 6}`` or ``{"width": 0.5}``."""
    flops: float
    """FLOPs of one call with the input shape, counted by ``count``."""
    target_flops: float | None = None
    next_nearest: dict[str, float] = field(default_factory=dict)
    """FLOPs of the nearest network on the other side of the target, by its configuration."""

    @property
    def deviation(self) -> float:
        """FLOPs / target - 1; 0 without a target."""
        return self.flops / self.target_flops - 1 if self.target_flops else 0.0

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size:.4g}" for name, size in self.configuration.items())
        text = f"{self.method} scaling ({sizes}): {self.flops / 1e9:.4g} GFLOPs"
        if self.target_flops:
            text += f", {self.deviation:+.1%} from {self.target_flops / 1e9:.4g}"
        if abs(self.deviation) > NEAR_ENOUGH:
            text += ", the closest there is"
            text += "".join(f" ({name}: {flops / 1e9:.4g})" for name, flops in self.next_nearest.items())
        return text


class Axis(Protocol):
    """The sizes of a network along one method: steps 1, 2, 3, ... from the smallest; FLOPs grow with the step."""

    name: str
    """Name of the size in the configuration."""
    step: int
    """Step of the base network."""

    def step_of(self, size: float) -> int:
        """The step that has this size."""

    def configuration(self, step: int) -> dict[str, float]:
        """The dimensions at a step, by name."""

    def build(self, step: int, device: torch.device) -> nn.Module:
        """The network at a step."""


def flops_at(model: nn.Module, input_shape: Sequence[int]) -> float:
    """Count the FLOPs of one call by `profile`: 2 x multiply-accumulates of convolutions and matrix products."""
    return profile(model, tuple(input_shape)).flops


def scale_model(
    base: nn.Module,
    method: str,
    *,
    flops: float | None = None,
    size: float | None = None,
    input_shape: Sequence[int] | None = None,
    count: Callable[[nn.Module, Sequence[int]], float] = flops_at,
) -> ScaledModel:
    """Build a smaller (or larger) network of the family of ``base``, with a given cost or a given size.

    The new network has random weights, as in the paper: train it. ``base`` is left as it is.

    - ``"width"``: the channels of all layers of a ResNet; image channels, classes, depth and groups stay.
    - ``"hidden"``: the hidden size of a ViT, a multiple of its heads; heads, MLP and depth stay.
    - ``"mlp"``: the hidden size of its MLPs; hidden size, heads and depth stay.
    - ``"depth"``: the number of its blocks; hidden size, heads and MLP stay.
    - ``"hybrid"``: its hidden size and MLP, in their present proportion; heads and depth stay.

    Args:
        base: a ResNet of torchvision or timm (or another network that adds maps and never concatenates them), a ViT of
            torchvision or of timm's ``create_model``, or one of a registered `ViTFamily` that has ``rebuild``.
        method: one of the above.
        flops: the target. The network is the nearest that whole sizes allow, see `ScaledModel.deviation`. Sizes are
            found by counting networks on the meta device, which have no weights.
        size: instead of a target: the factor for ``"width"``, the hidden size for ``"hidden"`` and ``"hybrid"``, the
            hidden size of the MLP for ``"mlp"``, the number of blocks for ``"depth"``.
        input_shape: ``[batch, channels, height, width]`` of the call that is counted. Default: one image with as many
            channels as the network reads, of the size that a ViT takes, else of 224 px.
        count: the cost, as a function of a model on the meta device and of ``input_shape``; it must grow with the
            model. (The paper's own count differs from the default: it counts the MLPs twice.)

    Raises:
        TypeError: ``base`` cannot be built again by this method, or an argument is not a number.
        ValueError: the smallest network of the method costs more than ``flops``, a size is not possible, the method is
            unknown, or both or neither of ``flops`` and ``size`` are given.

    Example:
        >>> low = flops_at(scale_vit(copy.deepcopy(vit).to("meta"), grid=8), (1, 3, 128, 128))
        >>> print(scale_model(vit, "depth", flops=low))  # the paper's depth 4, its closest to a grid of 8
        depth scaling (hidden 384, mlp 1536, depth 4, heads 6): 3.144 GFLOPs, +9.1% from 2.882, the closest there is
        (depth 3: 2.387)
    """
    axis = _axis(base, method)
    if (flops is None) == (size is None):
        given = "neither" if flops is None else "both"
        raise ValueError(f"flops and size: {given} given; expected one of them, the target cost or the size")
    shape = tuple(input_shape) if input_shape is not None else _one_image(base)

    @cache
    def cost(step: int) -> float:
        model = axis.build(step, torch.device("meta")).eval()
        try:
            return count(model, shape)
        except Exception as error:
            raise TypeError(
                f"{type(base).__name__} with {_named(axis, step)} cannot run on a {list(shape)} input: {error}"
            ) from error

    def scaled(step: int, **target: Any) -> ScaledModel:
        weight = next(base.parameters())
        model = axis.build(step, weight.device).to(weight.device, weight.dtype).train(base.training)
        return ScaledModel(model, method, axis.configuration(step), cost(step), **target)

    if size is not None:
        return scaled(axis.step_of(size))
    flops = positive_number(flops, "flops", example="flops=1e9")
    steps = sorted(
        (step for step in _bracket(cost, flops, axis.step) if step), key=lambda step: abs(cost(step) - flops)
    )
    if steps == [1] and cost(1) > flops * (1 + NEAR_ENOUGH):
        raise ValueError(
            f"{method} scaling cannot reach {flops / 1e9:.4g} GFLOPs: the smallest {type(base).__name__}, with "
            f"{_named(axis, 1)}, has {cost(1) / 1e9:.4g}. Choose another method"
        )
    return scaled(steps[0], target_flops=flops, next_nearest={_named(axis, step): cost(step) for step in steps[1:]})


def _bracket(cost: Callable[[int], float], target: float, start: int) -> tuple[int, int]:
    """Find neighbouring steps: one that costs less than the target (0 if there is none), and one that does not."""
    below, above = 0, start
    while cost(above) < target:
        below, above = above, 2 * above
    if below == 0 and cost(1) >= target:
        return 0, 1
    below = max(below, 1)
    interpolate = True
    while above - below > 1:  # try by turns the step that a straight line predicts, and the middle
        share = (target - cost(below)) / (cost(above) - cost(below)) if interpolate else 0.5
        middle = min(max(below + round(share * (above - below)), below + 1), above - 1)
        below, above = (middle, above) if cost(middle) < target else (below, middle)
        interpolate = not interpolate
    return below, above


def _axis(base: nn.Module, method: str) -> Axis:
    if method == "width":
        return WidthAxis(base)
    if method in ViTAxis.METHODS:
        return ViTAxis(base, method)
    raise ValueError(f"method is {method!r}; expected one of {', '.join(map(repr, ('width', *ViTAxis.METHODS)))}")


def _one_image(base: nn.Module) -> tuple[int, ...]:
    size = token_sizes(base).image_size if is_vit(base) else None
    return 1, image_of(base)[0], *(size or (224, 224))


def _named(axis: Axis, step: int) -> str:
    return f"{axis.name} {axis.configuration(step)[axis.name]:.4g}"
