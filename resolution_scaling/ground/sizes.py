"""Sizes of images in pixels, and grids of tokens or cells."""

from __future__ import annotations

from typing import Any

from .arguments import whole_number

Size = tuple[int, int]
"""Height and width, px."""

Grid = tuple[int, int]
"""Rows and columns, of tokens or of cells."""


def as_size(value: Any, name: str) -> Size:
    """Read an argument that is one number of pixels (a square) or a pair (height, width).

    Args:
        value: the argument.
        name: the name of the argument in the message.

    Raises:
        TypeError: it is neither.
        ValueError: a number is below 1.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) == 2:
        try:
            return whole_number(pair[0], name, unit="px"), whole_number(pair[1], name, unit="px")
        except TypeError:
            pass
    raise TypeError(f"{name} is {value!r}; expected a whole number of px, or a pair (height, width) of them")
