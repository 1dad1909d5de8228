"""Spatial-mask pruning for Torch-Pruning: importing this package adds its criteria to ``tp.importance``."""

from . import report
from .budget import Allocation, prune_to, register_allocation, unregister_allocation
from .calibration.statistics import Calibration
from .check.network import check_network
from .criteria import CalibratedImportance, ChannelImportance, register_criterion, unregister_criterion
from .criteria.apoz import APoZImportance
from .criteria.interpolative import InterpolativeImportance
from .criteria.mean_activation import MeanActivationImportance
from .criteria.spatial_mask import SpatialMaskImportance
from .criteria.thinet import ThiNetImportance
from .criteria.weight_sum import WeightSumImportance
from .graph.attention import attention_heads, update_attention
from .graph.channel_graph import ChannelGraph
from .graph.labels.rules import register_rule
from .graph.pruners import following_channels
from .record.pruning_record import PruningRecord
from .record.saving import load_pruned, save_pruned
from .residuals.channel_scatter import CUSTOMIZED_PRUNERS, remove_dead_channels
from .residuals.mixed_connectivity import decouple_residuals

__all__ = [
    "CUSTOMIZED_PRUNERS",
    "APoZImportance",
    "Allocation",
    "CalibratedImportance",
    "Calibration",
    "ChannelGraph",
    "ChannelImportance",
    "InterpolativeImportance",
    "MeanActivationImportance",
    "PruningRecord",
    "SpatialMaskImportance",
    "ThiNetImportance",
    "WeightSumImportance",
    "attention_heads",
    "check_network",
    "decouple_residuals",
    "following_channels",
    "load_pruned",
    "prune_to",
    "register_allocation",
    "register_criterion",
    "register_rule",
    "remove_dead_channels",
    "report",
    "save_pruned",
    "unregister_allocation",
    "unregister_criterion",
    "update_attention",
]
