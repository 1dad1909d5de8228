"""Mean activation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch_pruning.dependency import Group

from ..calibration.batches import Forward
from ..calibration.measurements import MeanMagnitude, Measurement
from ..calibration.statistics import Calibration
from .base import CalibratedImportance, Normalizer
from .registry import register_criterion


@register_criterion
class MeanActivationImportance(CalibratedImportance):
    """Keep the filters with the highest mean activation (the spatial-mask paper's "Mean-mean", Table 1).

    ``s_ij = 1/N sum_k mean(Y_i[:, :, j])`` over N calibration images. Here the mean is that of ``|activation|``, which
    is the same after ReLU. It is taken where the next layers read the channel: after activation, norm, pooling and
    addition.

    Args:
        loader: calibration batches whose first item is the input, or inputs alone, or a `Calibration` that several
            criteria share.
        group_reduction, normalizer: see `ChannelImportance`.
        forward: see `SpatialMaskImportance`.
    """

    name: ClassVar[str] = "mean_activation"

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        *,
        group_reduction: str = "mean",
        normalizer: Normalizer = "max",
        forward: Forward | None = None,
    ):
        super().__init__(loader, forward=forward, group_reduction=group_reduction, normalizer=normalizer)

    def measurements(self) -> list[Measurement]:
        """Means of ``|activation|``."""
        return [MeanMagnitude()]

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The means. Only dead filters have equal ones."""
        values = self.values(group, MeanMagnitude())
        return None if values is None else (self.normalized(values[0]), values[0])
