"""Resolution scaling, and its search together with pruning, for NNI (Neural Network Intelligence) 2.10.1 and 3.0.

The two generations cannot share an environment: extra ``nni3`` or extra ``nni2``. The algorithm registry needs neither.
"""

from ..ground.lazy_names import lazy_names
from .algorithms.registry import Algorithm, algorithm_names, find_algorithm, register_algorithm
from .joint_search.searching import resume_search, search

__all__ = ["Algorithm", "algorithm_names", "find_algorithm", "register_algorithm", "resume_search", "search"]

__getattr__ = lazy_names(
    __name__, {"ResolutionScaler": ".steps.step"}, "NNI 3.0 (pip install 'torchprune-spatial[nni3]')"
)
