"""What an allocation is, and the one table of them."""

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
    """One step of the removal.

    Attributes:
        group: the group that loses channels, as named by `root_name`.
        kept: the number of channels that each of its channel groups keeps afterwards.
    """

    group: str
    kept: int


@dataclass(frozen=True)
class Work:
    """What an allocation may look at.

    Attributes:
        model: the unpruned network, in evaluation mode. An allocation leaves it as it is.
        groups: the groups that may lose channels, with their scores, by name.
        pruning_groups: the same groups as Torch-Pruning has them, with all their channels.
        costs: what each layer of the unpruned network costs, by name, as a share of the network; with two limits, the
            sum of both shares.
        round_to: the number of channels kept is a multiple of this.
        max_pruning_ratio: no group loses a greater share of its channels.
        fold: called with channels of a group before they are removed, to make up for them; None for nothing.
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
        name: for ``allocation=`` of `prune_to`.
        needs_calibration: whether `order` needs ``work.calibration``.
    """

    name: ClassVar[str]
    needs_calibration: ClassVar[bool] = False

    @abstractmethod
    def order(self, work: Work) -> list[Step]:
        """The steps from the unpruned network to the strongest pruning.

        `prune_to` finds how many of them the budget takes. Each step of a group keeps fewer channels than the one
        before; `ScoredGroup.kept_counts` gives the numbers that are allowed.
        """


ALLOCATIONS: dict[str, Allocation] = {}
"""The allocations by their names."""

Kind = TypeVar("Kind", bound=Allocation)


def register_allocation(allocation: type[Kind]) -> type[Kind]:
    """Make an allocation known by its `name`; a class decorator.

    Raises:
        ValueError: the name is not a word, or another allocation has it.

    Example:
        >>> @register_allocation
        ... class DeepestFirst(Allocation):
        ...     name = "deepest_first"
    """
    name = getattr(allocation, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of {allocation.__name__} is {name!r}; expected a word such as 'uniform'")
    if name in ALLOCATIONS:
        raise ValueError(f"name of {allocation.__name__} is {name!r}, which another allocation has")
    ALLOCATIONS[name] = allocation()
    return allocation


def unregister_allocation(name: str) -> None:
    """Take an allocation out of the table.

    Raises:
        ValueError: no allocation has this name.
    """
    if name not in ALLOCATIONS:
        raise ValueError(f"no allocation is named {name!r}; known are {', '.join(map(repr, ALLOCATIONS))}")
    del ALLOCATIONS[name]
