"""The pruners and quantizers of the NNI that is installed, 2.10.1 or 3.0, under the names of AutoCompress.

Importing this package registers them. It needs NNI.
"""

from __future__ import annotations

from ..generation import NNI_3
from ..registry import algorithm_names, register_algorithm

if NNI_3:
    from .nni3 import ALGORITHMS, FINE_TUNED, LOST, NAMES, SPEEDS_UP, parameters_of
else:
    from .nni2 import ALGORITHMS, FINE_TUNED, LOST, NAMES, SPEEDS_UP, parameters_of

__all__ = ["FINE_TUNED", "LOST", "NAMES", "SPEEDS_UP", "parameters_of", "register_nni_algorithms"]


def register_nni_algorithms() -> None:
    """Register NNI's own algorithms. A name that is taken stays with the algorithm that has it."""
    for algorithm in ALGORITHMS:
        if algorithm.name not in algorithm_names():
            register_algorithm(algorithm)


register_nni_algorithms()
