"""Running trials under NNI's manager, in either generation."""

from ...ground.lazy_names import lazy_names
from .results import TrialRecord, TrialResult

__all__ = ["TrialRecord", "TrialResult"]

HOMES = {"TrialExperiment": ".trial_experiment"}
__getattr__ = lazy_names(__name__, HOMES, "NNI: pip install 'torchprune-spatial[nni3]', or [nni2]")
