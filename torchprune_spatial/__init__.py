"""Spatial-mask pruning for Torch-Pruning: importing this package adds its criteria to ``tp.importance``."""

import torch_pruning as _tp

from .criteria import SpatialMaskImportance

__all__ = ["SpatialMaskImportance"]

for _criterion in (SpatialMaskImportance,):
    setattr(_tp.importance, _criterion.__name__, _criterion)
    if _criterion.__name__ not in _tp.importance.__all__:
        _tp.importance.__all__.append(_criterion.__name__)
