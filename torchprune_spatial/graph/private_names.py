"""Every private name of Torch-Pruning that this package uses, and a workaround for its shared default arguments.

Torch-Pruning has no public names for these. The private ones are those of version 1.6.1; where a later version differs,
this is the only file to change (a test holds that).
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning import _helpers
from torch_pruning.dependency import DependencyGraph, Group
from torch_pruning.pruner.algorithms import base_pruner

CONTAINERS = ("num_heads", "in_channel_groups", "out_channel_groups")
"""Options of ``BasePruner`` that it adds to: also to its default arguments, which all pruners share."""

_magnitude = tp.importance.GroupMagnitudeImportance()


def graph_of(group: Group) -> DependencyGraph:
    """The graph that a group belongs to."""
    return group._DG


def set_graph(group: Group, graph: DependencyGraph) -> None:
    """Let a group belong to a graph."""
    group._DG = graph


def record(graph: DependencyGraph, history: list[Any]) -> None:
    """Set a graph's pruning history."""
    graph._pruning_history = history


def name_in(graph: DependencyGraph, module: nn.Module) -> str | None:
    """The name of a module in the network; None for operations that are only in the graph."""
    return graph._module2name.get(module)


def parameter_name_in(graph: DependencyGraph, parameter: nn.Parameter) -> str:
    """The name of a parameter that is in no layer that Torch-Pruning knows (``unwrapped_parameters``)."""
    return graph._param_to_name[parameter]


def channel_groups_of(pruner: tp.pruner.BasePruner, group: Group) -> int:
    """The number of ``channel_groups``: heads, or groups of a convolution, each of which loses the same channels."""
    return pruner._get_channel_groups(group)


def normalize(values: torch.Tensor, normalizer: str | Callable[[torch.Tensor], torch.Tensor] | None) -> Any:
    """Torch-Pruning's normalization of scores ``[channels]``.

    Raises:
        NotImplementedError, AttributeError: Torch-Pruning does not know the normalizer.
    """
    return _magnitude._normalize(values, normalizer)


class Uncounted(np.ndarray[Any, Any]):
    """The ``root_idxs`` of an item that scores leave out: Torch-Pruning leaves out those that hold None.

    Its regularizers cannot do with None: they make a tensor of the numbers, which are here all the same.
    """

    def __iter__(self) -> Iterator[Any]:
        """None for each number."""
        return iter([None] * len(self))


def group_item(dep: Any, idxs: list[int], root_idxs: Sequence[int], counted: bool = True) -> Any:
    """An item of a group: a dependency, channels of its target, and for each of them the channel of the root.

    Args:
        dep, idxs, root_idxs: these.
        counted: whether Torch-Pruning's importances look at it.
    """
    item = _helpers.GroupItem(dep, idxs)
    item.root_idxs = list(root_idxs) if counted else np.array(root_idxs, dtype=np.int64).view(Uncounted)
    return item


def roots_of(item: Any) -> list[int]:
    """The channels of the root for each of an item's channels, whether scores count it or not."""
    roots = item.root_idxs
    return roots.tolist() if isinstance(roots, Uncounted) else list(roots)


def name_modules(graph: DependencyGraph, more: Mapping[nn.Module, str] | None = None) -> None:
    """Tell a graph the names of its network's modules, and of more."""
    graph._module2name = {module: name for name, module in graph.model.named_modules()} | dict(more or {})
    graph._param_to_name = {parameter: name for name, parameter in graph.model.named_parameters()}


def own_containers(options: dict[str, Any]) -> dict[str, Any]:
    """Options for a pruner, with a copy of each container that ``BasePruner`` changes.

    Without this a pruner changes the caller's dicts, or default arguments that all later pruners read.

    Args:
        options: keyword arguments of ``BasePruner``.
    """
    own: dict[str, Any] = {name: dict(options.get(name) or {}) for name in CONTAINERS}
    for name, copied in (("customized_pruners", dict), ("unwrapped_parameters", list), ("pruning_ratio_dict", dict)):
        if options.get(name) is not None:
            own[name] = copied(options[name])
    return options | own


@contextlib.contextmanager
def pruners_with(make_graph: Callable[[], DependencyGraph], begin: Callable[..., Any]) -> Iterator[None]:
    """A context in which pruners of Torch-Pruning are made with another graph.

    Args:
        make_graph: makes the graph of a pruner.
        begin: called in place of ``BasePruner.__init__``, with that and its arguments.
    """
    original, module = tp.pruner.BasePruner.__init__, base_pruner.dependency

    @functools.wraps(original)
    def init(pruner: Any, *args: Any, **kwargs: Any) -> None:
        begin(original, pruner, *args, **kwargs)

    tp.pruner.BasePruner.__init__ = init
    base_pruner.dependency = types.SimpleNamespace(DependencyGraph=make_graph)
    try:
        yield
    finally:
        tp.pruner.BasePruner.__init__, base_pruner.dependency = original, module
