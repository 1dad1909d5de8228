"""Lower the resolution at which a network works, and count what it costs before and after.

`resolution_scaling.adapting.transforms` (the image transforms of reduced crop) needs torchvision and is imported by
itself.
"""

from .adapting.evaluation_size import search_evaluation_size
from .adapting.recalibration import recalibrate
from .by_resolution import ResolutionComparison, compare_resolutions
from .cnn.folding import fold_first_batch_norm
from .cnn.reduction import reduce_after_first_conv, undo_first_conv_reduction
from .cnn.resized_conv import FirstConvReduction
from .comparison import Comparison, compare
from .cost.cost_report import CostReport
from .cost.profiling import profile
from .rivals.model_scaling import ScaledModel, scale_model
from .scaling import scale_resolution, undo_scaling
from .vit.family import ViTFamily
from .vit.registry import register_vit_family, token_sizes, unregister_vit_family
from .vit.scaling import scale_vit, undo_vit_scaling
from .vit.sizes import TokenSizes

__all__ = [
    "Comparison",
    "CostReport",
    "FirstConvReduction",
    "ResolutionComparison",
    "ScaledModel",
    "TokenSizes",
    "ViTFamily",
    "compare",
    "compare_resolutions",
    "fold_first_batch_norm",
    "profile",
    "recalibrate",
    "reduce_after_first_conv",
    "register_vit_family",
    "scale_model",
    "scale_resolution",
    "scale_vit",
    "search_evaluation_size",
    "token_sizes",
    "undo_first_conv_reduction",
    "undo_scaling",
    "undo_vit_scaling",
    "unregister_vit_family",
]
