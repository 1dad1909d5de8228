"""Evolution by mutation."""

from __future__ import annotations

from typing import Any

from .tuner import Tuner


class Evolution(Tuner):
    """NNI's evolution (Real et al., Large-Scale Evolution of Image Classifiers, 2017)."""

    name = "Evolution"
    minimizes_unless_told = True
    failed_status = 0  # it breaks down when NNI tells it that a trial failed which has reported

    def arguments(self, *, seed: int, max_trials: int, concurrency: int) -> dict[str, Any]:
        """A population that is small enough for several generations. NNI's class takes no seed."""
        return {"population_size": max(concurrency + 1, min(32, max_trials // 3))}
