"""How results of trials are stored: files of JSON lines that survive a kill.

``trials.jsonl`` has a line for each trial that ended, ``points.jsonl`` one for each point of the search space that was
measured. NNI is not needed to read or write them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRIALS_FILE = "trials.jsonl"
POINTS_FILE = "points.jsonl"


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: its id, given by NNI.
        status: ``"succeeded"``, or ``"failed"`` for one that raised, gave NaN or infinity, or was killed.
        parameters: what the tuner asked for; None if the trial reported nothing, as when it was killed.
        score: the number that the search maximises; None unless the trial succeeded.
        metrics: all that it reported, with the score under NNI's key ``"default"``. For a failed trial, ``"error"`` is
            the reason.
        seconds: from the start of its process to the end; None if NNI does not report it.
    """

    trial: str
    status: str
    parameters: dict[str, Any] | None
    score: float | None
    metrics: dict[str, Any]
    seconds: float | None = None

    @classmethod
    def of_metric(cls, trial: str, metric: Any, seconds: float | None) -> TrialResult:
        """From the final metric that a trial reported (`experiment.trial`); None if it reported nothing."""
        if not isinstance(metric, dict):
            return cls(trial, "failed", None, None, {"error": "the trial ended before it reported anything"}, seconds)
        metrics = dict(metric)
        text = metrics.pop("parameters", None)
        parameters = json.loads(text) if isinstance(text, str) else None
        return cls._made(trial, "failed" if "error" in metrics else "succeeded", parameters, metrics, seconds)

    @classmethod
    def of_line(cls, line: dict[str, Any]) -> TrialResult:
        """From a line of the record."""
        return cls._made(line["trial"], line["status"], line["parameters"], line["metrics"], line.get("seconds"))

    def to_line(self) -> dict[str, Any]:
        """As a line of the record."""
        names = ("trial", "status", "parameters", "metrics", "seconds")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def _made(
        cls, trial: str, status: str, parameters: dict[str, Any] | None, metrics: dict[str, Any], seconds: float | None
    ) -> TrialResult:
        score = metrics.get("default") if status == "succeeded" else None
        return cls(trial, status, parameters, score, metrics, seconds)


class TrialRecord:
    """The file of the trials that ended. Lines are only appended, one at a time, so a kill loses none.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[TrialResult] = []
        if path.exists():
            self._read()

    def __contains__(self, trial: str) -> bool:
        return any(result.trial == trial for result in self.results)

    def append(self, result: TrialResult) -> None:
        """Write a trial that ended."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.to_line()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.results.append(result)

    def _read(self) -> None:
        """Read the lines of an earlier run. A last line that a kill cut off is removed."""
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self.results.append(TrialResult.of_line(json.loads(line)))
            whole += len(line)
        os.truncate(self.path, whole)


class PointRecord:
    """The file of the points that were measured. Trials of several processes and searches read and append to it.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def find(self, point: str) -> dict[str, Any] | None:
        """The metrics of an earlier trial of the same point, or None. Lines that a kill cut off are skipped."""
        if not self.path.exists():
            return None
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                known, metrics = json.loads(line)
            except ValueError:
                continue
            if known == point:
                return metrics
        return None

    def append(self, point: str, metrics: dict[str, Any]) -> None:
        """Write a point in one short write, on a new line also after one that a kill cut off."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps([point, metrics])}\n")
