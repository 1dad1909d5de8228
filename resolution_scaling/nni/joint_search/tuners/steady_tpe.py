"""NNI's TPE for several trials at once on NNI 3.0, where its own can be killed by them."""

from __future__ import annotations

from typing import Any

from nni.algorithms.hpo.tpe_tuner import TpeTuner


class SteadyTPE(TpeTuner):
    """The TPE of NNI, which knows what it asked for also when told that the trial has ended.

    NNI 3.0's manager mixes up which parameters a trial got, and so may tell the tuner of the end of a trial that still
    runs. When the result of that comes, NNI's own TPE has forgotten it, raises KeyError, and the search is over. The
    result itself bears the right number, because the trial sends it.
    """

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **options: Any) -> None:
        """Learn from a trial."""
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **options)
