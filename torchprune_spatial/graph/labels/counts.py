"""Numbers of channels in the code of a network: numbers that remember which labels, or which attribute, they count."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .notes import AsValue, Attribute, Condition, Labels, Numbers, Terms, labels_in

MOST_FACTORS = 4
"""Of products of more variables, only the value is known."""


class Count(int):
    """An integer that is a polynomial of numbers of labels and attributes.

    Sums, differences, products and quotients with integers are counts again, as long as they are exact. Comparisons,
    remainders and rounded quotients give plain values, which must stay what they are. Everything else gives plain
    numbers.

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
        if any(len(product) > MOST_FACTORS for product in terms):
            return self._as_value(int.__mul__, other)
        return Count(value, terms, self.numbers)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return self._as_value(int.__floordiv__, other)
        value = plain(self) // plain(other)
        if not self.numbers.following:
            return value
        if value * plain(other) != plain(self):
            return self._noted(operator.floordiv, self._divisor(other))
        if isinstance(other, Count):
            if any(isinstance(variable, Labels) for product in other.terms for variable in product):
                self.numbers.equal.append((self - other * value).terms)  # a ratio of two widths: a constant
                return value
            self.numbers.fix(other.terms)
        return Count(value, {product: factor / plain(other) for product, factor in self.terms.items()}, self.numbers)

    def __rfloordiv__(self, other: Any) -> Any:
        if isinstance(other, int) and self.numbers.following:
            self.numbers.fix(self.terms)
        return int.__rfloordiv__(self, other)

    def __mod__(self, other: Any) -> Any:
        if isinstance(other, Count) and labels_in(other.terms) and plain(self) % plain(other) == 0:
            return plain(self) - plain(self // other) * plain(other)  # a ratio of two widths
        other = self._divisor(other)
        rest = self._noted(operator.mod, other)
        if rest == 0 and type(other) is int and other > 1 and self._is_asked():  # it must stay a multiple
            value = plain(self) // other
            multiple = Attribute("", f"{value} * {other} #{len(self.numbers.values)}")
            self.numbers.values[multiple] = value
            self.numbers.equal.append((self - Count(value, {(multiple,): Fraction(1)}, self.numbers) * other).terms)
        return rest

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __truediv__(self, other: Any) -> Any:
        if type(other) not in (int, float) or not other or not self.numbers.following:
            return self._as_value(int.__truediv__, other)
        terms = {product: factor / Fraction(other) for product, factor in self.terms.items()}
        return Quotient(plain(self) / other, terms, self.numbers)

    def __rtruediv__(self, other: Any) -> Any:
        return self._as_value(int.__rtruediv__, other)

    def __pow__(self, other: Any, modulus: None = None) -> Any:  # type: ignore[override]
        return self._as_value(int.__pow__, other)

    def __float__(self) -> float:
        self._note_value()
        return float(plain(self))

    def __int__(self) -> int:
        if self._is_asked():
            self.numbers.as_integers.append(AsValue(self.terms, plain(self), calling_code(), calling_line()))
        return int.__int__(self)

    def __eq__(self, other: Any) -> Any:
        equal = self._noted(operator.eq, other)
        if equal is True and isinstance(other, int) and self._is_asked():
            self.numbers.equal.append((self - other).terms)
        return equal

    def __ne__(self, other: Any) -> Any:
        equal = self == other
        return not equal if isinstance(equal, bool) else operator.ne(plain(self), other)

    def __lt__(self, other: Any) -> Any:
        return self._noted(operator.lt, other)

    def __le__(self, other: Any) -> Any:
        return self._noted(operator.le, other)

    def __gt__(self, other: Any) -> Any:
        return self._noted(operator.gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._noted(operator.ge, other)

    def __bool__(self) -> bool:
        return bool(self._noted(operator.ne, 0))

    __hash__ = int.__hash__

    def _noted(self, operation: Callable[[Any, Any], Any], other: Any) -> Any:
        """Compute what the code asks of the count, and note that it must stay so."""
        found = operation(plain(self), plain(other) if isinstance(other, Count) else other)
        if isinstance(found, int) and self._is_asked():
            count, operand = (self - other, 0) if isinstance(other, Count) else (self, other)
            self.numbers.conditions.append(Condition(count.terms, operation, operand, found, calling_line()))
        return found

    def _divisor(self, other: Any) -> Any:
        """What a count is divided by, as a plain number, which must keep its value."""
        if isinstance(other, Count) and self.numbers.following:
            self.numbers.fix(other.terms)
            for count in (self, other) if labels_in(other.terms) else ():
                count._note_value()
        return plain(other) if isinstance(other, int) else other

    def _is_asked(self) -> bool:
        return _is_asked(self.numbers)

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
            self.numbers.as_values.append(AsValue(self.terms, plain(self), calling_code(), calling_line()))


class Quotient(float):
    """A count that is divided by a number. Comparisons of it must stay what they are; it is a value in any other use.

    Attributes:
        terms: the polynomial.
        numbers: where uses are noted.
    """

    terms: Terms
    numbers: Numbers

    def __new__(cls, value: float, terms: Terms, numbers: Numbers) -> Quotient:
        """Make a quotient."""
        quotient = super().__new__(cls, value)
        quotient.terms, quotient.numbers = terms, numbers
        return quotient

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (self.value(),)

    def value(self) -> float:
        """The plain number; it is noted that it is used as a value."""
        value = float.__add__(self, 0.0)
        if self.numbers.following:
            self.numbers.as_values.append(AsValue(self.terms, value, calling_code(), calling_line()))
        return value

    def _noted(self, operation: Callable[[Any, Any], Any], other: Any) -> Any:
        if isinstance(other, (Count, Quotient)):
            return operation(self.value(), float(other))
        found = operation(self, other)
        if isinstance(found, bool) and _is_asked(self.numbers):
            self.numbers.conditions.append(Condition(self.terms, operation, other, found, calling_line()))
        return found

    __hash__ = float.__hash__


def _as_value(name: str) -> Callable[..., Any]:
    def compute(self: Quotient, *others: Any) -> Any:
        return getattr(self.value(), name)(*others)

    return compute


def _as_condition(name: str) -> Callable[..., Any]:
    def compare(value: Any, other: Any) -> Any:
        return getattr(float(Fraction(value)), name)(other)

    return lambda self, other: self._noted(compare, other)


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Quotient, f"__{_name}__", _as_condition(f"__{_name}__"))
for _name in (
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod"),
    *("pow", "rpow", "divmod", "rdivmod", "neg", "pos", "abs", "round", "trunc", "floor", "ceil", "int", "float"),
    *("bool", "str", "repr", "format"),
):
    setattr(Quotient, f"__{_name}__", _as_value(f"__{_name}__"))


def _is_asked(numbers: Numbers) -> bool:
    """Whether it is the network's code that uses a number."""
    frame: Any = inspect.currentframe()
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return numbers.following and not frame.f_code.co_filename.startswith(_HERE)


_HERE = os.path.dirname(__file__)


def plain(value: Any) -> int:
    """A number as a plain integer."""
    return int.__int__(value)


def _calling_frame() -> Any:
    """That of the function that runs now, outside of this room and of PyTorch."""
    frame: Any = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_HERE) and f"{os.sep}torch{os.sep}" not in file:
            break
        frame = frame.f_back
    return frame


def calling_code() -> Any:
    """The function that runs now, outside of this room and of PyTorch."""
    frame = _calling_frame()
    return frame and frame.f_code


def calling_line() -> str:
    """Its line, as ``"file.py:12"``; empty if there is none."""
    frame = _calling_frame()
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else ""
