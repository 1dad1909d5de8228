"""`following_channels`: pruners of Torch-Pruning that use the `ChannelGraph`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch.nn as nn

from .channel_graph import ChannelGraph
from .private_names import own_containers, pruners_with

HEADS = ("head_pruning_ratio", "head_pruning_ratio_dict")
"""Options with which Torch-Pruning removes whole heads."""


@contextlib.contextmanager
def following_channels(graph: ChannelGraph | None = None) -> Iterator[None]:
    """A context in which every pruner of Torch-Pruning that is made uses a `ChannelGraph`.

    The pruners themselves may be used after the context, which leaves nothing behind in Torch-Pruning. It is not safe
    in several threads at once.

    ``num_heads`` is only needed for whole heads (``prune_num_heads``); equal dimensions of all heads follow from the
    network's code. The same holds for ``in_channel_groups`` and ``out_channel_groups``, which are passed over.

    Args:
        graph: the graph to use, if there is one of the model already.

    Example:
        >>> with following_channels():
        ...     pruner = tp.pruner.BasePruner(model, example_inputs, importance, pruning_ratio=0.5)
        >>> pruner.step()
    """
    made: list[ChannelGraph] = []

    def make() -> ChannelGraph:
        made.append(_Ready(graph) if graph is not None else ChannelGraph())  # type: ignore[arg-type]
        return made[-1]

    def begin(original: Any, pruner: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(original).bind(pruner, *args, **kwargs)
        given = own_containers(dict(bound.arguments))
        given.pop("self", None)
        given.pop("args", None)
        whole_heads = bool(given.get("prune_num_heads")) or any(given.get(name) for name in HEADS)
        if not whole_heads:
            given["num_heads"] = {}
        given |= {"in_channel_groups": {}, "out_channel_groups": {}}
        original(pruner, **given)
        found: ChannelGraph = pruner.DG
        pruner.in_channel_groups.clear()
        heads: dict[nn.Module, int] = dict(pruner.num_heads) if whole_heads else {}
        pruner.out_channel_groups.clear()
        pruner.out_channel_groups.update(found.out_channel_groups | heads)
        found.out_channel_groups = pruner.out_channel_groups

    with pruners_with(make, begin):
        yield


class _Ready:
    """Stands for a graph that is built already."""

    def __init__(self, graph: ChannelGraph):
        self._graph = graph

    def build_dependency(self, model: nn.Module, *_: Any, **__: Any) -> ChannelGraph:
        """The graph, if it is that of the model."""
        if model is not self._graph.model:
            raise ValueError("graph is that of another model than the pruner's: build it for this one, or use graph.on")
        return self._graph
