"""Allocation by what the outputs of the network lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""Shares of its channels with which a group is measured; at least one channel is kept."""


@register_allocation
class Sensitivity(Allocation):
    """Channels without which the outputs change least, for the cost that they save, are removed first.

    Each group alone is pruned at about five strengths, folding included, and the outputs are compared with those of the
    whole network, every region with the same weight (`OutputChanges`).

    This allocation is ours. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2, measure the
    sensitivity of single layers by accuracy, after which a person chooses their ratios.
    """

    name: ClassVar[str] = "sensitivity"
    needs_calibration: ClassVar[bool] = True

    def order(self, work: Work) -> list[Step]:
        """Steps by what the outputs lose for what they save, see `cost_order`."""
        changes = OutputChanges(work.model, cast(Calibration, work.calibration), work.fold, work.loss)
        losses = {}
        for name, scored in progress(work.groups.items(), "sensitivity", total=len(work.groups)):
            losses[name] = measured_losses(scored, partial(changes.change, work.pruning_groups[name]))
        return cost_order(work, losses)


def measured_losses(scored: ScoredGroup, change: Callable[[Sequence[int]], float]) -> list[float]:
    """What a group has lost where each channel group keeps 0, 1, ... all channels: infinity, ..., 0.

    The change is measured at `SHARES`, interpolated between them, and made convex: each further channel costs more.

    Args:
        scored: the group; the channels with the lowest scores are removed first.
        change: measures the change without the root channels at these positions.
    """
    scores = scored.mean_scores
    channels, least = len(scores), max(1, int(scores.isposinf().sum()))
    counts = sorted({max(least, round(share * channels)) for share in SHARES} - {channels})
    errors = [change(scored.removed(count)) for count in counts]
    curve = np.interp(range(1, channels + 1), [*counts, channels], [*np.minimum.accumulate(errors), 0.0])
    rises = np.sort(-np.diff(curve)).cumsum()
    return [np.inf, *rises[::-1].tolist(), 0.0]
