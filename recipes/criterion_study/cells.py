"""The ways to prune that the study compares."""

from __future__ import annotations

import dataclasses
import itertools

LIMITS = ("compression", "speedup")
EQUAL = "equal"
"""Allocation "cost" by the order of the scores alone, so that all criteria keep the same number of channels a layer."""
OF_TORCH_PRUNING = ("uniform", "global", "isomorphic")
"""Torch-Pruning's own allocations."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One way to prune.

    Attributes:
        criterion: key of `studied`.
        allocation: `EQUAL`, or an allocation of `prune_to`.
        fold: whether the next layers are changed to make up for removed channels. The recommended criterion does it,
            also where another criterion chooses the channels.
        limit: ``"compression"`` (parameters) or ``"speedup"`` (FLOPs).
        factor: cost of the unpruned network over that of the pruned one.
    """

    criterion: str
    allocation: str
    fold: bool
    limit: str
    factor: float

    def __str__(self):
        return f"{self.criterion} {self.allocation}{' fold' * self.fold} {self.limit} {self.factor:g}"


UNPRUNED = Cell("unpruned", "", False, "", 1.0)


@dataclasses.dataclass(frozen=True)
class Block:
    """Ways to prune: each criterion with each allocation, folded or not, to each factor of each limit; see `Cell`.

    Attributes:
        tasks: the tasks for which they are tried; None for all.
    """

    criteria: tuple[str, ...]
    allocations: tuple[str, ...] = (EQUAL,)
    folds: tuple[bool, ...] = (False,)
    limits: tuple[str, ...] = ("compression",)
    factors: tuple[float, ...] = (20,)
    tasks: tuple[str, ...] | None = None

    def cells(self) -> list[Cell]:
        """All cells of the block."""
        choices = (self.criteria, self.allocations, self.folds, self.limits, self.factors)
        return [Cell(*choice) for choice in itertools.product(*choices)]
