"""The criteria for NNI: as algorithms that searches can name, and as a step of NNI 3.0.

Importing this package registers the algorithms.
"""

from resolution_scaling.ground.lazy_names import lazy_names

from .algorithms import register_criteria

__getattr__ = lazy_names(__name__, {"SpatialMaskPruner": ".step"}, "NNI 3.0 (pip install 'torchprune-spatial[nni3]')")

register_criteria()
