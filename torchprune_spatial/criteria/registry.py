"""The one registry of criteria: ``tp.importance``, NNI's searches and the recipes read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch_pruning as tp

from .base import ChannelImportance

CRITERIA: dict[str, type[ChannelImportance]] = {}
"""The registered criteria, by name."""

Criterion = TypeVar("Criterion", bound=ChannelImportance)
Follower = Callable[[str], None]
"""A function that is called with the name of a criterion."""

_followers: list[tuple[Follower, Follower]] = []


def register_criterion(criterion: type[Criterion]) -> type[Criterion]:
    """Register a criterion under its `name`; a class decorator.

    The class also becomes an attribute of ``tp.importance``.

    Args:
        criterion: a class whose `name` is a word that no other criterion has.

    Raises:
        ValueError: the name is not a word, or another criterion or importance of Torch-Pruning has it.

    Example:
        >>> @register_criterion
        ... class MedianImportance(CalibratedImportance):
        ...     name = "median"
    """
    if not (isinstance(criterion, type) and issubclass(criterion, ChannelImportance)):
        raise TypeError(f"criterion is {criterion!r}; expected a subclass of ChannelImportance (the class itself)")
    name = getattr(criterion, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of {criterion.__name__} is {name!r}; expected a word such as 'mean_activation'")
    if name in CRITERIA:
        raise ValueError(f"name of {criterion.__name__} is {name!r}, which is taken by {CRITERIA[name].__name__}")
    if hasattr(tp.importance, criterion.__name__):
        raise ValueError(f"tp.importance has a {criterion.__name__} already: choose another name for the class")
    CRITERIA[name] = criterion
    setattr(tp.importance, criterion.__name__, criterion)
    tp.importance.__all__.append(criterion.__name__)
    try:
        for added, _ in _followers:
            added(name)
    except Exception:
        unregister_criterion(name)
        raise
    return criterion


def unregister_criterion(name: str) -> None:
    """Remove a criterion from the registry and from ``tp.importance``.

    Raises:
        ValueError: no criterion has this name.
    """
    if name not in CRITERIA:
        raise ValueError(f"no criterion is named {name!r}; known are {', '.join(map(repr, CRITERIA))}")
    for _, removed in _followers:
        removed(name)
    criterion = CRITERIA.pop(name)
    delattr(tp.importance, criterion.__name__)
    tp.importance.__all__.remove(criterion.__name__)


def follow_criteria(added: Follower, removed: Follower) -> None:
    """Keep another registry up to date with this one.

    Args:
        added: called with the name of each criterion: now for those that are registered, later for each new one. If it
            raises an exception, the new criterion is not registered.
        removed: called with the name of each criterion that is unregistered, even if ``added`` failed for it.
    """
    for name in CRITERIA:
        added(name)
    _followers.append((added, removed))
