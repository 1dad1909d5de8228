"""Registers the compression algorithms of the NNI that is installed, 2.10.1 or 3.0, under the names of AutoCompress."""

from __future__ import annotations

from .module import NNI_3

if NNI_3:
    from .pruners_nni3 import FINE_TUNED, LOST, NAMES, SPEEDS_UP, parameters_of
else:
    from .pruners_nni2 import FINE_TUNED, LOST, NAMES, SPEEDS_UP, parameters_of

__all__ = ["FINE_TUNED", "LOST", "NAMES", "SPEEDS_UP", "parameters_of"]
