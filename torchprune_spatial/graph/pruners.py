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
    heads: dict[nn.Module, int] = {}

    def make() -> Any:
        return _Maker(graph, heads)

    def begin(original: Any, pruner: Any, *args: Any, **kwargs: Any) -> None:
        given = own_containers(dict(inspect.signature(original).bind(pruner, *args, **kwargs).arguments))
        del given["self"]
        given |= {"in_channel_groups": {}, "out_channel_groups": {}}
        heads.clear()
        if given.get("prune_num_heads") or any(given.get(name) for name in HEADS):
            heads.update(given["num_heads"])
        else:
            given["num_heads"] = {}
        original(pruner, **given)
        pruner.in_channel_groups.clear()
        pruner.out_channel_groups.clear()
        pruner.out_channel_groups.update(pruner.DG.out_channel_groups | given["num_heads"])
        pruner.DG.out_channel_groups = pruner.out_channel_groups

    with pruners_with(make, begin):
        yield


class _Maker:
    """Stands for a graph that is not built yet: builds it, or gives one that is built already."""

    def __init__(self, graph: ChannelGraph | None, heads: dict[nn.Module, int]):
        self._graph, self._heads = graph, heads

    def build_dependency(self, model: nn.Module, *args: Any, **kwargs: Any) -> ChannelGraph:
        """The graph of the model, with whole heads coupled if they are to be removed."""
        graph = self._graph or ChannelGraph().build_dependency(model, *args, **kwargs)
        if graph.model is not model:
            raise ValueError("graph is that of another model than the pruner's: build it for this one, or use graph.on")
        graph.couple_heads(self._heads)
        return graph
