"""Which coordinates of parameters must be removed together, followed element by element in plain loops.

A coordinate is ``(parameter name, dimension, index)``. Each element of a tensor has, for each of its dimensions, a set
of coordinates: if one of them is removed, so is the element. Operations move these sets, unite them, or freeze them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence

from torch import nn

Coordinate = tuple[str, int, int]
Labels = frozenset[Coordinate]
Index = tuple[int, ...]

NONE: Labels = frozenset()


def indices(shape: Sequence[int]) -> Iterable[Index]:
    return itertools.product(*(range(size) for size in shape))


class Labelled:
    """A tensor of labels: ``at[index][dimension]`` is the set of an element's labels along a dimension."""

    def __init__(self, shape: Sequence[int], at: Callable[[Index], Sequence[Labels]]):
        self.shape = tuple(shape)
        self.at = {index: tuple(at(index)) for index in indices(self.shape)}
        assert all(len(sets) == len(self.shape) for sets in self.at.values())

    def along(self, dimension: int, index: Index) -> Labels:
        return self.at[index][dimension]


def unlabelled(shape: Sequence[int]) -> Labelled:
    return Labelled(shape, lambda index: [NONE] * len(shape))


def moved(
    x: Labelled, shape: Sequence[int], source: Callable[[Index], Index], dimensions: Sequence[Sequence[int]]
) -> Labelled:
    """Element ``index`` of the result is element ``source(index)`` of ``x``.

    Args:
        x: what is moved.
        shape: of the result.
        source: where an element comes from.
        dimensions: for each dimension of the result, those of ``x`` that became it.
    """
    return Labelled(
        shape,
        lambda index: [NONE.union(*(x.along(old, source(index)) for old in olds)) for olds in dimensions],
    )


def coordinates(model: nn.Module) -> set[Coordinate]:
    """A coordinate for each index of each dimension of size > 1; those of the kernels of convolutions are left out."""
    layers = dict(model.named_modules())
    found = set()
    for name, parameter in model.named_parameters():
        is_kernel = isinstance(layers[name.rpartition(".")[0]], nn.modules.conv._ConvNd) and parameter.dim() > 1
        for dimension, size in enumerate(parameter.shape[: 2 if is_kernel else None]):
            if size > 1:
                found |= {(name, dimension, index) for index in range(size)}
    return found


class Follower:
    """Unites and freezes labels: a naive union-find, in which each label knows the set that it is in.

    Attributes:
        frozen: labels that cannot be removed.
        aligned: sets of labels at the same place of blocks from which as many must be removed. To remove each set
            together is one way to do so.
        counted: sets of labels, of all the blocks from which as many must be removed: any of these may be united.
        not_compared: coordinates that are shared by several blocks, such as the inputs of a grouped convolution.
        markers: labels that stand for elements without labels.
    """

    def __init__(self, shapes: dict[str, Sequence[int]]):
        self.shapes = shapes
        self.sets: dict[Coordinate, set[Coordinate]] = {}
        self.frozen: set[Coordinate] = set()
        self.aligned: list[Labels] = []
        self.counted: list[Labels] = []
        self.not_compared: set[Coordinate] = set()
        self.markers: set[Coordinate] = set()

    def label(self, parameter: str, dimension: int, index: int) -> Labels:
        """The label of one index of a parameter; none if the dimension has size 1, or if there is no such parameter."""
        if self.shapes.get(parameter, ())[dimension : dimension + 1] in ((), (1,)):
            return NONE
        return frozenset([(parameter, dimension, index)])

    def parameter(self, name: str) -> Labelled:
        shape = self.shapes[name]
        return Labelled(shape, lambda index: [self.label(name, d, i) for d, i in enumerate(index)])

    def unite(self, labels: Iterable[Coordinate]) -> None:
        unite(self.sets, labels)

    def freeze(self, labels: Iterable[Coordinate]) -> None:
        self.frozen |= set(labels)

    def stuck(self) -> Labels:
        """A new label that stands for elements without labels; what is united with it cannot be removed."""
        marker = ("stuck", 0, len(self.markers))
        self.markers.add(marker)
        return frozenset([marker])

    def meet(self, one: Labels, other: Labels) -> Labels:
        """Both stand at one index of a dimension: they are united; frozen, if one of them has no labels."""
        if one and other:
            self.unite(one | other)
        else:
            self.freeze(one | other)
        return one | other

    def removable(self, x: Labelled) -> Labelled:
        """Without the labels that are frozen already: what cannot be removed does not tie what can to anything."""
        frozen = self.frozen.union(*(self.sets.get(label, ()) for label in self.frozen))
        return Labelled(x.shape, lambda index: [labels - frozen for labels in x.at[index]])

    def combine(self, a: Labelled, b: Labelled) -> Labelled:
        """Element-wise combination, with broadcasting."""
        rank = max(len(a.shape), len(b.shape))
        a, b = (
            moved(
                x,
                (1,) * new + x.shape,
                lambda index, new=new: index[new:],
                [[]] * new + [[d] for d in range(len(x.shape))],
            )
            for x, new in ((x, rank - len(x.shape)) for x in (a, b))
        )
        shape = [max(sizes) for sizes in zip(a.shape, b.shape, strict=True)]

        def at(index: Index) -> list[Labels]:
            of_a = a.at[tuple(0 if size == 1 else i for i, size in zip(index, a.shape, strict=True))]
            of_b = b.at[tuple(0 if size == 1 else i for i, size in zip(index, b.shape, strict=True))]
            result = []
            for d in range(rank):
                if (of_a[d] or a.shape[d] > 1) and (of_b[d] or b.shape[d] > 1):
                    self.meet(of_a[d], of_b[d])
                result.append(of_a[d] | of_b[d])
            return result

        return Labelled(shape, at)

    def reduced(self, x: Labelled, dimensions: Collection[int]) -> Labelled:
        """A sum over dimensions, which keep size 1: their labels are dropped, all others of one index are united."""
        shape = [1 if d in dimensions else size for d, size in enumerate(x.shape)]
        sets: dict[Index, list[Labels]] = {}
        for index, labels in x.at.items():
            target = tuple(0 if d in dimensions else i for d, i in enumerate(index))
            before = sets.get(target)
            sets[target] = [
                NONE if d in dimensions else labels[d] if before is None else self.meet(before[d], labels[d])
                for d in range(len(shape))
            ]
        return Labelled(shape, sets.__getitem__)

    def blocks(self, blocks: Sequence[Sequence[Labels]]) -> None:
        """As many must be removed from each block, whichever they are."""
        self.counted.append(NONE.union(*itertools.chain(*blocks)))
        for sets in zip(*blocks, strict=True):
            self.aligned.append(NONE.union(*sets))
            if not all(sets) or len(blocks[0]) == 1:
                self.aligned.append(NONE.union(*sets) | self.stuck())

    def classes(self, united: Iterable[Labels] = ()) -> list[set[Coordinate]]:
        """The partition of all labels that were met; with further sets united."""
        sets = dict(self.sets)
        for labels in (*([label] for label in self.frozen), *united):
            unite(sets, labels)
        return list({id(labels): labels for labels in sets.values()}.values())


def unite(sets: dict[Coordinate, set[Coordinate]], labels: Iterable[Coordinate]) -> None:
    merged = set().union(*(sets.get(label, {label}) for label in labels))
    for label in merged:
        sets[label] = merged
