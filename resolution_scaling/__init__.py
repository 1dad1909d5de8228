"""Lower the resolution at which a network works, and measure what it costs before and after.

`transforms` (the pipelines of reduced crop) needs torchvision and is imported by itself.
"""

from .adapting.evaluation_size import search_evaluation_size
from .adapting.recalibration import recalibrate
from .by_resolution import ResolutionComparison, compare_resolutions
from .cnn.folding import fold_first_batch_norm
from .cnn.reduction import reduce_after_first_conv, undo_first_conv_reduction
from .cnn.resized_conv import FirstConvReduction
from .comparison import Comparison, compare
from .cost.profiling import profile
from .cost.report import CostReport
from .rivals import model_scaling
from .rivals.model_scaling import scale_model
from .scaling import scale_resolution, undo_scaling
from .vit.scaling import scale_vit, token_sizes, unscale_vit

__all__ = [
    "Comparison",
    "CostReport",
    "FirstConvReduction",
    "ResolutionComparison",
    "compare",
    "compare_resolutions",
    "fold_first_batch_norm",
    "model_scaling",
    "profile",
    "recalibrate",
    "reduce_after_first_conv",
    "scale_model",
    "scale_resolution",
    "scale_vit",
    "search_evaluation_size",
    "token_sizes",
    "undo_first_conv_reduction",
    "undo_scaling",
    "unscale_vit",
]
