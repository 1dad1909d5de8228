"""The record of a search: one line of JSON for every trial that ended, as the trial itself told it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: NNI's id of it.
        status: ``"succeeded"``, or ``"failed"`` for one that raised, gave NaN or infinity, or was killed.
        parameters: what the tuner asked for; None if the trial reported nothing, as when it was killed.
        value: the ``"default"`` of the metrics; None unless it succeeded.
        metrics: all that it reported; ``"error"`` of a failed one says why.
        seconds: from the start of its process to the end; None where NNI does not tell.
    """

    trial: str
    status: str
    parameters: dict[str, Any] | None
    value: float | None
    metrics: dict[str, Any]
    seconds: float | None = None

    @classmethod
    def of_metric(cls, trial: str, metric: Any, seconds: float | None) -> TrialResult:
        """From the final metric of a trial (`experiment.trial`); None for a trial that reported nothing."""
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
        value = metrics.get("default") if status == "succeeded" else None
        return cls(trial, status, parameters, value, metrics, seconds)


class TrialRecord:
    """The file of the trials that ended. It is only ever appended to, a line at a time, so a kill loses none."""

    def __init__(self, path: Path) -> None:
        """Args: path: the file; it need not exist yet."""
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
        """The lines of an earlier run. What a kill left of a last line is cut off."""
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self.results.append(TrialResult.of_line(json.loads(line)))
            whole += len(line)
        os.truncate(self.path, whole)
