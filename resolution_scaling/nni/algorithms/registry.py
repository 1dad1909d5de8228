"""The algorithms that a search can name: NNI's own, ``'resolution'``, and whatever else registers here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn as nn

Compress = Callable[..., nn.Module]
"""``(model, config_list, module, **parameters)`` -> the compressed network, the same object or another.

``config_list`` is NNI's (op_types, op_names, and a ratio), empty where the algorithm works on the whole network;
``module`` is the user's AutoCompress class, which gives data, trainers and a ``dummy_input``.
"""


@dataclass(frozen=True)
class Algorithm:
    """A way to compress a network.

    Attributes:
        name: what configurations call it.
        compress: does it.
        outline: what ``compress`` would leave, in shapes alone: takes the same arguments with the network on the meta
            device, and no data. Limits on FLOPs and memory are then checked before the network is compressed. None
            where that cannot be told in advance; it may also return None, where the shapes depend on scores.
        needs_config_list: whether a configuration must say which layers, and how much of them. Otherwise it may;
            ``compress`` raises if it has no use for that.
    """

    name: str
    compress: Compress
    outline: Callable[..., nn.Module | None] | None = None
    needs_config_list: bool = True


_algorithms: dict[str, Algorithm] = {}


def register_algorithm(algorithm: Algorithm, *, replace: bool = False) -> None:
    """Let searches name an algorithm. Trials run in processes of their own, so do this in a file that they import.

    Args:
        algorithm: the algorithm.
        replace: take the place of another of this name.

    Raises:
        ValueError: the name is taken, or no plain word.

    Example:
        >>> register_algorithm(Algorithm("halve", lambda model, config_list, module: halve(model)))
    """
    name: Any = algorithm.name
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of an algorithm is {name!r}; expected a word such as 'my_algorithm'")
    if name in _algorithms and not replace:
        raise ValueError(f"there is an algorithm {name!r} already: choose another name, or pass replace=True")
    _algorithms[name] = algorithm


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of this name, if what registers it was imported.

    Raises:
        ValueError: there is none; the text says what to import.
    """
    if name not in _algorithms:
        known = ", ".join(map(repr, algorithm_names())) or "none"
        raise ValueError(
            f"unknown algorithm {name!r}; known here are {known}. NNI's own and 'resolution' join by "
            "`import resolution_scaling.nni.autocompress.experiment`, 'spatial_mask' and its rivals by "
            "`import torchprune_spatial.nni.algorithms`, others by register_algorithm"
        )
    return _algorithms[name]


def algorithm_names() -> list[str]:
    """All the names, sorted."""
    return sorted(_algorithms)


def home_of(name: str) -> str:
    """The module in which an algorithm is defined and registered, for trials to import.

    Raises:
        ValueError: there is no such algorithm, or it is defined where trials cannot import it.
    """
    home = find_algorithm(name).compress.__module__
    if home == "__main__":
        raise ValueError(
            f"algorithm {name!r} is defined in the script that is run, which trials cannot import: move it and its "
            "register_algorithm to a file in the trial code directory"
        )
    return home


def dummy_input_of(module: Any) -> Any:
    """The example inputs that a user's class gives; None if it gives none."""
    return module.dummy_input() if callable(getattr(module, "dummy_input", None)) else None
