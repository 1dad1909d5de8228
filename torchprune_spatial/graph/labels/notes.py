"""What is noted about numbers of channels in the code of a network: what they count, and what is demanded of them."""

from __future__ import annotations

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
"""A polynomial: products of variables, with their factors. The empty product is the constant."""


@dataclass(eq=False)
class AsValue:
    """A use of a count as a value, as in ``dim ** -0.5``.

    Attributes:
        terms: the count.
        value: what it was.
        code: the function that used it.
        line: its line of code.
        explained: whether it was seen to be no more than a factor of a tensor.
    """

    terms: Terms
    value: float
    code: Any
    line: str
    explained: bool = False


@dataclass(frozen=True, eq=False)
class Condition:
    """What the code has found out about a count, as in ``if x.shape[1] != y.shape[1]``: it must stay so.

    Attributes:
        terms: the count.
        operation, operand: what the code has computed of it.
        found: what came out.
        line: the line of code.
    """

    terms: Terms
    operation: Callable[[Any, Any], Any]
    operand: Any
    found: Any
    line: str


@dataclass(frozen=True)
class Relation:
    """The labels must lose as many as the terms that the code has for their number.

    Attributes:
        labels: ``[size]``; or ``[blocks, size]``, of which each block that is not removed as a whole is meant.
        terms: what the code computes the size from.
    """

    labels: torch.Tensor
    terms: Terms


@dataclass(eq=False)
class Factor:
    """A factor of a tensor that is a power of a count, such as the scale of attention.

    Attributes:
        makers: labels of the weights of which the tensor is a linear function, ``[n]``.
        candidates: what else may take their place: the makers of what the tensor is multiplied with.
        places: positions of the calls in which the tensor is multiplied, among all calls of functions in `BEFORE`.
        terms: the count.
        power: the power.
        module: the name of the module whose code it is.
    """

    makers: torch.Tensor
    candidates: list[torch.Tensor]
    places: list[int]
    terms: Terms
    power: float
    module: str


@dataclass
class Numbers:
    """What is noted about the counts of a forward pass.

    Attributes:
        following: whether counts are followed now; afterwards they compute like plain integers.
        fixed: attributes that must keep their value: something else depends on it.
        as_values: uses of counts as values.
        as_integers: counts that became plain integers, by ``int(count)``.
        equal: terms that must stay zero: the code has compared counts, and found them equal.
        conditions: what else the code has found out about counts.
        values: the values of all attributes that are counts.
    """

    following: bool = True
    fixed: set[Attribute] = field(default_factory=set)
    as_values: list[AsValue] = field(default_factory=list)
    as_integers: list[AsValue] = field(default_factory=list)
    equal: list[Terms] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    values: dict[Attribute, int] = field(default_factory=dict)

    def fix(self, terms: Mapping[tuple[Variable, ...], Fraction]) -> None:
        """Note that the attributes in some terms must keep their values."""
        self.fixed.update(variable for product in terms for variable in product if isinstance(variable, Attribute))


def labels_in(terms: Mapping[tuple[Variable, ...], Fraction]) -> list[torch.Tensor]:
    """The labels whose numbers are in some terms."""
    return [variable.labels for product in terms for variable in product if isinstance(variable, Labels)]
