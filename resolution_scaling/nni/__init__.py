"""Resolution scaling, and its search together with pruning, for NNI (Neural Network Intelligence) 2.10.1 and 3.0.

The two generations cannot share an environment: install extra ``nni3`` or extra ``nni2``. Importing this package needs
neither. It registers the algorithm ``'resolution'``; `resolution_scaling.nni.autocompress` registers NNI's own.

Every trial imports this package before it takes its parameters, so what takes long is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..ground.lazy_names import lazy_names
from .algorithms.registry import Algorithm, algorithm_names, find_algorithm, register_algorithm, unregister_algorithm
from .algorithms.resolution import RESOLUTION
from .tuners import Tuner, register_tuner, unregister_tuner

if TYPE_CHECKING:
    from .joint_search.searching import resume_search, search
    from .steps.step import ResolutionScaler

__all__ = [
    "Algorithm",
    "ResolutionScaler",
    "Tuner",
    "algorithm_names",
    "find_algorithm",
    "register_algorithm",
    "register_tuner",
    "resume_search",
    "search",
    "unregister_algorithm",
    "unregister_tuner",
]

HOMES = {
    "ResolutionScaler": ".steps.step",
    "resume_search": ".joint_search.searching",
    "search": ".joint_search.searching",
}
__getattr__ = lazy_names(__name__, HOMES, "NNI 3.0 (pip install 'torchprune-spatial[nni3]')")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_algorithm(RESOLUTION)
