"""Pruning to a budget: limits, the search for the number of channels to remove, and its allocation to the layers."""

from .allocations import ALLOCATIONS, Allocation, register_allocation, unregister_allocation
from .limits import LIMITS
from .pruning import prune_to

__all__ = ["ALLOCATIONS", "LIMITS", "Allocation", "prune_to", "register_allocation", "unregister_allocation"]
