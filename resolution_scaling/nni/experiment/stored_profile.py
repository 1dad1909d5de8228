"""NNI's own record of a stopped experiment, and what has to be changed in it before the experiment is resumed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from ..algorithms.generation import NNI_3


def change(working_directory: str | Path, experiment: str, max_trials: int) -> None:
    """Remove the tuner's seed, with which it would begin with the same points again, and set the number of trials.

    NNI resumes with the configuration in its own database, and has no way to give it another. NNI 2.10.1 runs the
    trials that were interrupted again, but counts them twice: their number is added to ``max_trials``.

    Args:
        working_directory: NNI's ``experiment_working_directory``.
        experiment: its id. It must not be running.
        max_trials: the number of trials in all.

    Raises:
        FileNotFoundError: there is no such experiment, or NNI kept nothing of it.
        sqlite3.DatabaseError: NNI's database is damaged, or another process holds it.
    """
    path = Path(working_directory) / experiment / "db" / "nni.sqlite"
    if not path.exists():
        raise FileNotFoundError(f"NNI's files of experiment {experiment} are gone: {path} is missing")
    with closing(sqlite3.connect(path)) as database, database:
        known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ExperimentProfile'").fetchone()
        query = "SELECT revision, params FROM ExperimentProfile WHERE id = ?"
        rows = database.execute(query, (experiment,)).fetchall() if known else []
        if not rows:
            raise FileNotFoundError(f"NNI kept nothing of experiment {experiment}: it was stopped before it began")
        for revision, text in rows:
            params = json.loads(text)
            ((params.get("tuner") or {}).get("classArgs") or {}).pop("seed", None)
            params["maxTrialNumber"] = max_trials + (0 if NNI_3 else _interrupted(database))
            database.execute(
                "UPDATE ExperimentProfile SET params = ? WHERE id = ? AND revision = ?",
                (json.dumps(params), experiment, revision),
            )


def _interrupted(database: sqlite3.Connection) -> int:
    """The number of trials that NNI runs again."""
    query = "SELECT trialJobId, event FROM TrialJobEvent WHERE event != 'ADD_HYPERPARAMETER' ORDER BY rowid"
    return sum(event in ("WAITING", "RUNNING") for event in dict(database.execute(query)).values())
