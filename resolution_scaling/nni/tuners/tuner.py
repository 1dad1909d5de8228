"""What a search has to know about a tuner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Implementation:
    """The class that NNI loads for a tuner that is not its own.

    Attributes:
        class_name: ``"module.Class"``, a subclass of NNI's ``Tuner``.
        code_directory: the folder from which ``module`` can be imported. NNI gives the process that loads it ten
            seconds to start, so the module should not import PyTorch.
    """

    class_name: str
    code_directory: Path


class Tuner:
    """How searches use a tuner: derive from this, set `name`, override what differs, and call `register_tuner`.

    By default it is NNI's own tuner of that name, told to maximise.

    Attributes:
        name: what ``search(tuner=...)`` and NNI's ``config.tuner.name`` call it. Upper and lower case are the same.
        minimizes_unless_told: whether NNI's tuner minimises without ``"optimize_mode"``. A configuration that leaves it
            out is then refused.
        failed_status: the exit status of trials that failed. 0 for tuners that break down when NNI tells them that a
            trial failed which has reported.

    Example:
        >>> @register_tuner
        ... class Halving(Tuner):
        ...     name = "Halving"
        ...
        ...     def implementation(self, generation):
        ...         return Implementation("halving_tuner.HalvingTuner", Path(__file__).parent)
        >>> search(MyModule, size=[112, 160], tuner="Halving", output="results/halving")
    """

    name: str
    minimizes_unless_told: bool = False
    failed_status: int = 1

    def direction(self) -> dict[str, Any]:
        """The argument by which NNI's class is told to maximise; ``{}`` if it has none."""
        return {"optimize_mode": "maximize"}

    def arguments(self, *, seed: int, max_trials: int, concurrency: int) -> dict[str, Any]:
        """Arguments that a search passes to NNI's class beside `direction`, unless the user gives some.

        Args:
            seed: of the search.
            max_trials: the largest number of trials.
            concurrency: the number of trials at once.
        """
        return {}

    def implementation(self, generation: int) -> Implementation | None:
        """The class that NNI loads; None for NNI's own tuner of this name.

        Args:
            generation: 2 for NNI 2.10.1, 3 for NNI 3.0.
        """
        return None
