"""Image size, token grid and patch size of a vision transformer: each follows from the other two."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..ground.arguments import whole_number
from ..ground.sizes import Grid, Size


class TokenSizes(NamedTuple):
    """The sizes at which a ViT works: ``image_size = grid * patch_size``."""

    image_size: Size | None
    """px; None if the model takes images of any size."""
    grid: Grid | None
    """Tokens; None if the model takes images of any size."""
    patch_size: Size
    """px of the image for each token."""


def solve(
    now: TokenSizes,
    *,
    image_size: int | None = None,
    grid: int | None = None,
    patch_size: int | None = None,
    patch_can_change: bool = True,
) -> TokenSizes:
    """Compute all sizes from those that are given, and from the present sizes where they are needed; see `scale_vit`.

    Args:
        now: the present sizes.
        image_size: side of the image, px.
        grid: tokens a side.
        patch_size: side of a patch, px.
        patch_can_change: False if the patch size must stay.

    Raises:
        TypeError: a size is not a whole number.
        ValueError: none is given, or they do not fit each other; the text names the nearest sizes that do.
    """
    if image_size is None and grid is None and patch_size is None:
        raise ValueError("image_size, grid and patch_size are all None; expected at least one of them, such as grid=11")
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
            f"patch_size is {patch[0]} px, but the patch embedding of this model cannot be resampled: a token stays "
            f"{now.patch_size[0]} px wide. Scale the model with grid or image_size"
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


def _square(name: str, value: int | None, unit: str) -> tuple[int, int] | None:
    if value is None:
        return None
    side = whole_number(value, name, unit=unit, example=f"{name}=16 for a square of 16 x 16 {unit}")
    return side, side


def _multiples_around(number: int, step: int) -> list[int]:
    """The nearest multiples of ``step`` below and above a number that is not a multiple; 0 is left out."""
    below = number // step * step
    return [multiple for multiple in (below, below + step) if multiple]


def _does_not_divide(image: int, patch: Size, patch_can_change: bool) -> str:
    fitting = [f"{size} px (grid {size // patch[0]})" for size in _multiples_around(image, math.lcm(*patch))]
    text = (
        f"image_size {image} px is not a multiple of the patch size, {patch[0]} px, and pixels would be lost: "
        f"the nearest sizes are {' and '.join(fitting)}"
    )
    if not patch_can_change:
        return text
    divisors = [size for size in range(1, image + 1) if image % size == 0]
    smaller, larger = [size for size in divisors if size < patch[0]], [size for size in divisors if size > patch[0]]
    fitting = [f"{size} px" for size in smaller[-1:] + larger[:1]]
    return f"{text}; the nearest patch sizes for {image} px are {' and '.join(fitting)}"
