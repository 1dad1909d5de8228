"""Random points."""

from __future__ import annotations

from typing import Any

from .tuner import Tuner


class RandomSearch(Tuner):
    """NNI's random search."""

    name = "Random"

    def arguments(self, *, seed: int, max_trials: int, concurrency: int) -> dict[str, Any]:
        """The seed."""
        return {"seed": seed}
