"""Numbers of channels in the code of a network: integers that remember which labels, or which attribute, they count."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch


@dataclass(frozen=True)
class Attribute:
    """A number that a module holds.

    Attributes:
        module: name of the module.
        name: name of the attribute.
        position: position in the attribute, if that is a list or tuple; -1 if it is a number.
    """

    module: str
    name: str
    position: int = -1


@dataclass(frozen=True, eq=False)
class Labels:
    """The number of labels in a row: the size of a dimension.

    Attributes:
        labels: ``[size]``.
    """

    labels: torch.Tensor


Variable = Attribute | Labels
Terms = dict[tuple[Variable, ...], Fraction]
"""A polynomial: products of at most two variables, with their factors. The empty product is the constant."""


@dataclass(eq=False)
class AsValue:
    """A use of a count as a value, as in ``dim ** -0.5``.

    Attributes:
        terms: the count.
        value: what it was.
        code: the function that used it.
        explained: whether it was seen to be no more than a factor of a tensor.
    """

    terms: Terms
    value: int
    code: Any
    explained: bool = False


@dataclass
class Numbers:
    """What is noted about the counts of a forward pass.

    Attributes:
        following: whether counts are followed now; afterwards they compute like plain integers.
        fixed: attributes that must keep their value: something else depends on it.
        as_values: uses of counts as values.
        as_integers: counts that became plain integers, by ``int(count)``.
        equal: terms that must stay zero: the code has compared counts with attributes, and found them equal.
        values: the values of all attributes that are counts.
    """

    following: bool = True
    fixed: set[Attribute] = field(default_factory=set)
    as_values: list[AsValue] = field(default_factory=list)
    as_integers: list[AsValue] = field(default_factory=list)
    equal: list[Terms] = field(default_factory=list)
    values: dict[Attribute, int] = field(default_factory=dict)

    def fix(self, terms: Mapping[tuple[Variable, ...], Fraction]) -> None:
        """Note that the attributes in some terms must keep their values."""
        self.fixed.update(variable for product in terms for variable in product if isinstance(variable, Attribute))


class Count(int):
    """An integer that is a polynomial of numbers of labels and attributes.

    Sums, differences, products and quotients with integers are counts again, as long as they are exact. Everything else
    gives plain numbers.

    Attributes:
        terms: the polynomial.
        numbers: where uses are noted.
    """

    terms: Terms
    numbers: Numbers

    def __new__(cls, value: int, terms: Terms, numbers: Numbers) -> Count:
        """Make a count."""
        count = super().__new__(cls, value)
        count.terms, count.numbers = terms, numbers
        return count

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (plain(self),)

    def __deepcopy__(self, memo: Any) -> int:
        return plain(self)

    def _sum(self, other: Any, sign: int, own: int = 1) -> Any:
        value = own * plain(self) + sign * plain(other)
        if not self.numbers.following:
            return value
        terms = {product: own * factor for product, factor in self.terms.items()}
        for product, factor in (other.terms if isinstance(other, Count) else {(): Fraction(other)}).items():
            terms[product] = terms.get(product, Fraction(0)) + sign * factor
        return Count(value, terms, self.numbers)

    def __add__(self, other: Any) -> Any:
        return self._sum(other, 1) if isinstance(other, int) else self._as_value(int.__add__, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._sum(other, -1) if isinstance(other, int) else self._as_value(int.__sub__, other)

    def __rsub__(self, other: Any) -> Any:
        return self._sum(other, 1, own=-1) if isinstance(other, int) else self._as_value(int.__rsub__, other)

    def __neg__(self) -> Any:
        return self._sum(0, 1, own=-1)

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return self._as_value(int.__mul__, other)
        value = plain(self) * plain(other)
        if not self.numbers.following:
            return value
        terms: Terms = {}
        for product, factor in self.terms.items():
            for second, times in (other.terms if isinstance(other, Count) else {(): Fraction(other)}).items():
                terms[product + second] = terms.get(product + second, Fraction(0)) + factor * times
        return Count(value, terms, self.numbers) if all(len(product) <= 2 for product in terms) else value

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return self._as_value(int.__floordiv__, other)
        value = plain(self) // plain(other)
        if not self.numbers.following or value * plain(other) != plain(self):
            return value
        if isinstance(other, Count):
            if any(isinstance(variable, Labels) for product in other.terms for variable in product):
                self.numbers.equal.append((self - other * value).terms)  # a ratio of two widths: a constant
                return value
            self.numbers.fix(other.terms)
        return Count(value, {product: factor / plain(other) for product, factor in self.terms.items()}, self.numbers)

    def __rfloordiv__(self, other: Any) -> Any:
        if isinstance(other, int):
            self.numbers.fix(self.terms)
        return int.__rfloordiv__(self, other)

    def __divmod__(self, other: Any) -> Any:
        return self // other, plain(self) % plain(other)

    def __truediv__(self, other: Any) -> Any:
        return self._as_value(int.__truediv__, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._as_value(int.__rtruediv__, other)

    def __pow__(self, other: Any, modulus: None = None) -> Any:  # type: ignore[override]
        return self._as_value(int.__pow__, other)

    def __float__(self) -> float:
        self._note_value()
        return float(plain(self))

    def __int__(self) -> int:
        if self.numbers.following and not _asked_from_here():
            self.numbers.as_integers.append(AsValue(self.terms, plain(self), calling_code()))
        return int.__int__(self)

    def __eq__(self, other: Any) -> bool:
        equal = int.__eq__(self, other) is True
        if equal and isinstance(other, Count) and self.numbers.following:
            variables = [v for terms in (self.terms, other.terms) for product in terms for v in product]
            if len({isinstance(variable, Attribute) for variable in variables}) == 2:
                self.numbers.equal.append((self - other).terms)
        return equal

    def __ne__(self, other: Any) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def _as_value(self, compute: Callable[[int, Any], Any], other: Any) -> Any:
        self._note_value()
        if isinstance(other, Count):
            other._note_value()
        value = compute(plain(self), other)
        if value is NotImplemented and isinstance(other, float):
            return getattr(float(plain(self)), compute.__name__)(other)
        return value

    def _note_value(self) -> None:
        if self.numbers.following:
            self.numbers.as_values.append(AsValue(self.terms, plain(self), calling_code()))


_HERE = os.path.dirname(__file__)


def plain(value: Any) -> int:
    """A number as a plain integer."""
    return int.__int__(value)


def _asked_from_here() -> bool:
    """Whether the function that calls the caller is one of this room."""
    frame: Any = inspect.currentframe()
    return bool(frame.f_back.f_back.f_code.co_filename.startswith(_HERE))


def calling_code() -> Any:
    """The function that runs now, outside of this room and of PyTorch."""
    frame: Any = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_HERE) and f"{os.sep}torch{os.sep}" not in file:
            break
        frame = frame.f_back
    return frame and frame.f_code


def labels_in(terms: Mapping[tuple[Variable, ...], Fraction]) -> list[torch.Tensor]:
    """The labels whose numbers are in some terms."""
    return [variable.labels for product in terms for variable in product if isinstance(variable, Labels)]
