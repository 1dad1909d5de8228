"""Runs a search in a process of its own, which tests kill.

python -m tests.resolution_scaling.nni.experiment.launcher OUTPUT PORT [resume]
"""

import sys
from pathlib import Path

from resolution_scaling.nni.experiment.trial_experiment import TrialExperiment

from .example_trials import Example

SPACE = {
    "fate": {"_type": "choice", "_value": ["good"]},
    "x": {"_type": "choice", "_value": [1, 2, 3, 4, 5]},
}

if __name__ == "__main__":
    output, port, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if how == "resume":
        experiment = TrialExperiment.resume(output)
    else:
        experiment = TrialExperiment(
            "tests.resolution_scaling.nni.experiment.example_trials:measure",
            Example,
            SPACE,
            tuner="TPE" if how == "TPE" else "GridSearch",
            tuner_args={"seed": 1} if how == "TPE" else None,
            max_trials=5 if how == "TPE" else 10,
            output=output,
        )
    experiment.run_all(port, on_trial=lambda result: print(f"ended {result.trial}", flush=True))
    print("complete", flush=True)
