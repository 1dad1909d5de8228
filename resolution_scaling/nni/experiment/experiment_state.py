"""What resuming an experiment needs, in the file ``experiment.json`` beside its record."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ...ground.files import replacing

STATE_FILE = "experiment.json"


@dataclass(frozen=True)
class ExperimentState:
    """What resuming an experiment needs.

    Attributes:
        experiment: its id, given by NNI.
        port: the port of NNI's manager.
        working_directory: NNI's ``experiment_working_directory``.
        launcher: the process that runs the search, see `manager.identity_of`; None if none does.
        max_trials: the largest number of trials.
    """

    experiment: str
    port: int
    working_directory: str
    launcher: list[float] | None
    max_trials: int

    @classmethod
    def read(cls, output: Path) -> ExperimentState:
        """From the folder of a search.

        Raises:
            FileNotFoundError: there is no search in it.
        """
        path = output / STATE_FILE
        if not path.exists():
            raise FileNotFoundError(f"there is no search in {output}: {path.name} is missing")
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, output: Path) -> None:
        """Into the folder of a search."""
        with replacing(output / STATE_FILE) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
