"""Every point of the search space."""

from __future__ import annotations

from .tuner import Tuner


class GridSearch(Tuner):
    """NNI's grid search. The search ends when the grid does."""

    name = "GridSearch"
