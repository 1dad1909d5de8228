"""Solving what the code demands of numbers of channels: sets of blocks that may lose channels together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from .classes import FROZEN, LabelClasses
from .notes import Attribute, Labels, Numbers, Relation, Terms

Row = Counter[int | Attribute]
"""An equation: the sum of factors times what is lost of each class (or attribute) is zero."""

MOST_MOVES = 16
"""No more moves than this are looked for among classes that depend on each other."""

SECONDS = 10.0
"""The search for a move ends after this time."""


class Moves:
    """The ways to remove classes whose numbers depend on each other.

    Numbers of channels must be equal in the blocks of a chunk, in the heads of attention, in the groups of a
    convolution; and the width of a network may be the number of heads times their width. These are linear equations in
    the numbers of classes that are removed. Classes with the same column in the equations form a *cell*: it does not
    matter which of them are removed, only how many. A *move* is the smallest vector of numbers, one a cell, that solves
    the equations; it is found by mixed-integer programming, and may be made several times.

    Args:
        classes: the classes. Those that no move removes are frozen.
        equal_counts: tensors of labels ``[blocks, size]``: each block must lose equally many.
        relations: equations with attributes and with the sizes of other dimensions.
        numbers: the attributes that are fixed.

    Attributes:
        blocks: for each move the classes ``[blocks, size]``. A removal that takes equally many of each block, from any
            positions, is one that the network's code allows.
        constrained: whether each class stands in an equation, ``[labels]`` bool.
    """

    def __init__(
        self, classes: LabelClasses, equal_counts: list[torch.Tensor], relations: list[Relation], numbers: Numbers
    ):
        self._fix_factors(classes, relations, numbers)
        rows = {_normalized(row): row for row in _rows(classes, equal_counts, relations, numbers)}
        rows.pop((), None)
        columns: dict[int | Attribute, list[tuple[int, int]]] = defaultdict(list)
        for i, row in enumerate(rows.values()):
            for unknown, factor in row.items():
                columns[unknown].append((i, factor))
        cells: dict[object, list[int]] = defaultdict(list)
        for unknown, column in columns.items():
            if isinstance(unknown, int):
                cells[tuple(column)].append(unknown)
        self.constrained = torch.zeros(len(classes), dtype=torch.bool)
        members = [sorted(cell) for cell in cells.values()]
        columns_of_cells = [columns[cell[0]] for cell in members]
        for cell in members:
            self.constrained[cell] = True
        attributes = [columns[unknown] for unknown in columns if isinstance(unknown, Attribute)]
        self.blocks = [
            blocks
            for cells_, matrix in _components(members, columns_of_cells, attributes, len(rows))
            for blocks in _moves(cells_, matrix)
        ]
        moving = torch.zeros_like(self.constrained)
        for blocks in self.blocks:
            moving[blocks] = True
        classes.freeze(torch.nonzero(self.constrained & ~moving).flatten(), "its number is tied to one that is fixed")

    @staticmethod
    def _fix_factors(classes: LabelClasses, relations: list[Relation], numbers: Numbers) -> None:
        """In products of several unknown numbers, all but one keep their values: attributes first."""
        for relation in relations:
            for product in relation.terms:
                unknown = [v for v in product if v not in numbers.fixed and not _is_frozen(classes, v)]
                unknown.sort(key=lambda v: isinstance(v, Labels))
                for variable in unknown[:-1]:
                    if isinstance(variable, Labels):
                        classes.freeze(variable.labels, "the code multiplies its number by another one")
                    else:
                        numbers.fixed.add(variable)


def _is_frozen(classes: LabelClasses, variable: Attribute | Labels) -> bool:
    return isinstance(variable, Labels) and bool((classes.of(variable.labels) == FROZEN).all())


def linear(terms: Terms, numbers: Numbers, classes: LabelClasses) -> dict[Attribute | Labels, Fraction]:
    """The unknown numbers in a polynomial with their factors, all other numbers being fixed."""
    result: dict[Attribute | Labels, Fraction] = defaultdict(Fraction)
    for product, factor in terms.items():
        unknown = [v for v in product if v not in numbers.fixed and not _is_frozen(classes, v)]
        for variable in set(product) - set(unknown):
            value = numbers.values[variable] if isinstance(variable, Attribute) else len(variable.labels)
            factor = factor * value ** product.count(variable)
        if len(unknown) == 1:
            result[unknown[0]] += factor
    return {variable: factor for variable, factor in result.items() if factor}


def _rows(
    classes: LabelClasses, equal_counts: list[torch.Tensor], relations: list[Relation], numbers: Numbers
) -> Iterator[Row]:
    seen = set()
    for labels in equal_counts:
        blocks = classes.of(labels)
        key = (blocks.shape, blocks.numpy().tobytes())
        if key in seen:
            continue
        seen.add(key)
        first, *others = blocks.tolist()
        for other in others:
            row: Row = Counter(first)
            row.subtract(other)
            yield row
    for relation in relations:
        terms = linear(relation.terms, numbers, classes)
        scale = math.lcm(1, *(factor.denominator for factor in terms.values()))
        row = Counter()
        for label in classes.of(torch.atleast_2d(relation.labels)[0]).tolist():
            row[label] += scale
        for variable, factor in terms.items():
            of_one = int(factor * scale)
            if isinstance(variable, Labels):
                for label in classes.of(variable.labels).tolist():
                    row[label] -= of_one
            else:
                row[variable] -= of_one
        yield row


def _place(unknown: int | Attribute) -> tuple[int, str]:
    return (unknown, "") if isinstance(unknown, int) else (-1, str(unknown))


def _normalized(row: Row) -> tuple[tuple[int | Attribute, int], ...]:
    """Drop what is frozen, and common divisors; as a key, too."""
    for unknown in [u for u, factor in row.items() if factor == 0 or u == FROZEN]:
        del row[unknown]
    if not row:
        return ()
    order = sorted(row, key=_place)
    divisor = math.gcd(*row.values()) * (1 if row[order[0]] > 0 else -1)
    for unknown in row:
        row[unknown] //= divisor
    return tuple((unknown, row[unknown]) for unknown in order)


def _components(
    members: list[list[int]],
    columns: list[list[tuple[int, int]]],
    attributes: list[list[tuple[int, int]]],
    rows: int,
) -> Iterator[tuple[list[list[int]], Any]]:
    """The cells that depend on each other, with their equations: a column a cell, then one an attribute."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components

    entries = [(i, j, float(factor)) for j, column in enumerate([*columns, *attributes]) for i, factor in column]
    if not entries:
        return
    i, j, values = map(np.array, zip(*entries, strict=True))
    count = len(columns) + len(attributes)
    matrix = csr_array(coo_array((values, (i, j)), shape=(rows, count)))
    edges = coo_array((np.ones(len(i)), (i, rows + j)), shape=(rows + count,) * 2)
    _, component = connected_components(edges, directed=False)
    for number in np.unique(component[rows : rows + len(columns)]):
        of_rows = np.flatnonzero(component[:rows] == number)
        of_columns = np.flatnonzero(component[rows:] == number)
        cells = [members[k] for k in of_columns if k < len(columns)]
        yield cells, matrix[of_rows][:, of_columns]


