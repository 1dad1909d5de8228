"""Spatial masks: Algorithm 1 of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

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

    Scherrer, Quiniou, Selmaoui-Folcher, "Élagage de filtres par masques spatiaux", EGC, section 3 and Algorithm 1. It
    is meant for networks that generate images, which lose small objects if filters are ranked by overall activation.

    In each region, the channels of a group are ranked by their mean activation there. The score of a channel is its
    best rank (see `union_scores`), so that a pruner keeps a union of top sets. Differences from the paper:

    - activations are measured at the input of the next layers, so that a channel is scored as the network uses it:
      after activation, pooling or upsampling, and after a residual addition as the sum;
    - means are those of ``|activation|``, which is the same after ReLU;
    - channels that several layers read are scored once, after ``group_reduction`` of the region means;
    - means are taken over the cells of all calibration images together, and if a region has no pure cell on a coarse
      grid, cells are weighted by coverage, because the paper's rule is undefined there (see ``cells``);
    - there may be more than two regions. If a layer reads no map of positions (after global pooling or flattening), all
      regions have the same mean;
    - the pruner decides how many channels are kept; for the paper's numbers, see `pruning_ratio_dict`.

    This is the paper's criterion. We recommend `InterpolativeImportance`; see the study in the documentation.

    The statistics are taken at the first call, in one pass over ``loader`` with the model in eval mode. They are taken
    again if the parameters have changed, so iterative pruning needs no extra line. The network is left unchanged.
    Channels that are outputs of the network are never pruned; a warning names their layers.

    Args:
        loader: calibration batches ``(input, target)`` or ``(input, target, mask)``; a few hundred images are enough
            (the paper uses 200 validation images). It must be iterable more than once, like a ``DataLoader`` or a list.
            Tensors are moved to the model's device, and floating-point inputs to its dtype. Target and mask may have
            another size than the input (super-resolution). Or a `Calibration` that several criteria share.
        threshold: without a mask, target pixels above this threshold are the object: a number in the target's units, or
            ``"otsu"`` for one threshold per image.
        masks: callable ``(input, target) -> mask``, such as a segmentation model, used instead of the threshold and of
            the loader's masks; the loader may then yield inputs alone. `regions_from_mask` lists the forms of a mask:
            binary, one plane per region, or a label map.
        cells: which cells of a downsampled mask count: ``"auto"`` (pure cells, or coverage where a region has none),
            ``"pure"`` (the paper's literal rule; raises where it is undefined) or ``"coverage"``.
        group_reduction: as in Torch-Pruning, how the values of a channel in several layers become one value:
            ``"mean"``, ``"sum"``, ``"max"``, ``"prod"``, ``"first"`` or ``"gate"`` (the last).
        normalizer: makes the scores of different layers comparable for global pruning (the paper's "globalwise"
            configuration, section 6, which it does not specify). It scales the region means of a layer, each region
            separately; the largest of a channel's scaled means counts. ``"max"``, the default, leaves no layer empty;
            other names of Torch-Pruning and callables ``[channels] -> [channels]`` work too. With None, a score is a
            rank in 0..1, so that global pruning removes the same fraction of every layer. The order inside a layer is
            always that of Algorithm 1.
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
        """The paper's selection: ratios with which a pruner keeps the union of the top sets of each layer.

        Algorithm 1 fixes the size of the top sets. The size of their union differs from layer to layer: with two
        regions, it is between ``fract`` and twice ``fract`` of the filters.

        Args:
            model: the network, not pruned yet.
            example_inputs: as for the pruner.
            keep_fraction: the paper's ``fract``, in 0..1; the top sets hold `top_count` filters, at least one.
            ignored_layers: as for the pruner.
            options: other arguments of ``tp.pruner.BasePruner`` that affect the groups, such as ``num_heads``,
                ``unwrapped_parameters`` or ``customized_pruners``.

        Returns:
            The ratio of each layer, for the pruner's ``pruning_ratio_dict``. If concatenation puts the filters of
            several layers into one group, each of the layers keeps at least its best filter (Torch-Pruning cannot empty
            a layer). If channel groups must lose the same channels (grouped convolutions, attention heads),
            Torch-Pruning averages their scores, and the size of the union is rounded up to a multiple of their number.

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
            means = self.values(group, self.measurement)
            if means is None:  # queries and keys of attention, which no layer reads
                continue
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
        """The mean activation in each region."""
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
