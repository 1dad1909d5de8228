"""Criteria as Torch-Pruning importances: from activation statistics to one score a channel."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group

from .calibration import CalibrationData, Forward, Masks, call_model
from .groups import REDUCTIONS, channel_layers, reduce_over_readers, writers_in
from .selection import union_scores
from .statistics import CELLS, RegionStatistics, collect_statistics


class SpatialMaskImportance(tp.importance.Importance):
    """Rank each filter separately inside the object and in the background, and keep the best of both.

    Scherrer, Quiniou, Selmaoui-Folcher, "Élagage de filtres par masques spatiaux", EGC, section 3 and Algorithm 1. For
    networks that generate images, where filters ranked by their overall activation lose small objects.

    The score of a channel is the larger of its ranks among the channels of its group, one rank a region, by mean
    activation in that region (see `union_scores`). Where this differs from the paper:

    - activations are measured where they are read, at the input of the next layers, so that a channel is scored as
      the network uses it: activated, pooled or upsampled, and after a residual addition as the sum;
    - means are of ``|activation|``, the same thing after ReLU;
    - channels that several layers read are scored once, after ``group_reduction`` of the region means;
    - means pool the cells of all the calibration images, and a region without any pure cell on a coarse grid is
      weighted by coverage, because the literal rule is undefined there (see ``cells``);
    - any number of regions, instead of two. Where a layer reads no map of positions (after global pooling or
      flattening), all the regions see the same mean.

    The statistics are taken at the first call, in one pass over ``loader`` with the model in eval mode, and again
    whenever the parameters have changed since: iterative pruning needs no extra line. The network is left as it was.
    Channels that are outputs of the network are never pruned; a warning names their layers.

    Args:
        loader: calibration batches ``(input, target)`` or ``(input, target, mask)``; some hundred images do (the
            paper: 200 validation images). Must be iterable again and again, as a ``DataLoader`` or a list. Tensors are
            moved to the model's device and floating inputs to its dtype; target and mask may be of another size than
            the input (super-resolution).
        threshold: what makes a target pixel part of the object when there is no mask: a number in the target's units,
            or ``"otsu"`` for one threshold an image. The object is above it.
        masks: callable ``(input, target) -> mask``, such as a segmentation model; takes the place of the threshold and
            of the loader's masks, and lets the loader yield inputs alone. `regions_from_mask` lists the forms of a
            mask: binary, one plane a region, or a label map.
        cells: which cells of a downsampled mask count: ``"auto"`` (pure cells, or coverage where a region has none),
            ``"pure"`` (the paper's literal rule; raises where it is undefined) or ``"coverage"``.
        group_reduction: as in Torch-Pruning, how a channel that several layers read gets one value: ``"mean"``,
            ``"sum"``, ``"max"``, ``"prod"``, ``"first"`` or ``"gate"`` (the last).
        normalizer: as in Torch-Pruning, how a group's scores are scaled for global pruning: None (ranks compare across
            layers as they are), ``"mean"``, ``"sum"``, ``"max"``, ``"gaussian"``, ... or a callable.
        forward: callable ``(model, input) -> output`` for models that are not called as ``model(input)``. By default a
            dict is passed as keywords and a tuple or list as positional arguments, as Torch-Pruning does.

    Raises:
        TypeError, ValueError: at construction for arguments that cannot be used, and at the first call for what the
            data or the network do not allow (see `collect_statistics`).

    Example:
        >>> importance = tp.importance.SpatialMaskImportance(loader, threshold="otsu")
        >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance=importance, pruning_ratio=0.7)
        >>> pruner.step()
    """

    def __init__(
        self,
        loader: Iterable,
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        cells: str = "auto",
        group_reduction: str = "mean",
        normalizer: str | Callable[[torch.Tensor], torch.Tensor] | None = None,
        forward: Forward | None = None,
    ):
        for name, value, choices in (("cells", cells, CELLS), ("group_reduction", group_reduction, REDUCTIONS)):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
        self.data = CalibrationData(loader, threshold, masks)
        self.cells = cells
        self.group_reduction = group_reduction
        self.normalizer = normalizer
        self.forward = forward or call_model
        self._statistics: RegionStatistics | None = None
        self._state: tuple | None = None
        self._warned: set[nn.Module] = set()

    @torch.no_grad()
    def __call__(self, group: Group) -> torch.Tensor | None:
        """Score the channels of a group: ``[len(group[0].idxs)]``, or None if they must not be pruned."""
        statistics = self.statistics(group._DG)
        if writers_in(group) & statistics.output_layers:
            self._warn_not_pruned(group, "these channels are outputs of the network", statistics.output_layers)
            return None
        means = reduce_over_readers(group, statistics.means, self.group_reduction)
        if means is None:
            self._warn_not_pruned(group, "no convolution or linear layer reads these channels")
            return None
        scores = union_scores(means[:-1], means[-1])
        if self.normalizer is None:
            return scores
        return tp.importance.GroupMagnitudeImportance()._normalize(scores.float(), self.normalizer)

    def statistics(self, graph: DependencyGraph) -> RegionStatistics:
        """Statistics of the graph's network, taken now if it changed since they were last taken."""
        if self._state != _state(graph.model):
            self._statistics = collect_statistics(graph, self.data, self.forward, self.cells)
            self._state = _state(graph.model)
        return self._statistics

    def _warn_not_pruned(self, group: Group, reason: str, among: set[nn.Module] | None = None) -> None:
        """Warn once a layer, naming the layers that write the group's channels."""
        names = channel_layers(group._DG)
        layers = writers_in(group) & (names.keys() if among is None else among)
        if layers <= self._warned:
            return
        self._warned |= layers
        warnings.warn(
            f"{', '.join(sorted(repr(names[layer]) for layer in layers))}: {reason}, so they are not pruned; list the "
            "layers in ignored_layers to silence this warning",
            stacklevel=2,
        )


def _state(model: nn.Module) -> tuple:
    """Changes when channels are removed or parameters are trained or loaded in place (not with writes to ``.data``)."""
    tensors = (*model.parameters(), *model.buffers())
    return weakref.ref(model), [(t.shape, 0 if t.is_inference() else t._version) for t in tensors]
