"""NNI's AutoCompress, in either generation."""

from ...ground.lazy_names import lazy_names

HOMES = {
    "AbstractAutoCompressionModule": "..algorithms.module",
    "AutoCompressionExperiment": ".experiment",
    "AutoCompressionSearchSpaceGenerator": ".compact_space",
}
__getattr__ = lazy_names(__name__, HOMES, "NNI: pip install 'torchprune-spatial[nni3]', or [nni2]")
