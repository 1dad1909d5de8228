"""Running trials under NNI's manager, in either generation."""

from typing import TYPE_CHECKING

from ...ground.lazy_names import lazy_names
from .results import TrialRecord, TrialResult

if TYPE_CHECKING:
    from .trial_experiment import TrialExperiment

__all__ = ["TrialExperiment", "TrialRecord", "TrialResult"]

HOMES = {"TrialExperiment": ".trial_experiment"}
__getattr__ = lazy_names(__name__, HOMES, "NNI: pip install 'torchprune-spatial[nni3]', or [nni2]")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
