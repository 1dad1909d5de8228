"""Resolution scaling, and its search together with pruning, for NNI (Neural Network Intelligence) 2.10.1 and 3.0.

The two generations cannot share an environment: extra ``nni3`` or extra ``nni2``. The algorithm registry needs neither.
"""

from .registry import Algorithm, algorithm_names, find_algorithm, register_algorithm

__all__ = ["Algorithm", "algorithm_names", "find_algorithm", "register_algorithm"]
