"""Checks of the numbers that a user passes: one for whole numbers, one for real numbers."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any


def whole_number(
    value: Any,
    name: str,
    *,
    least: int = 1,
    most: int | None = None,
    unit: str = "",
    whole_floats: bool = False,
    example: str = "",
) -> int:
    """Check that an argument is a whole number, and return it as an ``int``.

    Args:
        value: the argument. NumPy's integers count as whole numbers, True and False do not.
        name: the name of the argument in the message.
        least: the smallest number that is allowed.
        most: the largest number that is allowed; None for no limit.
        unit: the unit in the message, such as ``"px"``.
        whole_floats: accept ``160.0`` too; tuners give whole numbers in this form.
        example: a usable argument, for the message, such as ``"size=160"``.

    Raises:
        TypeError: it is not a number, or a float where only integers are allowed.
        ValueError: it is below ``least`` or above ``most``, or a float with a fraction.

    Example:
        >>> whole_number(0, "size", unit="px")
        Traceback (most recent call last):
        ValueError: size is 0; expected a whole number of px above 0
    """
    kind = " ".join(filter(None, ("a whole number", unit and f"of {unit}")))
    expected = f"{name} is {value!r}; expected {kind}{_range(least, most)}{example and f', such as {example}'}"
    if whole_floats and isinstance(value, float):
        if not value.is_integer():
            raise ValueError(expected)
        value = int(value)
    if isinstance(value, bool):
        raise TypeError(expected)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if number < least or (most is not None and number > most):
        raise ValueError(expected)
    return number


def real_number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    example: str = "",
) -> float:
    """Check that an argument is a finite number, and return it.

    Args:
        value: the argument. True and False do not count as numbers.
        name: the name of the argument in the message.
        above: the number must be larger than this; None for no such limit.
        least: the smallest number that is allowed; None for no such limit.
        most: the largest number that is allowed; None for no limit.
        example: a usable argument, for the message, such as ``"compression=4"``.

    Returns:
        The number; an ``int`` or ``float`` unchanged, other numbers (NumPy's) as ``float``.

    Raises:
        TypeError: it is not a number.
        ValueError: it is out of range, infinite or NaN.
    """
    limits = f" above {above:g}" if above is not None else _range(least, most)
    if above is not None and most is not None:
        limits += f" and up to {most:g}"
    expected = f"{name} is {value!r}; expected a number{limits}{example and f', such as {example}'}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(expected)
    number = value if isinstance(value, (int, float)) else float(value)
    in_range = (
        math.isfinite(number)
        and (above is None or number > above)
        and (least is None or number >= least)
        and (most is None or number <= most)
    )
    if not in_range:
        raise ValueError(expected)
    return number


def positive_number(value: Any, name: str, *, example: str = "") -> float:
    """Check that an argument is a finite number above 0: `real_number` with ``above=0``."""
    return real_number(value, name, above=0, example=example)


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    if least is not None:
        return " above 0" if isinstance(least, int) and least == 1 else f" of at least {least:g}"
    return "" if most is None else f" of at most {most:g}"
