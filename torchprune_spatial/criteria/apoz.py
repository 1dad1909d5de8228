"""Average percentage of zeros."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch_pruning.dependency import Group

from ..calibration.measurements import MeanMagnitude, Measurement, NonzeroShare
from .mean_activation import MeanActivationImportance
from .registry import register_criterion


@register_criterion
class APoZImportance(MeanActivationImportance):
    """Remove the filters whose activations are most often zero (average percentage of zeros).

    Hu, Peng, Tai, Tang, "Network trimming: a data-driven neuron pruning approach towards efficient deep
    architectures", arXiv:1607.03250, equation 1: ``APoZ_c = sum_k sum_j f(O_c,j(k) = 0) / (N M)`` over N images and M
    positions. The score is ``1 - APoZ``. Filters with equal scores are ordered by mean activation, which alone decides
    if no activation is exactly zero (GELU, SiLU, or after a norm). Activations are measured where the next layers read
    the channel; after a max pooling, they have fewer zeros than the paper counts.

    Args:
        loader: calibration batches whose first item is the input, or inputs alone, or a `Calibration` that several
            criteria share.
        group_reduction, normalizer: see `ChannelImportance`.
        forward: see `SpatialMaskImportance`.
    """

    name: ClassVar[str] = "apoz"

    def measurements(self) -> list[Measurement]:
        """Shares of activations that are not zero, and mean activations."""
        return [NonzeroShare(), MeanMagnitude()]

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``1 - APoZ``; the mean activation breaks ties."""
        shares, means = self.values(group, NonzeroShare()), self.values(group, MeanMagnitude())
        return None if shares is None or means is None else (self.normalized(shares[0]), means[0])
