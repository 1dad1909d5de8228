"""Image size, token grid and patch size of a vision transformer: each from the other two, whole, and square."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

Side = tuple[int, int]
"""Height and width."""


class TokenSizes(NamedTuple):
    """What a ViT sees: ``image_size = grid * patch_size``. Each is (height, width)."""

    image_size: Side | None
    """px; None where the model takes any size."""
    grid: Side | None
    """tokens; None where the model takes any size."""
    patch_size: Side
    """px of the image behind a token."""


def solve(
    now: TokenSizes,
    *,
    image_size: int | None = None,
    grid: int | None = None,
    patch_size: int | None = None,
    patch_can_change: bool = True,
) -> TokenSizes:
    """All sizes, from those that are given and from those of now: see `scale_vit`.

    Raises:
        TypeError: a size is not a whole number.
        ValueError: none is given, or they do not fit each other; the text names the nearest that do.
    """
    if image_size is None and grid is None and patch_size is None:
        raise ValueError("give at least one of image_size, grid and patch_size")
    image, tokens = _square("image_size", image_size, "px"), _square("grid", grid, "tokens")
    patch = _square("patch_size", patch_size, "px")
    if patch is None and image is not None and tokens is not None:
        if image[0] % tokens[0]:
            raise ValueError(
                f"image_size {image[0]} px cannot be cut into a grid of {tokens[0]} patches a side: the nearest sizes "
                f"are {' and '.join(f'{size} px' for size in _multiples_around(image[0], tokens[0]))}"
            )
        patch = (image[0] // tokens[0],) * 2
    if patch is not None and patch != now.patch_size and not patch_can_change:
        raise ValueError(
            f"patch_size {patch[0]} px: this model has no patch embedding that can be resampled, a token stays "
            f"{now.patch_size[0]} px wide. Scale it with grid or image_size"
        )
    patch = patch or now.patch_size
    if image is None:
        tokens = tokens or now.grid
        if tokens is None:
            return TokenSizes(None, None, patch)
        return TokenSizes((tokens[0] * patch[0], tokens[1] * patch[1]), tokens, patch)
    if image[0] % patch[0] or image[1] % patch[1]:
        raise ValueError(_does_not_divide(image[0], patch, patch_can_change))
    cut = (image[0] // patch[0], image[1] // patch[1])
    if tokens is not None and tokens != cut:
        raise ValueError(
            f"image_size {image[0]} px, grid {tokens[0]} and patch_size {patch[0]} px do not fit: image_size "
            f"is grid * patch_size, here {tokens[0] * patch[0]} px. Leave one of the three out"
        )
    return TokenSizes(image, cut, patch)


def _square(name: str, value: Any, unit: str) -> Side | None:
    if value is None:
        return None
    try:
        side = operator.index(value)
    except TypeError:
        side = None
    if side is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected one whole number of {unit}, the side of a square")
    if side < 1:
        raise ValueError(f"{name} is {value!r}; expected at least 1 ({unit})")
    return side, side


def _multiples_around(number: int, step: int) -> list[int]:
    """The multiples of a step on both sides of a number that is none, without 0."""
    below = number // step * step
    return [multiple for multiple in (below, below + step) if multiple]


def _does_not_divide(image: int, patch: Side, patch_can_change: bool) -> str:
    fitting = [f"{size} px (grid {size // patch[0]})" for size in _multiples_around(image, math.lcm(*patch))]
    text = (
        f"image_size {image} px is no multiple of the patch size, {patch[0]} px, and pixels would be lost: "
        f"the nearest sizes are {' and '.join(fitting)}"
    )
    if not patch_can_change:
        return text
    divisors = [size for size in range(1, image + 1) if image % size == 0]
    smaller, larger = [size for size in divisors if size < patch[0]], [size for size in divisors if size > patch[0]]
    fitting = [f"{size} px" for size in smaller[-1:] + larger[:1]]
    return f"{text}; the nearest patch sizes for {image} px are {' and '.join(fitting)}"
