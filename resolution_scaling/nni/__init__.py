"""Resolution scaling, and its search together with pruning, for NNI (Neural Network Intelligence) 2.10.1 and 3.0.

The two generations cannot share an environment: extra ``nni3`` or extra ``nni2``. The algorithm registry needs neither.
"""

import importlib
from typing import Any

from .registry import Algorithm, algorithm_names, find_algorithm, register_algorithm

__all__ = ["Algorithm", "algorithm_names", "find_algorithm", "register_algorithm"]

_LAZY = {"ResolutionScaler": "step"}
"""Names that need NNI 3.0, by the file that holds them: imported when they are first used."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    except ImportError as error:
        raise ImportError(f"{name} needs NNI 3.0 (pip install 'torchprune-spatial[nni3]'): {error}") from error
