"""A TPE for several trials at once on NNI 3.0. NNI's tuner process loads this file by its path."""

from __future__ import annotations

from typing import Any

from nni.algorithms.hpo.tpe_tuner import TpeTuner


class SteadyTPE(TpeTuner):
    """NNI's TPE, which accepts the result of a trial that it was told has ended.

    NNI 3.0's manager mixes up which parameters a trial got, so it may tell the tuner that a trial ended which still
    runs. When the result of that trial comes, NNI's own TPE no longer knows it and raises KeyError, which ends the
    search. The result itself has the right number, because the trial sends it.
    """

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **options: Any) -> None:
        """Learn from the result of a trial."""
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **options)
