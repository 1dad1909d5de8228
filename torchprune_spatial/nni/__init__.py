"""The criteria in NNI: as algorithms that searches can name, and as a compressor of NNI 3.0.

Importing this package registers the algorithms, see `register_criteria`.
"""

from typing import TYPE_CHECKING

from resolution_scaling.ground.lazy_names import lazy_names

from .algorithms import register_criteria

if TYPE_CHECKING:
    from .step import SpatialMaskPruner

__all__ = ["SpatialMaskPruner", "register_criteria"]

__getattr__ = lazy_names(__name__, {"SpatialMaskPruner": ".step"}, "NNI 3.0 (pip install 'torchprune-spatial[nni3]')")

register_criteria()
