"""Trying a pruning on a copy of the network that has no weights."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn as nn

from resolution_scaling.ground.meta import call_on_meta, meta_copy

from ..graph.channel_graph import ChannelGraph
from ..record.pruning_record import PruningRecord
from .allocations import Step
from .limits import LIMITS
from .planned_pruner import PlannedPruner
from .scored_groups import ScoredGroup


class Rehearsal:
    """Finds the compression and speed-up that the first N steps of an order of removal would reach.

    It prunes a copy of the network on the meta device and counts what is left. Results are cached.

    Args:
        model: the network; it is not changed.
        example_inputs: as for Torch-Pruning.
        options: other arguments of Torch-Pruning's pruner.
        groups: the scored groups by name; None for groups that must not be pruned.
        order: the steps.
        before: the counts of the unpruned network, by the name of the limit, a key of `LIMITS`.
        tried: called after each rehearsal.
        graph: the network's `ChannelGraph`; None for Torch-Pruning's own graph.

    Attributes:
        order: the steps, without those that Torch-Pruning refuses to make.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        options: Mapping[str, Any],
        groups: Mapping[str, ScoredGroup | None],
        order: Sequence[Step],
        before: Mapping[str, float],
        tried: Callable[[], object] = lambda: None,
        graph: ChannelGraph | None = None,
    ):
        self._tried, self.graph = tried, graph
        self.model, self.example_inputs, self.options = model, example_inputs, dict(options)
        self.groups, self.order, self.before = groups, list(order), before
        self._reached: dict[int, dict[str, float]] = {0: dict.fromkeys(before, 1.0)}
        self._drop_refused()

    def reached(self, steps: int) -> dict[str, float]:
        """For each limit, the count before pruning divided by the count after the first ``steps`` steps."""
        if steps not in self._reached:
            self._reached[steps], _ = self._rehearse(steps)
        return self._reached[steps]

    def kept(self, steps: int) -> dict[str, int]:
        """The number of channels that each channel group keeps after ``steps`` steps, for the groups that lose any."""
        return dict(self.order[:steps])  # the last step of each group

    def pruner(self, steps: int) -> PlannedPruner:
        """A pruner that makes the first ``steps`` steps on the network."""
        return PlannedPruner(self.model, self.example_inputs, self.options, self.groups, self.kept(steps), self.graph)

    def _rehearse(self, steps: int) -> tuple[dict[str, float], set[str]]:
        """Try the first ``steps`` steps: what they reach, and the groups that Torch-Pruning refuses to prune."""
        model, example_inputs, options = meta_copy(self.model, self.example_inputs, self.options)
        forward = options["forward_fn"]
        options["forward_fn"] = lambda model, inputs: call_on_meta(model, inputs, forward)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user saw them when the groups were scored
            graph = None if self.graph is None else self.graph.on(model)
            pruner = PlannedPruner(model, example_inputs, options, self.groups, self.kept(steps), graph)
            PruningRecord(model).step(pruner)
        self._tried()
        after = {name: LIMITS[name](model, example_inputs, forward)[""] for name in self.before}
        return {name: count / max(1, after[name]) for name, count in self.before.items()}, pruner.refused

    def _drop_refused(self) -> None:
        """Drop the second half of the steps of each group that Torch-Pruning refuses, until it refuses none."""
        while True:
            steps = len(self.order)
            self._reached[steps], refused = self._rehearse(steps)
            if not refused:
                return
            allowed = {name: sum(step.group == name for step in self.order) // 2 for name in refused}
            done, order, self.order = Counter[str](), self.order, []
            for step in order:
                done[step.group] += 1
                if done[step.group] <= allowed.get(step.group, steps):
                    self.order.append(step)
