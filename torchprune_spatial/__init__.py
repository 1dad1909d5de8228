"""Spatial-mask pruning for Torch-Pruning: importing this package adds its criteria to ``tp.importance``."""

import torch_pruning as _tp

from .criteria import APoZImportance, MeanActivationImportance, SpatialMaskImportance, WeightSumImportance
from .statistics import Calibration
from .thinet import ThiNetImportance

_CRITERIA = (
    SpatialMaskImportance,
    APoZImportance,
    MeanActivationImportance,
    ThiNetImportance,
    WeightSumImportance,
)
__all__ = ["Calibration", *(criterion.__name__ for criterion in _CRITERIA)]

for _criterion in _CRITERIA:
    setattr(_tp.importance, _criterion.__name__, _criterion)
    if _criterion.__name__ not in _tp.importance.__all__:
        _tp.importance.__all__.append(_criterion.__name__)
