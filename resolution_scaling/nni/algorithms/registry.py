"""The algorithms that a search can name: NNI's own, ``'resolution'``, and those that users register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn as nn

Compress = Callable[..., nn.Module]
"""``(model, config_list, module_class, **parameters)`` -> the compressed network, the same object or another.

``config_list`` is NNI's (op_types, op_names, and a ratio). It is empty where the algorithm works on the whole network.
``module_class`` is the user's AutoCompress class (`ModuleClass`): it gives data, trainers and a ``dummy_input``.
"""


@dataclass(frozen=True)
class Algorithm:
    """A way to compress a network.

    Attributes:
        name: the name that configurations use.
        compress: compresses a network.
        outline: gives the network that ``compress`` would leave, in shapes alone. It takes the same arguments, with the
            network on the meta device, and looks at no data. With it, limits on FLOPs and memory are checked before the
            network is compressed. None if the shapes cannot be known in advance; the function may also return None,
            where they depend on scores.
        needs_config_list: whether a configuration must specify the layers and their ratios. If False, a configuration
            may leave them out; ``compress`` raises if it is given a list that it has no use for.
    """

    name: str
    compress: Compress
    outline: Callable[..., nn.Module | None] | None = None
    needs_config_list: bool = True


_algorithms: dict[str, Algorithm] = {}


def register_algorithm(algorithm: Algorithm, *, replace: bool = False) -> None:
    """Let searches name an algorithm. Trials run in processes of their own: call this in a file that they import.

    `unregister_algorithm` is the way back.

    Args:
        algorithm: the algorithm.
        replace: whether to replace an algorithm that has this name already.

    Raises:
        ValueError: the name is taken, or is not an identifier.

    Example:
        >>> register_algorithm(Algorithm("halve", lambda model, config_list, module_class: halve(model)))
    """
    name: Any = algorithm.name
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of an algorithm is {name!r}; expected a word such as 'my_algorithm'")
    if name in _algorithms and not replace:
        raise ValueError(f"there is an algorithm {name!r} already: choose another name, or pass replace=True")
    _algorithms[name] = algorithm


def unregister_algorithm(name: str) -> Algorithm:
    """Remove an algorithm from those that searches can name.

    Returns:
        The algorithm; pass it to `register_algorithm` to bring it back.

    Raises:
        ValueError: there is no algorithm of this name.
    """
    algorithm = find_algorithm(name)
    del _algorithms[name]
    return algorithm


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of this name.

    Raises:
        ValueError: no algorithm of this name is registered; the text says what to import.
    """
    if name not in _algorithms:
        known = ", ".join(map(repr, algorithm_names())) or "none"
        raise ValueError(
            f"unknown algorithm {name!r}; known here are {known}. NNI's own are registered by "
            "`import resolution_scaling.nni.autocompress`, 'spatial_mask' and its rivals by "
            "`import torchprune_spatial.nni`, others by register_algorithm"
        )
    return _algorithms[name]


def algorithm_names() -> list[str]:
    """The names of all registered algorithms, sorted."""
    return sorted(_algorithms)


def home_of(name: str) -> str:
    """The module whose import defines and registers an algorithm. Trials import it.

    Raises:
        ValueError: there is no such algorithm, or trials cannot import the module that defines it.
    """
    home = find_algorithm(name).compress.__module__
    if home == "__main__":
        raise ValueError(
            f"algorithm {name!r} is defined in the script that is run, which trials cannot import: move it and its "
            "register_algorithm to a file in the trial code directory"
        )
    return home