def _moves(cells: list[list[int]], equations: Any) -> Iterator[torch.Tensor]:
    """The moves of cells that depend on each other, as classes ``[blocks, size]``."""
    left = [list(cell) for cell in cells]
    for _ in range(MOST_MOVES):
        move = _move(np.array([len(cell) for cell in left]), equations)
        if move is None:
            return
        times = min(len(cell) // k for cell, k in zip(left, move, strict=True) if k)
        if times < 2:
            return  # it would remove everything
        blocks = []
        for cell, k in zip(left, move, strict=True):
            blocks += [cell[i * times : (i + 1) * times] for i in range(k)]
            del cell[: k * times]
        yield torch.tensor(blocks)


def _move(sizes: np.ndarray, equations: Any) -> list[int] | None:
    """How many classes of each cell the smallest move takes, relative to the cells' sizes; None if there is no move."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    cells, unknowns = len(sizes), equations.shape[1]
    if not sizes.any():
        return None
    largest = np.concatenate([sizes, np.full(unknowns - cells, np.inf), [1.0]])
    share = csr_array(np.hstack([np.eye(cells), np.zeros((cells, unknowns - cells)), -sizes[:, None]]))
    padded = csr_array(np.hstack([equations.toarray(), np.zeros((equations.shape[0], 1))]))
    some = np.concatenate([np.ones(cells), np.zeros(unknowns - cells + 1)])[None]
    conditions = [LinearConstraint(padded, 0, 0), LinearConstraint(share, -np.inf, 0), LinearConstraint(some, 1)]
    whole = np.concatenate([np.ones(unknowns), [0.0]])
    goal = np.concatenate([np.zeros(unknowns), [1.0]])
    limits = {"time_limit": SECONDS}
    finest = milp(goal, integrality=whole, bounds=Bounds(0, largest), constraints=conditions, options=limits)
    if finest.x is None:
        return None
    # of all moves as fine as this, the one that takes part of most cells
    most = np.floor(sizes * finest.x[-1] + 1e-6)
    largest = np.concatenate([most, largest[cells:]])
    goal = np.concatenate([-1 / np.maximum(sizes, 1), np.zeros(unknowns - cells + 1)])
    widest = milp(goal, integrality=whole, bounds=Bounds(0, largest), constraints=conditions[:1], options=limits)
    found = finest if widest.x is None else widest
    return [round(k) for k in found.x[:cells]]
