"""NNI's AutoCompress, in either generation.

Importing this package registers NNI's own algorithms, where NNI is installed.
"""

import contextlib
from typing import TYPE_CHECKING

from ...ground.lazy_names import lazy_names

if TYPE_CHECKING:
    from .abstract_module import AbstractAutoCompressionModule
    from .compact_space import AutoCompressionSearchSpaceGenerator
    from .experiment import AutoCompressionExperiment

__all__ = ["AbstractAutoCompressionModule", "AutoCompressionExperiment", "AutoCompressionSearchSpaceGenerator"]

HOMES = {
    "AbstractAutoCompressionModule": ".abstract_module",
    "AutoCompressionExperiment": ".experiment",
    "AutoCompressionSearchSpaceGenerator": ".compact_space",
}
__getattr__ = lazy_names(__name__, HOMES, "NNI: pip install 'torchprune-spatial[nni3]', or [nni2]")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


with contextlib.suppress(ImportError):  # the names above say what to install
    from ..algorithms import pruners  # noqa: F401
