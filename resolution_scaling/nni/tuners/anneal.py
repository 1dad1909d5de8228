"""Simulated annealing."""

from __future__ import annotations

from .tuner import Tuner


class Anneal(Tuner):
    """NNI's simulated annealing. NNI needs its extra ``Anneal`` for it."""

    name = "Anneal"
    minimizes_unless_told = True
