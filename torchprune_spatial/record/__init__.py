"""The record of a pruning, the costs of a network by module, and files of pruned networks."""

from .pruning_record import PruningRecord
from .saving import load_pruned, save_pruned

__all__ = ["PruningRecord", "load_pruned", "save_pruned"]
