"""Allocation by how much the outputs of the network change."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, cast

import numpy as np

from resolution_scaling.ground.progress import progress

from ...calibration.statistics import Calibration
from ..output_changes import OutputChanges
from ..scored_groups import ScoredGroup
from .base import Allocation, Step, Work, register_allocation
from .cost import cost_order

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)
"""The shares of its channels that a group keeps in the measurements; at least one channel is kept."""


@register_allocation
class SensitivityAllocation(Allocation):
    """Channels whose removal changes the outputs least per saved cost are removed first.

    Each group is pruned alone at about five strengths, including folding, and the outputs are compared with those of
    the unpruned network. Every region has the same weight (`OutputChanges`).

    This allocation is ours. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2, measure the
    sensitivity of single layers by accuracy, and choose the pruning ratios by hand.
    """

    name: ClassVar[str] = "sensitivity"
    needs_calibration: ClassVar[bool] = True

    def order(self, work: Work) -> list[Step]:
        """Steps in the order of the measured change per saved cost, see `cost_order`."""
        changes = OutputChanges(work.model, cast(Calibration, work.calibration), work.fold, work.loss)
        outputs = [name for name in work.groups if changes.produces_output(work.pruning_groups[name])]
        if outputs:
            warnings.warn(
                f"{', '.join(outputs)}: these channels are outputs of the network, so they are not pruned; list the "
                "layers in ignored_layers to silence this warning",
                stacklevel=4,
            )
        work = replace(work, groups={name: group for name, group in work.groups.items() if name not in outputs})
        losses = {}
        for name, scored in progress(work.groups.items(), "sensitivity", total=len(work.groups)):
            losses[name] = measured_losses(scored, partial(changes.change, work.pruning_groups[name]))
        return cost_order(work, losses)


def measured_losses(scored: ScoredGroup, change: Callable[[Sequence[int]], float]) -> list[float]:
    """Measure the loss of a group if each channel group keeps 0, 1, ... all channels: infinity, ..., 0.

    The change is measured at `SHARES` and interpolated between them. It is then made convex: each further channel that
    is removed adds at least as much as the one before.

    Args:
        scored: the group; the channels with the lowest scores are removed first.
        change: measures the change of the outputs when the root channels at the given positions are removed.
    """
    scores = scored.mean_scores
    channels, least = len(scores), max(1, int(scores.isposinf().sum()))
    counts = sorted({max(least, round(share * channels)) for share in SHARES} - {channels})
    errors = [change(scored.removed(count)) for count in counts]
    curve = np.interp(range(1, channels + 1), [*counts, channels], [*np.minimum.accumulate(errors), 0.0])
    rises = np.sort(-np.diff(curve)).cumsum()
    return [np.inf, *rises[::-1].tolist(), 0.0]
