"""Every private name of Torch-Pruning that this package uses, and a workaround for its shared default arguments.

Torch-Pruning has no public names for these. The private ones are those of version 1.6.1; where a later version differs,
this is the only file to change (a test holds that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning import _helpers
from torch_pruning.dependency import DependencyGraph, Group

CONTAINERS = ("num_heads", "in_channel_groups", "out_channel_groups")
"""Options of ``BasePruner`` that it adds to: also to its default arguments, which all pruners share."""

_magnitude = tp.importance.GroupMagnitudeImportance()


def graph_of(group: Group) -> DependencyGraph:
    """The graph that a group belongs to."""
    return group._DG


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


def group_item(dep: Any, idxs: list[int], root_idxs: list[int]) -> Any:
    """An item of a group: a dependency, channels of its target, and for each of them the position of its root."""
    item = _helpers.GroupItem(dep, idxs)
    item.root_idxs = root_idxs
    return item


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
