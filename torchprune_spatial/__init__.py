"""Spatial-mask pruning for Torch-Pruning: importing this package adds its criteria to ``tp.importance``."""

import torch_pruning as _tp

from . import report
from .budget.pruning import prune_to
from .calibration.statistics import Calibration
from .check.network import check_network
from .criteria.spatial_mask import APoZImportance, MeanActivationImportance, SpatialMaskImportance, WeightSumImportance
from .criteria.thinet import ThiNetImportance
from .graph.attention import attention_heads, update_attention
from .record.pruning_record import PruningRecord
from .record.saving import load_pruned, save_pruned
from .residuals.channel_scatter import CUSTOMIZED_PRUNERS, remove_dead_channels
from .residuals.mixed_connectivity import decouple_residuals

__all__ = [
    "CUSTOMIZED_PRUNERS",
    "APoZImportance",
    "Calibration",
    "MeanActivationImportance",
    "PruningRecord",
    "SpatialMaskImportance",
    "ThiNetImportance",
    "WeightSumImportance",
    "attention_heads",
    "check_network",
    "decouple_residuals",
    "load_pruned",
    "prune_to",
    "remove_dead_channels",
    "report",
    "save_pruned",
    "update_attention",
]

for _name in __all__:
    if _name.endswith("Importance"):
        setattr(_tp.importance, _name, globals()[_name])
        if _name not in _tp.importance.__all__:
            _tp.importance.__all__.append(_name)
