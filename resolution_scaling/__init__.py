"""Lower the resolution at which a network works, and measure what it costs before and after."""

from .cnn import FirstConvReduction, reduce_after_first_conv, undo_first_conv_reduction
from .compare import Comparison, compare
from .cost import profile
from .scaling import scale_resolution, undo_scaling
from .vit import scale_vit, token_sizes, unscale_vit

__all__ = [
    "Comparison",
    "FirstConvReduction",
    "compare",
    "profile",
    "reduce_after_first_conv",
    "scale_resolution",
    "scale_vit",
    "token_sizes",
    "undo_first_conv_reduction",
    "undo_scaling",
    "unscale_vit",
]
