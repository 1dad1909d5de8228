"""What was removed, and what a pruned network costs; files of pruned networks."""

from .pruning_record import PruningRecord
from .saving import load_pruned, save_pruned

__all__ = ["PruningRecord", "load_pruned", "save_pruned"]
