"""Sequential model-based optimisation."""

from __future__ import annotations

from .tuner import Tuner


class SMAC(Tuner):
    """NNI's SMAC (Hutter et al., Sequential Model-Based Optimization, 2011). NNI needs its extra ``SMAC`` for it."""

    name = "SMAC"
    minimizes_unless_told = True
