"""Recipes: each looks for tensors that it can take, and adds one or more operations to a network."""

from __future__ import annotations

from collections.abc import Callable

from ..builder import Builder
from . import combining, layers, moving

Recipe = Callable[[Builder], None]

SIMPLE: tuple[Recipe, ...] = (
    layers.convolution,
    layers.convolution,
    layers.batch_norm,
    layers.activation,
    layers.inplace_relu,
    combining.residual,
    combining.concatenation,
    moving.resample,
)
"""Recipes of networks on which Torch-Pruning's own graph is right."""

RARE: tuple[Recipe, ...] = (
    layers.tied_weight,
    layers.shared_module,
    combining.class_token,
    combining.cross_attention,
    combining.dynamic_convolution,
    moving.mean_over_space,
    moving.pixel_shuffle,
)
"""Recipes that often find no tensor that they can take: these are tried twice as often."""

ALL: tuple[Recipe, ...] = RARE + tuple(
    recipe
    for module in (layers, combining, moving)
    for recipe in vars(module).values()
    if getattr(recipe, "__module__", None) == module.__name__
    and recipe not in (combining.attended, combining.like_another)
)
