"""The base classes of the criteria: with Torch-Pruning's interface, and with calibration data."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group

from ..calibration.batches import Forward, Masks
from ..calibration.measurements import Measurement
from ..calibration.statistics import Calibration, Statistics
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import (
    REDUCTIONS,
    best_of_parts,
    channel_layers,
    members_that_produce,
    members_that_read,
    producers_in,
    reduce_over_members,
)
from ..graph.layers import CHANNEL_LAYERS, filter_norms
from ..graph.private_names import graph_of, normalize
from .ranking import distinct

Normalizer = str | Callable[[torch.Tensor], torch.Tensor] | None


class ChannelImportance(tp.importance.Importance):
    """An importance whose scores are one-dimensional, finite, all different and of the right length.

    To write a criterion, override `score` (and `output_layers`, or derive from `CalibratedImportance`), give the class
    a `name`, and decorate it with `register_criterion`. A criterion that can make up for removed channels also has a
    method ``fold(group)``, which is called just before the channels of the group are removed.

    The best channel of a layer gets a score slightly above those of equal channels in other layers. With the default
    ``normalizer``, global pruning then leaves every layer at least that channel. Channels that are outputs of the
    network are never pruned; a warning names their layers.

    Attributes:
        name: the name of the criterion in configurations of NNI and on the command lines of the recipes.
        recommended_allocation: the default ``allocation`` of `prune_to` with this criterion.

    Args:
        group_reduction: as in Torch-Pruning, how the values of a channel in several layers become one value:
            ``"mean"``, ``"sum"``, ``"max"``, ``"prod"``, ``"first"`` or ``"gate"`` (the last).
        normalizer: as in Torch-Pruning, how values are scaled for global pruning, so that those of different layers are
            comparable: ``"mean"``, ``"sum"``, ``"max"``, ``"gaussian"``, ..., a callable ``[channels] -> [channels]``
            or None. The order inside a layer does not depend on it.
    """

    name: ClassVar[str]
    recommended_allocation: ClassVar[str] = "uniform"

    def __init__(self, group_reduction: str = "mean", normalizer: Normalizer = "max"):
        if group_reduction not in REDUCTIONS:
            raise ValueError(
                f"group_reduction is {group_reduction!r}; expected one of {', '.join(map(repr, REDUCTIONS))}"
            )
        if not callable(normalizer):
            try:
                normalize(torch.ones(1), normalizer)
            except (NotImplementedError, AttributeError):
                raise ValueError(
                    f"normalizer is {normalizer!r}; expected a name that Torch-Pruning knows ('max', 'mean', 'sum', "
                    "'gaussian', ...), a callable or None"
                ) from None
        self.group_reduction = group_reduction
        self.normalizer = normalizer
        self._warned: set[nn.Module] = set()

    @torch.no_grad()
    def __call__(self, group: Group) -> torch.Tensor | None:
        """Score the channels of a group: ``[len(group[0].idxs)]`` float64, or None if they must not be pruned."""
        outputs = self.output_layers(graph_of(group))
        if producers_in(group) & outputs:
            self._warn_not_pruned(group, "these channels are outputs of the network", outputs)
            return None
        scored = self.score(group)
        if isinstance(graph_of(group), ChannelGraph):
            scored = self._with_unread(group, scored)
        if scored is None:
            self._warn_not_pruned(group, self.without_layers)
            return None
        scores = distinct(*scored)
        if not scored[0].any():
            scores[scores.argmax()] = 1  # one filter of a dead layer is kept
        # Torch-Pruning does not prune a group at all if one of its layers would lose all its channels
        best = best_of_parts(group, scores)
        scores[best] = scores.max() + 1e-6 * (scores.abs().max() + scores[best])
        return scores

    @abstractmethod
    def output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        """The layers that produce outputs of the network."""

    @abstractmethod
    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Scores of the channels, and values that break ties: ``[len(group[0].idxs)]`` float64 each.

        None if the channels cannot be scored; they are then not pruned.
        """

    without_layers: ClassVar[str] = "no convolution or linear layer reads these channels"
    """The reason that the warning gives if `score` returns None."""

    def normalized(self, values: torch.Tensor) -> torch.Tensor:
        """Scale values ``[channels]`` by the ``normalizer``; if all are zero, they remain zero."""
        if self.normalizer is None or not values.any():
            return values
        scaled = normalize(values.float(), self.normalizer)
        if not isinstance(scaled, torch.Tensor) or scaled.shape != values.shape:
            found = list(scaled.shape) if isinstance(scaled, torch.Tensor) else type(scaled).__name__
            raise ValueError(f"normalizer gave {found} for {len(values)} channels; expected a tensor of one score each")
        if callable(self.normalizer) and not scaled.isfinite().all():
            raise ValueError("normalizer gave NaN or infinite scores")
        return scaled.double().nan_to_num(0, 0, 0)  # Torch-Pruning's "gaussian" divides by zero for a single channel

    def _with_unread(
        self, group: Group, scored: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Score also the channels that meet other channels, and no layer: the queries and keys of attention.

        Their score is the product of the norms of the filters that make them, relative to the largest.
        """
        layers = channel_layers(graph_of(group))
        unread = torch.ones(len(group[0].idxs), dtype=torch.bool)
        for member in members_that_read(group, layers):
            unread[member.positions] = False
        makers = [m for m in members_that_produce(group, layers) if isinstance(m.layer, CHANNEL_LAYERS)]
        if not unread.any() or not makers:
            return scored
        strength = torch.ones(len(unread), dtype=torch.float64)
        for member in makers:
            norms = filter_norms(member.layer)[member.channels]
            strength *= torch.zeros_like(strength).index_add_(0, member.positions, norms.clamp_min(1e-30).log()).exp()
        strength = torch.where(unread, strength, 0.0)
        if scored is None:
            return (self.normalized(strength), strength) if unread.all() else None
        relative = strength / strength.max().clamp_min(1e-300)
        return tuple(torch.where(unread, relative * values.max(), values) for values in scored)  # type: ignore[return-value]

    def _warn_not_pruned(self, group: Group, reason: str, among: set[nn.Module] | None = None) -> None:
        """Warn that the layers which produce the group's channels are not pruned, once for each layer."""
        names = channel_layers(graph_of(group))
        layers = producers_in(group) & (names.keys() if among is None else among)
        if layers <= self._warned:
            return
        self._warned |= layers
        warnings.warn(
            f"{', '.join(sorted(repr(names[layer]) for layer in layers))}: {reason}, so they are not pruned; list the "
            "layers in ignored_layers to silence this warning",
            stacklevel=3,
        )


class CalibratedImportance(ChannelImportance):
    """An importance that scores channels by their activations on calibration data, where the next layers read them.

    The statistics are taken at the first call, in one pass over ``loader`` with the model in eval mode. They are taken
    again if the parameters have changed, so iterative pruning needs no extra line. The network is left unchanged.

    To write a criterion, override `measurements` and `score`.

    Args:
        loader: calibration batches, or a `Calibration` that several criteria share.
        threshold, masks: where the objects are; see `SpatialMaskImportance`.
        forward: callable ``(model, input) -> output`` for models that are not called as ``model(input)``.
        group_reduction, normalizer: see `ChannelImportance`.
    """

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        forward: Forward | None = None,
        group_reduction: str = "mean",
        normalizer: Normalizer = "max",
    ):
        super().__init__(group_reduction, normalizer)
        if not isinstance(loader, Calibration):
            loader = Calibration(loader, threshold, masks=masks, forward=forward)
        elif (threshold, masks, forward) != (0.5, None, None):
            raise ValueError("loader is a Calibration, which has its own threshold, masks and forward: give them there")
        self.calibration = loader
        for measurement in self.measurements():
            self.calibration.request(measurement)

    @abstractmethod
    def measurements(self) -> list[Measurement]:
        """The measurements that the criterion needs from the pass over the calibration data."""

    def statistics(self, graph: DependencyGraph) -> Statistics:
        """Statistics of the graph's network; they are taken again if the network has changed."""
        return self.calibration.statistics(graph, self.measurements())

    def output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        """The layers that produce outputs of the network, as found in the pass over the calibration data."""
        return self.statistics(graph).output_layers

    def values(self, group: Group, measurement: Measurement) -> torch.Tensor | None:
        """``[values, channels]`` of a group, reduced over the layers that read it; None if no layer does."""
        needed = [*self.measurements(), measurement]
        values = self.calibration.statistics(graph_of(group), needed).values[measurement]
        members = members_that_read(group, values)
        return reduce_over_members(members, values, self.group_reduction, len(group[0].idxs))
