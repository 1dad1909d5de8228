"""The channels of a network by name: their classes, what their numbers demand, and what has been removed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn as nn

from .attention import scales_queries
from .factors import Owners, scale_weights
from .labels.classes import FROZEN
from .labels.moves import Moves, linear
from .labels.notes import Attribute, Condition, Labels, Relation, Terms, Variable, labels_in
from .labels.trace import Known, Traced

TIED = "it is tied to channels that cannot be removed"
"""The reason where no other is known."""


@dataclass
class Coupled:
    """Classes that have a root of their own.

    Attributes:
        blocks: ``[blocks, size]``: equally many of each block must be removed, from any positions.
    """

    blocks: torch.Tensor

    @property
    def classes(self) -> torch.Tensor:
        """All classes, block by block."""
        return self.blocks.flatten()


class Channels:
    """What is known of a network's channels, without the network: it can be copied, and used for copies of the network.

    Args:
        traced: what a forward pass has shown.

    Attributes:
        classes: the classes of labels.
        axes: the labels of each dimension of each parameter, as far as they are not removed.
        order: names of the layers, in the order in which they ran.
        equal_counts: tensors of labels ``[blocks, size]``: each block must lose equally many.
        made: whether labels are outputs of convolutions and matrix products, ``[labels]`` bool.
        removed: the classes that are removed, ``[labels]`` bool.
        depthwise: names of convolutions of which each group read one channel at first.
    """

    def __init__(self, traced: Traced):
        self.classes, self.axes, self.order = traced.classes, traced.axes, traced.order
        self._relations, self._numbers, self._factors = traced.relations, traced.numbers, traced.factors
        self.equal_counts, self.made = traced.equal_counts, torch.zeros(len(self.classes), dtype=torch.bool)
        self.made[traced.made] = True
        self._trained, self._filled = traced.trained, traced.filled
        self._by_attribute: dict[Attribute, Relation] = {}
        self.removed = torch.zeros(len(self.classes), dtype=torch.bool)
        self._solve()
        self.depthwise: set[str] = set()
        self._at_first = [self._value(factor.terms) for factor in self._factors]

    def __deepcopy__(self, memo: object) -> Channels:
        """A copy that shares what no removal changes."""
        copied = copy.copy(self)
        copied.classes, copied.removed = copy.deepcopy(self.classes), self.removed.clone()
        copied.axes, copied._moves = dict(self.axes), [Coupled(move.blocks) for move in self._moves]
        copied._numbers, copied._by_attribute = copy.copy(self._numbers), dict(self._by_attribute)
        copied._numbers.fixed = set(self._numbers.fixed)
        return copied

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """A context after which the channels are as before."""
        before = vars(self)
        self.__dict__ = vars(copy.deepcopy(self))
        try:
            yield
        finally:
            self.__dict__ = before

    def couple(self, groups: Sequence[Sequence[torch.Tensor]]) -> None:
        """Unite the labels at equal positions of the tensors of each group, and solve what is demanded again."""
        if not groups:
            return
        for first, *others in groups:
            for other in others:
                self.classes.unite(first, other)
        self._solve()

    def _solve(self) -> None:
        moves = Moves(self.classes, self.equal_counts, self._relations, self._numbers)
        self._moves = [Coupled(blocks) for blocks in moves.blocks]
        self._index_moves()
        left = [(relation, linear(relation.terms, self._numbers, self.classes)) for relation in self._relations]
        while left:  # an attribute can follow from another one
            found, rest = False, []
            for relation, terms in left:
                unknown = {v for v in terms if isinstance(v, Attribute)} - self._by_attribute.keys()
                if len(unknown) == 1:
                    self._by_attribute[unknown.pop()] = relation
                    found = True
                elif unknown:
                    rest.append((relation, terms))
            left = rest if found else []
        self._conditions = self._open_conditions()

    def _index_moves(self) -> None:
        """Note for each class its move, -1 if it is in none."""
        self._move_of = torch.full((len(self.classes),), -1)
        for i, move in enumerate(self._moves):
            self._move_of[move.classes] = i

    def _moves_of(self, classes: torch.Tensor) -> list[Coupled]:
        """The moves of some classes."""
        return [self._moves[i] for i in self._move_of[classes].unique().tolist() if i >= 0]

    def _open_conditions(self) -> list[Condition]:
        """The conditions that a removal could break, each once."""
        found = {}
        for condition in self._numbers.conditions:
            key = [(tuple(map(self._what_varies, product)), factor) for product, factor in condition.terms.items()]
            if any(varies for variables, _ in key for _, varies in variables):
                found[tuple(key), condition.operation, condition.operand] = condition
        return list(found.values())

    def _what_varies(self, variable: Variable) -> tuple[str, tuple[int, ...]]:
        """A name for a number, and the classes of which it depends, or that of a place where it does."""
        if isinstance(variable, Attribute):
            return str(variable), (FROZEN,) if variable in self._by_attribute else ()
        classes = self.classes.of(variable.labels)
        return str(len(classes)), tuple(classes[classes != FROZEN].tolist())

    def known(self) -> Known:
        """The labels, for following the channels again."""
        return Known(self.classes, self.axes, self.equal_counts, self._trained, self._filled)

    def singles(self) -> set[int]:
        """Classes that are all that is left of a dimension, or of a block: their labels cannot be told from none."""
        rows = [labels[None] for labels in self.axes.values()] + self.equal_counts
        found: set[int] = set()
        for blocks in rows:
            classes = self.classes.of(blocks)
            for row, gone in zip(classes, self.removed[classes], strict=True):
                left = row[~gone].unique()
                found.update(left.tolist() if len(left) == 1 else [])
        return found

    def why(self, labels: torch.Tensor) -> str:
        """Why some of the labels cannot be removed; empty if all can."""
        frozen = labels[self.classes.of(labels) == FROZEN]
        reasons = self.classes.reason_of[frozen].tolist()
        texts = list(dict.fromkeys(self.classes.reasons[reason] or TIED for reason in dict.fromkeys(reasons)))
        if not texts:
            return ""
        some = f"{len(frozen)} of {len(labels)} channels: " if len(frozen) < len(labels) else ""
        return some + "; ".join(texts[:2])

    def coordinates(self) -> list[set[tuple[str, int, int]]]:
        """The coordinates (parameter or buffer, dimension, index) of each class that can be removed.

        The inputs of a convolution with groups are counted through all groups.
        """
        found: dict[int, set[tuple[str, int, int]]] = {}
        for (name, dim), labels in self.axes.items():
            for index, root in enumerate(self.classes.of(labels).tolist()):
                if root != FROZEN:
                    found.setdefault(root, set()).add((name, dim, index))
        return list(found.values())

    def frozen(self) -> int:
        """How many indices of parameters cannot be removed."""
        return sum(int((self.classes.of(labels) == FROZEN).sum()) for labels in self.axes.values())

    def within_reach(self, model: nn.Module) -> float:
        """The share of the model's parameters that can be removed, by input or output channels."""
        total = within = 0
        for name, parameter in model.named_parameters():
            free = torch.zeros(parameter.shape, dtype=torch.bool)
            for dim, size in enumerate(parameter.shape):
                labels = self.axes.get((name, dim))
                if labels is None or not size:
                    continue
                can = self.classes.of(labels) != FROZEN
                rows = can.reshape(-1, size)  # for convolutions with groups, a row a group
                per_row = parameter.shape[0] // len(rows)
                if len(rows) > 1:
                    free |= rows.repeat_interleave(per_row, 0).reshape(-1, size, *[1] * (parameter.dim() - 2))
                else:
                    free |= can.reshape([-1 if d == dim else 1 for d in range(parameter.dim())])
            total, within = total + free.numel(), within + int(free.sum())
        return within / max(1, total)

    def roots(self, sides: Sequence[tuple[str, torch.Tensor, bool]]) -> Iterator[tuple[str, Coupled | None]]:
        """Yield the roots of all groups.

        Args:
            sides: names and labels of the output sides of layers, in order; and whether this is a layer, not a tensor.

        Yields:
            The name of the root, and its classes; None if they are those of the layer with this name, in order.
        """
        visited = torch.zeros(len(self.classes), dtype=torch.bool)
        visited[FROZEN] = True
        for name, labels, is_layer in sides:
            classes = self.classes.of(labels)
            if bool(visited[classes].all()):
                continue
            free = bool((~visited[classes]).all()) and bool((self._move_of[classes] < 0).all())
            if is_layer and free and len(classes.unique()) == len(classes):
                visited[classes] = True
                yield name, None
                continue
            left = classes[~visited[classes]].unique()
            groups, rest = self._moves_of(left), left[self._move_of[left] < 0]
            for i, coupled in enumerate([*groups, *([Coupled(rest[None])] if len(rest) else [])], start=1):
                visited[coupled.classes] = True
                yield f"{name}#{i}", coupled

    def refusal(self, classes: torch.Tensor) -> str:
        """Why some classes cannot be removed now: the code cannot have the numbers that are left; empty if it can."""
        gone = torch.zeros(len(self.classes), dtype=torch.bool)
        gone[classes] = True
        for move in self._moves_of(classes):
            left = (~gone[move.blocks]).sum(1)
            if len(left[left > 0].unique()) != 1:
                return f"equally many of each of the {len(left)} blocks of channels must be removed"
        before, self.removed = self.removed, self.removed | gone
        try:
            for condition in self._conditions:
                if condition.operation(self._value(condition.terms), condition.operand) != condition.found:
                    return f"the code would run otherwise with the numbers that are left ({condition.line})"
        finally:
            self.removed = before
        return ""

    def forget_frozen(self) -> None:
        """Drop the moves of classes that have been frozen."""
        self._moves = [move for move in self._moves if bool((self.classes.of(move.classes) != FROZEN).all())]
        self._index_moves()

    def remove(self, classes: torch.Tensor, model: nn.Module, owners: Owners) -> None:
        """Note that classes are removed, and fit attributes and factors of the network to that."""
        gone = torch.zeros_like(self.removed)
        gone[classes] = True

        def touches(labels: torch.Tensor) -> bool:
            return bool(gone[self.classes.of(labels)].any())

        attributes: list[Attribute] = []
        for attribute, relation in self._by_attribute.items():  # in the order in which they follow from each other
            others = {variable for product in relation.terms for variable in product}
            if others & set(attributes) or any(map(touches, (relation.labels, *labels_in(relation.terms)))):
                attributes.append(attribute)
        factors = [
            factor
            for factor in self._factors
            if any(v in attributes if isinstance(v, Attribute) else touches(v.labels) for p in factor.terms for v in p)
        ]
        before = [self._value(factor.terms) for factor in factors]
        self.removed[classes] = True
        for move in self._moves_of(classes):
            left = ~self.removed[move.blocks]
            rows, sizes = move.blocks[left], left.sum(1).unique()
            if len(sizes[sizes > 0]) > 1:
                self.classes.freeze(rows, "unequal numbers were removed from its blocks")
                rows = rows[:0]
            move.blocks = rows.reshape(-1, max(1, int(sizes.max())))
        self._fit_attributes(model, attributes)
        for factor, old in zip(factors, before, strict=True):
            new = self._value(factor.terms)
            if new != old and new and old and not next(model.parameters()).is_meta:
                scale_weights(self.axes, factor.makers, float(old / new) ** factor.power, owners)
                module: Any = model.get_submodule(factor.module)
                if scales_queries(module):  # `update_attention` has nothing left to do
                    module.scale = float(new) ** factor.power

    def changes_of_factors(self) -> list[float]:
        """How the factors of tensors have changed: what each is now, divided by what it was at first."""
        pairs = zip(self._factors, self._at_first, strict=True)
        return [float(self._value(factor.terms) / first) ** factor.power for factor, first in pairs if first]

    def _lost(self, labels: torch.Tensor) -> int:
        return int(self.removed[self.classes.of(labels)].sum())

    def _value(self, terms: Terms) -> Fraction:
        """The present value of a count."""
        total = Fraction(0)
        for product, factor in terms.items():
            for variable in product:
                if isinstance(variable, Labels):
                    factor = factor * (len(variable.labels) - self._lost(variable.labels))
                else:
                    factor = factor * self._attribute(variable)
            total += factor
        return total

    def _attribute(self, attribute: Attribute) -> Fraction:
        """The value that an attribute must have now."""
        value = Fraction(self._numbers.values[attribute])
        if attribute in self._numbers.fixed:
            return value
        relation = self._by_attribute.get(attribute)
        if relation is None:
            return value
        rows = torch.atleast_2d(relation.labels)
        left = (~self.removed[self.classes.of(rows)]).any(1).nonzero()
        row = rows[int(left[0])] if len(left) else rows[0]
        terms = linear(relation.terms, self._numbers, self.classes)
        lost = Fraction(self._lost(row))
        for variable, factor in terms.items():
            if isinstance(variable, Labels):
                lost -= factor * self._lost(variable.labels)
            elif variable != attribute:
                lost -= factor * (self._numbers.values[variable] - self._attribute(variable))
        return value - lost / terms[attribute]

    def _fit_attributes(self, model: nn.Module, attributes: Iterable[Attribute]) -> None:
        """Give attributes of modules the values that fit."""
        for attribute in attributes:
            value, own = int(self._attribute(attribute)), model.get_submodule(attribute.module).__dict__
            old = own.get(attribute.name)
            if old is None:  # it is no attribute, but a factor of a count
                continue
            if attribute.position >= 0:
                items = list(old)
                items[attribute.position] = value
                own[attribute.name] = torch.Size(items) if isinstance(old, torch.Size) else type(old)(items)
            elif isinstance(old, int):
                own[attribute.name] = value
