"""Spatial masks: Algorithm 1 of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Group

from resolution_scaling.ground.models import evaluating

from ..calibration.batches import Forward, Masks
from ..calibration.measurements import CELLS, Measurement, RegionMeans
from ..calibration.statistics import Calibration
from ..graph.groups import best_of_parts
from ..graph.private_names import channel_groups_of, own_containers
from .base import CalibratedImportance, Normalizer
from .ranking import in_order_of, top_count, union_of_tops, union_scores
from .registry import register_criterion


@register_criterion
class SpatialMaskImportance(CalibratedImportance):
    """Rank each filter separately inside the object and in the background, and keep the best of both.

    Scherrer, Quiniou, Selmaoui-Folcher, "Élagage de filtres par masques spatiaux", EGC, section 3 and Algorithm 1. For
    networks that generate images, where filters ranked by their overall activation lose small objects.

    A channel ranks by the larger of its ranks among the channels of its group, one rank a region, by mean activation
    in that region (see `union_scores`), so that what a pruner keeps is a union of top sets. Where this differs from
    the paper:

    - activations are measured where they are read, at the input of the next layers, so that a channel is scored as
      the network uses it: activated, pooled or upsampled, and after a residual addition as the sum;
    - means are of ``|activation|``, the same thing after ReLU;
    - channels that several layers read are scored once, after ``group_reduction`` of the region means;
    - means pool the cells of all the calibration images, and a region without any pure cell on a coarse grid is
      weighted by coverage, because the literal rule is undefined there (see ``cells``);
    - any number of regions, instead of two. Where a layer reads no map of positions (after global pooling or
      flattening), all the regions see the same mean;
    - the number of channels kept is the pruner's; for the paper's, see `pruning_ratio_dict`.

    It is the paper's criterion. What we recommend is `InterpolativeImportance`; see the study in the documentation.

    The statistics are taken at the first call, in one pass over ``loader`` with the model in eval mode, and again
    whenever the parameters have changed since: iterative pruning needs no extra line. The network is left as it was.
    Channels that are outputs of the network are never pruned; a warning names their layers.

    Args:
        loader: calibration batches ``(input, target)`` or ``(input, target, mask)``; some hundred images do (the
            paper: 200 validation images). Must be iterable again and again, as a ``DataLoader`` or a list. Tensors are
            moved to the model's device and floating inputs to its dtype; target and mask may be of another size than
            the input (super-resolution). Or a `Calibration` that several criteria share.
        threshold: what makes a target pixel part of the object when there is no mask: a number in the target's units,
            or ``"otsu"`` for one threshold an image. The object is above it.
        masks: callable ``(input, target) -> mask``, such as a segmentation model; takes the place of the threshold and
            of the loader's masks, and lets the loader yield inputs alone. `regions_from_mask` lists the forms of a
            mask: binary, one plane a region, or a label map.
        cells: which cells of a downsampled mask count: ``"auto"`` (pure cells, or coverage where a region has none),
            ``"pure"`` (the paper's literal rule; raises where it is undefined) or ``"coverage"``.
        group_reduction: as in Torch-Pruning, how a channel that several layers read gets one value: ``"mean"``,
            ``"sum"``, ``"max"``, ``"prod"``, ``"first"`` or ``"gate"`` (the last).
        normalizer: how scores of different layers compare, for global pruning (the paper's "globalwise" configuration,
            section 6, which it does not specify). The region means of a layer are scaled by it, each region by itself,
            and each channel has its best. ``"max"``, the default, leaves no layer empty; any other of Torch-Pruning's,
            or a callable ``[channels] -> [channels]``. With None a score is a rank in 0..1, so that global pruning
            removes one common fraction of every layer. The order inside a layer is always Algorithm 1's.
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

    name: ClassVar[str] = "spatial_mask"

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        cells: str = "auto",
        group_reduction: str = "mean",
        normalizer: Normalizer = "max",
        forward: Forward | None = None,
    ):
        if cells not in CELLS:
            raise ValueError(f"cells is {cells!r}; expected one of {', '.join(map(repr, CELLS))}")
        self.measurement = RegionMeans(cells)
        super().__init__(
            loader,
            threshold,
            masks=masks,
            forward=forward,
            group_reduction=group_reduction,
            normalizer=normalizer,
        )

    def pruning_ratio_dict(
        self,
        model: nn.Module,
        example_inputs: Any,
        keep_fraction: float,
        ignored_layers: list[nn.Module] | None = None,
        **options: Any,
    ) -> dict[nn.Module, float]:
        """The paper's selection: ratios with which a pruner keeps the union of the two top sets of each layer.

        Algorithm 1 fixes the size of the top sets, not of their union, which differs from layer to layer: between
        ``fract`` and twice ``fract`` for two regions.

        Args:
            model: the network, not pruned yet.
            example_inputs: as for the pruner.
            keep_fraction: the paper's ``fract``, in 0..1; the top sets hold `top_count` filters, at least one.
            ignored_layers: as for the pruner.
            options: other arguments of ``tp.pruner.BasePruner`` that shape the groups, such as ``num_heads``,
                ``unwrapped_parameters`` or ``customized_pruners``.

        Returns:
            Ratio by layer, for the pruner's ``pruning_ratio_dict``. A layer whose filters share a group with those of
            another by concatenation keeps at least its best filter (Torch-Pruning cannot empty it). Where all channel
            groups must lose the same channels (grouped convolutions, attention heads), Torch-Pruning averages their
            scores, and the size of the union is rounded up to a multiple of their number.

        Example:
            >>> ratios = importance.pruning_ratio_dict(model, example_inputs, keep_fraction=0.3)
            >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, pruning_ratio_dict=ratios)
            >>> pruner.step()
        """
        top_count(keep_fraction, 1)
        with evaluating(model):
            pruner = tp.pruner.BasePruner(
                model, example_inputs, importance=self, ignored_layers=ignored_layers, **own_containers(options)
            )
        ratios: dict[nn.Module, float] = {}
        for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
            scores = self(group)
            if scores is None:
                continue
            channels = len(scores)
            means = cast(torch.Tensor, self.values(group, self.measurement))  # which made the scores
            union = union_of_tops(means[:-1], means[-1], top_count(keep_fraction, channels))
            union[best_of_parts(group, scores)] = True
            channel_groups = channel_groups_of(pruner, group)
            producer: Any = next(
                dep.target.module
                for dep, _ in group
                if pruner.DG.is_out_channel_pruning_fn(dep.handler)
                and isinstance(dep.target.module, tuple(pruner.root_module_types))
            )
            kept = math.ceil(int(union.sum()) / channel_groups)
            # Torch-Pruning keeps int(channels * (1 - ratio))
            ratios[producer] = max(0.0, 1 - (kept + 0.5) / (channels // channel_groups))
        return ratios

    def measurements(self) -> list[Measurement]:
        """Means of each region."""
        return [self.measurement]

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Ranks of Algorithm 1; the overall mean breaks ties."""
        means = self.values(group, self.measurement)
        if means is None:
            return None
        ranks = union_scores(means[:-1], means[-1])
        if self.normalizer is None:
            return ranks, means[-1]
        best = torch.stack([self.normalized(region) for region in means[:-1]]).amax(0)
        return in_order_of(ranks, best), ranks
