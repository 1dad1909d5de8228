"""The tree-structured Parzen estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tuner import Implementation, Tuner

FOLDER = Path(__file__).parent / "loaded_by_nni"


class TPE(Tuner):
    """The tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).

    On NNI 3.0 it is our subclass of NNI's, `SteadyTPE`: trials that run at once can kill NNI's own there.
    """

    name = "TPE"
    minimizes_unless_told = True

    def arguments(self, *, seed: int, max_trials: int, concurrency: int) -> dict[str, Any]:
        """The seed."""
        return {"seed": seed}

    def implementation(self, generation: int) -> Implementation | None:
        """Ours on NNI 3.0."""
        return Implementation("steady_tpe.SteadyTPE", FOLDER) if generation == 3 else None
