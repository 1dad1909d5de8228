"""The cost model: FLOPs, weights and memory of a network, counted without running it."""

from .profiling import profile
from .report import CostReport

__all__ = ["CostReport", "profile"]
