"""Criteria as Torch-Pruning importances: from activation statistics to one score a channel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.ground.models import evaluating

from ..calibration.batches import Forward, Masks
from ..calibration.measurements import CELLS, MeanMagnitude, Measurement, NonzeroShare, RegionMeans
from ..calibration.statistics import Calibration
from ..graph.groups import best_of_parts, members_that_produce, reduce_over_members
from ..graph.layers import CHANNEL_LAYERS
from ..graph.outputs import output_layers_in
from ..graph.private_names import channel_groups_of, graph_of, own_containers
from .base import CalibratedImportance, ChannelImportance, Normalizer
from .interpolative import Interpolation
from .ranking import in_order_of, top_count, union_of_tops, union_scores

SELECTIONS = ("union", "interpolative")


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

    With ``selection="interpolative"``, which we recommend, those channels are kept from which the others are best
    interpolated, where every region counts alike: QR with column pivoting of activations that are sampled in each
    region (Chee, Renz, Damle, De Sa, "Model preserving compression for neural networks", NeurIPS 2022, without
    regions). A score is a channel's place among the pivots, from 1 down. It is the better choice together with `fold`,
    which lets the next layers make up for what goes, and with ``allocation="sensitivity"`` of `prune_to`; see the study
    in the documentation.

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
        selection: ``"union"``, the paper's Algorithm 1, or ``"interpolative"``, to which ``cells``, ``group_reduction``
            and ``normalizer`` do not apply.
        group_reduction: as in Torch-Pruning, how a channel that several layers read gets one value: ``"mean"``,
            ``"sum"``, ``"max"``, ``"prod"``, ``"first"`` or ``"gate"`` (the last).
        normalizer: how scores of different layers compare, for global pruning (the paper's "globalwise" configuration,
            section 6, which it does not specify). The region means of a layer are scaled by it, each region by itself,
            and each channel has its best. ``"max"``, the default, leaves no layer empty; any other of Torch-Pruning's,
            or a callable ``[channels] -> [channels]``. With None a score is a rank in 0..1, so that global pruning
            removes one common fraction of every layer. The order inside a layer is always Algorithm 1's.
        forward: callable ``(model, input) -> output`` for models that are not called as ``model(input)``. By default a
            dict is passed as keywords and a tuple or list as positional arguments, as Torch-Pruning does. With
            ``allocation="sensitivity"`` of `prune_to` the outputs are compared: let them be probabilities, not logits.

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
        loader: Iterable[Any] | Calibration,
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        cells: str = "auto",
        selection: str = "union",
        group_reduction: str = "mean",
        normalizer: Normalizer = "max",
        forward: Forward | None = None,
    ):
        for name, value, choices in (("cells", cells, CELLS), ("selection", selection, SELECTIONS)):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
        self.measurement = RegionMeans(cells)
        self.interpolation = Interpolation() if selection == "interpolative" else None
        super().__init__(
            loader,
            threshold,
            masks=masks,
            forward=forward,
            group_reduction=group_reduction,
            normalizer=normalizer,
        )

    def fold(self, group: Group) -> None:
        """Let the next layers read the channels that are about to go from those that stay.

        The channels that go are replaced by linear combinations of those that stay, fitted by least squares to the
        activations of the calibration data, each region of the same weight. They become part of the weights of the
        layers that read them; layers that do not mix channels (depthwise convolutions) stay as they are. Call it before
        the group is pruned, in the same step that scored it; with `prune_to`, pass ``before_removal=importance.fold``.

        Args:
            group: channels to be removed, as the pruner yields them.

        Raises:
            ValueError: the selection is not ``"interpolative"``, or the group was not scored by this importance.

        Example:
            >>> importance = tp.importance.SpatialMaskImportance(loader, selection="interpolative")
            >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance=importance, pruning_ratio=0.7)
            >>> for group in pruner.step(interactive=True):
            ...     importance.fold(group)
            ...     group.prune()
        """
        if self.interpolation is None:
            raise ValueError("fold needs selection='interpolative'")
        self.interpolation.fold(group)

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
            another by concatenation keeps at least its best filter (Torch-Pruning cannot empty it). Where channels
            must go together in sets (grouped convolutions, attention heads), Torch-Pruning averages the scores of a
            set, and the union's number of channels is rounded up to whole sets.

        Example:
            >>> ratios = importance.pruning_ratio_dict(model, example_inputs, keep_fraction=0.3)
            >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, pruning_ratio_dict=ratios)
            >>> pruner.step()
        """
        if self.interpolation is not None:
            raise ValueError("pruning_ratio_dict is Algorithm 1: it needs selection='union'")
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
            means = cast(torch.Tensor, self._values(group, self.measurement))  # which made the scores
            union = union_of_tops(means[:-1], means[-1], top_count(keep_fraction, channels))
            union[best_of_parts(group, scores)] = True
            sets = channel_groups_of(pruner, group)
            writer: Any = next(
                dep.target.module
                for dep, _ in group
                if pruner.DG.is_out_channel_pruning_fn(dep.handler)
                and isinstance(dep.target.module, tuple(pruner.root_module_types))
            )
            # Torch-Pruning keeps int(channels * (1 - ratio))
            ratios[writer] = max(0.0, 1 - (math.ceil(int(union.sum()) / sets) + 0.5) / (channels // sets))
        return ratios

    def _measurements(self) -> list[Measurement]:
        return [self.interpolation.measurement if self.interpolation else self.measurement]

    def _score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.interpolation is not None:
            places = self.interpolation.score(
                group, self.statistics(graph_of(group)).values[self.interpolation.measurement]
            )
            return None if places is None else (places, places)
        means = self._values(group, self.measurement)
        if means is None:
            return None
        ranks = union_scores(means[:-1], means[-1])
        if self.normalizer is None:
            return ranks, means[-1]
        best = torch.stack([self._normalized(region) for region in means[:-1]]).amax(0)
        return in_order_of(ranks, best), ranks


class MeanActivationImportance(CalibratedImportance):
    """Keep the filters with the highest mean activation (the spatial-mask paper's "Mean-mean", Table 1).

    ``s_ij = 1/N sum_k mean(Y_i[:, :, j])`` over N calibration images. Here the mean is of ``|activation|``, the same
    after ReLU, and is taken where the next layers read the channel: behind activation, norm, pooling and addition.

    Args:
        loader: calibration batches whose first item is the input, or inputs alone, or a `Calibration` that several
            criteria share.
        group_reduction, normalizer: see `ChannelImportance`.
        forward: see `SpatialMaskImportance`.
    """

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        *,
        group_reduction: str = "mean",
        normalizer: Normalizer = "max",
        forward: Forward | None = None,
    ):
        super().__init__(loader, forward=forward, group_reduction=group_reduction, normalizer=normalizer)

    def _measurements(self) -> list[Measurement]:
        return [MeanMagnitude()]

    def _score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        values = self._values(group, MeanMagnitude())
        return None if values is None else (self._normalized(values[0]), values[0])


class APoZImportance(MeanActivationImportance):
    """Remove the filters whose activations are most often zero (average percentage of zeros).

    Hu, Peng, Tai, Tang, "Network trimming: a data-driven neuron pruning approach towards efficient deep
    architectures", arXiv:1607.03250, equation 1: ``APoZ_c = sum_k sum_j f(O_c,j(k) = 0) / (N M)`` over N images and M
    positions. The score is ``1 - APoZ``. Equal shares are ordered by mean activation: where nothing is ever exactly
    zero (GELU, SiLU, or behind a norm) that alone decides. Measured where the next layers read the channel, so behind
    a max pooling fewer zeros are left than the paper counts.

    Args:
        loader: calibration batches whose first item is the input, or inputs alone, or a `Calibration` that several
            criteria share.
        group_reduction, normalizer: see `ChannelImportance`.
        forward: see `SpatialMaskImportance`.
    """

    def _measurements(self) -> list[Measurement]:
        return [NonzeroShare(), MeanMagnitude()]

    def _score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        shares, means = self._values(group, NonzeroShare()), self._values(group, MeanMagnitude())
        return None if shares is None or means is None else (self._normalized(shares[0]), means[0])


class WeightSumImportance(ChannelImportance):
    """Keep the filters with the largest sum of absolute weights.

    Li, Kadav, Durdanovic, Samet, Graf, "Pruning filters for efficient convnets", ICLR 2017, section 3.1:
    ``s_j = sum |F_j|``, of the filter itself: neither its bias nor its norm, nor the layers after it, which
    ``tp.importance.GroupMagnitudeImportance`` counts in. Layers whose filters must go together (residual additions,
    depthwise convolutions) are reduced by ``group_reduction``; the paper takes the shortcut's for residual blocks.

    Needs no data. The outputs of the network are those that Torch-Pruning's graph shows; a feature map that is
    returned and also used inside is not seen.

    Args:
        group_reduction, normalizer: see `ChannelImportance`.
    """

    _without_layers = "no convolution or linear layer writes these channels"

    def _output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        return output_layers_in(graph)

    def _score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        members = members_that_produce(group, {m for m in graph_of(group).module2node if isinstance(m, CHANNEL_LAYERS)})
        sums = {member.layer: _filter_sums(member.layer).unsqueeze(0) for member in members}
        values = reduce_over_members(members, sums, self.group_reduction, len(group[0].idxs))
        return None if values is None else (self._normalized(values[0]), values[0])


def _filter_sums(layer: Any) -> torch.Tensor:
    """Sum of the absolute weights of each filter of a convolution or linear layer: ``[out_channels]`` float64."""
    weight = layer.weight.detach().double().abs().cpu()
    if not getattr(layer, "transposed", False):
        return weight.flatten(1).sum(1)
    return weight.flatten(2).sum(2).unflatten(0, (layer.groups, -1)).sum(1).flatten()  # [in, out / groups, ...]
