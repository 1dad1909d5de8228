"""The cost model: FLOPs, weights and memory of a network, counted from shapes without running it."""

from .cost_report import CostReport
from .profiling import profile

__all__ = ["CostReport", "profile"]
