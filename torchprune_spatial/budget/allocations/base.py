"""The base class of allocations, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import torch.nn as nn
from torch_pruning.dependency import Group

from ...calibration.statistics import Calibration
from ..output_changes import Loss
from ..scored_groups import ScoredGroup


class Step(NamedTuple):
    """One step of pruning: one group loses channels.

    Attributes:
        group: the `root_name` of the group.
        kept: the number of channels that each of its channel groups keeps after the step.
    """

    group: str
    kept: int


@dataclass(frozen=True)
class Work:
    """The input of an allocation.

    Attributes:
        model: the unpruned network, in evaluation mode. An allocation must leave it unchanged.
        groups: the groups that may lose channels, with their scores, by name.
        pruning_groups: the same groups as objects of Torch-Pruning, with all their channels.
        costs: the cost of each layer of the unpruned network, by name, as a share of the cost of the whole network. If
            there are two limits, the two shares are added.
        round_to: the number of channels that a group keeps must be a multiple of this.
        max_pruning_ratio: the largest share of its channels that a group may lose.
        fold: called with a group before its channels are removed, to make up for them; None if nothing does.
        calibration: data to measure on, or None.
        loss: the loss that the user trains with, or None.
    """

    model: nn.Module
    groups: Mapping[str, ScoredGroup]
    pruning_groups: Mapping[str, Group]
    costs: Mapping[str, float]
    round_to: int | None = None
    max_pruning_ratio: float = 1.0
    fold: Callable[[Group], None] | None = None
    calibration: Calibration | None = None
    loss: Loss | None = None


class Allocation(ABC):
    """How a budget is spread over the groups: the order in which their channels are removed.

    To write one, override `order`, give the class a `name`, and decorate it with `register_allocation`.

    Attributes:
        name: the value of ``allocation=`` in `prune_to`.
        needs_calibration: whether `order` needs ``work.calibration``.
    """

    name: ClassVar[str]
    needs_calibration: ClassVar[bool] = False

    @abstractmethod
    def order(self, work: Work) -> list[Step]:
        """The steps from the unpruned network to the strongest pruning.

        `prune_to` finds how many of these steps reach the budget. Each step of a group must keep fewer channels than
        the group's step before; `ScoredGroup.kept_counts` gives the numbers that are allowed.
        """


ALLOCATIONS: dict[str, Allocation] = {}
"""The registered allocations, by name."""

Kind = TypeVar("Kind", bound=Allocation)


def register_allocation(allocation: type[Kind]) -> type[Kind]:
    """Register an allocation under its `name`; a class decorator.

    Raises:
        TypeError: it is not a subclass of `Allocation`.
        ValueError: the name is not a word, or another allocation has it.

    Example:
        >>> @register_allocation
        ... class DeepestFirst(Allocation):
        ...     name = "deepest_first"
    """
    if not (isinstance(allocation, type) and issubclass(allocation, Allocation)):
        raise TypeError(f"allocation is {allocation!r}; expected a subclass of Allocation (the class, not an instance)")
    name = getattr(allocation, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of {allocation.__name__} is {name!r}; expected a word such as 'uniform'")
    if name in ALLOCATIONS:
        raise ValueError(f"name of {allocation.__name__} is {name!r}, which another allocation has")
    ALLOCATIONS[name] = allocation()
    return allocation


def unregister_allocation(name: str) -> None:
    """Remove an allocation from the registry.

    Raises:
        ValueError: no allocation has this name.
    """
    if name not in ALLOCATIONS:
        raise ValueError(f"no allocation is named {name!r}; known are {', '.join(map(repr, ALLOCATIONS))}")
    del ALLOCATIONS[name]
