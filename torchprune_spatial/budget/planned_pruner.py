"""A pruner of Torch-Pruning that keeps a given number of channels in each group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Group

from ..graph.channel_graph import ChannelGraph
from ..graph.private_names import own_containers
from ..graph.pruners import following_channels
from .scored_groups import ScoredGroup, group_at, root_name

HEAD_RATIOS = ("head_pruning_ratio", "head_pruning_ratio_dict")
"""Options with which Torch-Pruning removes whole heads."""


def made_with(graph: ChannelGraph | None) -> contextlib.AbstractContextManager[None]:
    """A context in which pruners are made with a graph; None for Torch-Pruning's own."""
    return contextlib.nullcontext() if graph is None else following_channels(graph)


class PlannedPruner(tp.pruner.BasePruner):
    """Removes the channels with the lowest recorded scores from each group, so that the planned number is left.

    Torch-Pruning itself prunes the groups for which the user gives ratios. It also prunes the groups of attention
    layers if whole heads are to be removed, because it removes heads only from groups that it prunes by a ratio.

    Args:
        model: the network, or a copy of it.
        example_inputs: as for Torch-Pruning.
        options: other arguments of ``tp.pruner.BasePruner``.
        groups: the recorded groups by name; None for groups that must not be pruned.
        kept: the number of channels that each channel group keeps, for the groups that lose channels.
        graph: the network's `ChannelGraph`; None for Torch-Pruning's own graph.

    Attributes:
        refused: names of the groups that Torch-Pruning did not prune. It refuses to prune a group if one of its layers
            would lose all its channels. For channels that only Torch-Pruning couples, such as those that ``chunk``
            splits for a gate, this happens before all channels of the group are removed.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        options: Mapping[str, Any],
        groups: Mapping[str, ScoredGroup | None],
        kept: Mapping[str, int],
        graph: ChannelGraph | None = None,
    ):
        own = own_containers(dict(options))
        self._groups, self._kept = groups, dict(kept)
        ratios = own.get("pruning_ratio_dict") or {}
        if any(own.get(name) for name in HEAD_RATIOS):
            ratios |= self._take_attention(model, own["num_heads"])
        self._has_ratios = bool(ratios)
        with made_with(graph):
            super().__init__(model, example_inputs, importance=self._recorded, **own | {"pruning_ratio_dict": ratios})
        self.refused: set[str] = set()

    def step(self, interactive: bool = False) -> Iterator[Group] | None:
        """Prune the groups, or yield them if ``interactive``, as pruners of Torch-Pruning do."""
        if interactive:
            return self._planned()
        for group in self._planned():
            group.prune()
        return None

    def _planned(self) -> Iterator[Group]:
        if self._has_ratios:
            yield from super().step(interactive=True)
        waiting, pruned = dict(self._kept), True
        while pruned:  # a group may be refused only until others have been pruned
            pruned = False
            for name, kept in list(waiting.items()):
                scored, everything = cast(ScoredGroup, self._groups[name]), group_at(self.DG, name)
                if len(everything[0].idxs) != len(scored.scores):
                    raise ValueError(
                        f"the group of {name!r} has {len(everything[0].idxs)} channels, but had {len(scored.scores)} "
                        "when it was scored: is forward random?"
                    )
                group = group_at(self.DG, name, [everything[0].idxs[position] for position in scored.removed(kept)])
                if self.DG.check_pruning_group(group):
                    del waiting[name]
                    pruned = True
                    yield group
        self.refused.update(waiting)

    def _take_attention(self, model: nn.Module, num_heads: Mapping[nn.Module, int]) -> dict[nn.Module, float]:
        """Remove the groups of attention heads from the plan, and return pruning ratios for them instead."""
        ratios = {}
        for name in [*self._kept]:
            scored = cast(ScoredGroup, self._groups[name])
            layers = [model.get_submodule(layer) for layer in scored.layers]
            if num_heads.keys() & set(layers):
                # Torch-Pruning keeps int(channels * (1 - ratio))
                ratios[layers[0]] = 1 - (self._kept.pop(name) + 0.5) / len(scored.mean_scores)
        return ratios

    def _recorded(self, group: Group) -> torch.Tensor | None:
        """The importance that Torch-Pruning calls for the groups that it prunes by ratios: their recorded scores."""
        name = root_name(group)
        if name not in self._groups:
            raise ValueError(f"the group of {name!r} did not exist when the groups were scored: is forward random?")
        scored = self._groups[name]
        return None if scored is None else scored.scores


class ScoringPruner(tp.pruner.BasePruner):
    """Calls a function for every group that may be pruned, and prunes nothing.

    Args:
        model, example_inputs, options: as for `PlannedPruner`.
        look: ``(pruner, group)`` -> None.
        graph: as for `PlannedPruner`.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        options: Mapping[str, Any],
        look: Callable[[tp.pruner.BasePruner, Group], None],
        graph: ChannelGraph | None = None,
    ):
        own = own_containers(dict(options))
        with made_with(graph):
            super().__init__(model, example_inputs, importance=lambda group: look(self, group), **own)

    def look(self) -> None:
        """Call the function for each of the groups."""
        for _ in self.step(interactive=True):
            raise RuntimeError("Torch-Pruning was about to prune a group, though the groups were only to be scored")
