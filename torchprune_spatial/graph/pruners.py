"""`following_channels`: pruners of Torch-Pruning that use the `ChannelGraph`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch.nn as nn

from .attention import attention_heads
from .channel_graph import ChannelGraph
from .options import check_heads, check_layers, check_option_names
from .private_names import own_containers, pruners_with

HEADS = ("head_pruning_ratio", "head_pruning_ratio_dict")
"""Options with which Torch-Pruning removes whole heads."""


@contextlib.contextmanager
def following_channels(graph: ChannelGraph | None = None) -> Iterator[None]:
    """A context in which every pruner of Torch-Pruning that is made uses a `ChannelGraph`.

    The pruners themselves may be used after the context, which leaves nothing behind in Torch-Pruning. It is not safe
    in several threads at once.

    ``num_heads`` is only used for whole heads (``prune_num_heads``; default: `attention_heads`); equal dimensions of
    all heads follow from the network's code. The same holds for ``in_channel_groups`` and ``out_channel_groups``, which
    are passed over.

    Args:
        graph: the graph to use, if there is one of the model already.

    Raises:
        TypeError, ValueError: an argument of this or of a pruner is not usable.

    Example:
        >>> with following_channels():
        ...     pruner = tp.pruner.BasePruner(model, example_inputs, importance, pruning_ratio=0.5)
        >>> pruner.step()
    """
    if graph is not None and not isinstance(graph, ChannelGraph):
        raise TypeError(f"graph is {graph!r}; expected a ChannelGraph, or none")
    heads: dict[nn.Module, int] = {}

    def make() -> Any:
        return _Maker(graph, heads)

    def begin(original: Any, pruner: Any, *args: Any, **kwargs: Any) -> None:
        check_option_names(kwargs)
        given = dict(inspect.signature(original).bind(pruner, *args, **kwargs).arguments)
        del given["self"]
        check_heads(given["model"], given.get("num_heads"))
        check_layers(given["model"], given.get("ignored_layers"), "ignored_layers")
        given = own_containers(given)
        given |= {"in_channel_groups": {}, "out_channel_groups": {}}
        heads.clear()
        if given.get("prune_num_heads") or any(given.get(name) for name in HEADS):
            given["num_heads"] = given["num_heads"] or attention_heads(given["model"])
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
