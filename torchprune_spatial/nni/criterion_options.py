"""The criteria by the names that configurations use: their options, and making them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..criteria.base import ChannelImportance
from ..criteria.registry import CRITERIA
from .config import PARAMETERS, PruningConfig


def criterion_options(criterion: str, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those of the criterion's class, and the `PARAMETERS` of pruning.

    Tuners give floats: whole ones become integers where the class has an integer as its default.

    Args:
        criterion: name of the criterion.
        parameters: all the parameters.

    Returns:
        ``(options of the class, parameters of pruning)``.

    Raises:
        ValueError: there is no such criterion.
        TypeError: there is no such parameter.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; expected one of {', '.join(map(repr, CRITERIA))}")
    known = {name: p for name, p in inspect.signature(CRITERIA[criterion]).parameters.items() if name != "loader"}
    own, pruning = {}, {}
    for name, value in parameters.items():
        if name in PARAMETERS:
            pruning[name] = value
        elif name not in known:
            raise TypeError(
                f"{criterion!r} has no parameter {name!r}; known are {', '.join(map(repr, (*known, *PARAMETERS)))}"
            )
        else:
            whole = type(known[name].default) is int and isinstance(value, float) and value.is_integer()
            own[name] = int(value) if whole else value
    return own, pruning


def make_importance(criterion: str, loader: Any, options: Mapping[str, Any]) -> ChannelImportance:
    """Make the importance of this name.

    Args:
        criterion: name of the criterion.
        loader: calibration batches, for criteria that need data; not used for others.
        options: further arguments of the criterion's class.
    """
    kind = CRITERIA[criterion]
    return kind(loader, **options) if needs_data(criterion) else kind(**options)


def needs_data(criterion: str) -> bool:
    """Whether the criterion ranks channels by calibration data."""
    return "loader" in inspect.signature(CRITERIA[criterion]).parameters


def check_keeps_fraction(criterion: str, config: PruningConfig) -> None:
    """Check that the criterion can keep the union of top sets, if the configuration has a ``keep_fraction``.

    Raises:
        ValueError: the criterion is not one of Algorithm 1.
    """
    if "keep_fraction" in config.targets and not hasattr(CRITERIA[criterion], "pruning_ratio_dict"):
        raise ValueError(f"keep_fraction is for 'spatial_mask', not {criterion!r}: give a ratio instead")
