"""An NNI experiment that keeps its own record, ends by itself, and leaves no process behind, on NNI 2.10.1 and 3.0."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni.experiment
import requests
from nni.experiment import CustomAlgorithmConfig, ExperimentConfig, launcher, management

from ..algorithms.generation import NNI_3
from ..tuners import find_tuner
from . import manager, stored_profile
from .experiment_state import STATE_FILE, ExperimentState
from .interruption import deferred_signals, terminated_as_exit
from .results import TRIALS_FILE, TrialRecord, TrialResult
from .trial_code import check_imports
from .trial_command import TrialCall, fill_commands, is_local

POLL_S = 1.0
"""Seconds between two questions to NNI for trials that ended."""

SETTLED_S = 6.0
"""Seconds without any change after which the experiment counts as ended: the manager of 2.10.1 looks every 5 s."""

START_ATTEMPTS = 3
"""NNI 3.0 gives up if its tuner does not answer within 10 seconds, which can happen on a busy machine."""

ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


class _TunerTooLateError(RuntimeError):
    """The experiment failed before it had a trial."""


class RecordedExperiment(nni.experiment.Experiment):
    """NNI's ``Experiment``, with a record of its own.

    It reads parameters and results from what each trial reports (NNI 3.0 gives the parameters of one trial to another)
    and appends them to ``trials.jsonl``. It returns when the tuner has no more trials, can be resumed after a kill, and
    stops all its processes however it ends. NNI sends no usage data.

    Args:
        config: NNI's ``ExperimentConfig``, or the name of a platform, as ``"local"``.
        call: what a trial calls; None for an experiment that is resumed, which has its command already.
        output: folder of the record; None for NNI's own folder of the experiment.
        resumed: the id of the experiment that is resumed.
    """

    _proc: Any  # NNI's
    _output: Any  # a Path; None until `_prepare` where NNI's folder is used

    def __init__(
        self,
        config: ExperimentConfig | str | list[str],
        call: TrialCall | None,
        output: Path | None,
        *,
        resumed: str | None = None,
    ) -> None:
        super().__init__(config)
        self._call, self._output, self._resumed = call, output, resumed is not None
        if resumed is not None:
            self.id, self._action = resumed, "resume"

    @staticmethod
    def resume(output: str | Path, *, max_trials: int | None = None) -> RecordedExperiment:
        """Continue a search that was stopped or killed: call `run_all` on what this returns.

        What a kill left running is stopped first. The tuner is told all finished trials. Its seed is removed, because a
        seeded tuner would begin with the same points again.

        Args:
            output: the folder of the search.
            max_trials: a new number of trials in all.

        Raises:
            FileNotFoundError: there is no search in ``output``, or NNI's own files of it are gone.
            RuntimeError: the search is still running.
        """
        output = Path(output)
        state = ExperimentState.read(output)
        if state.launcher is not None and manager.is_running(state.launcher):
            raise RuntimeError(f"the search in {output} is still running, in process {state.launcher[0]}")
        manager.stop_manager(state.experiment, state.port)
        max_trials = max_trials or state.max_trials
        stored_profile.change(state.working_directory, state.experiment, max_trials)
        config = launcher.get_stopped_experiment_config(state.experiment, state.working_directory)
        config.max_trial_number = max_trials
        return RecordedExperiment(config, None, output, resumed=state.experiment)

    @property
    def code_directory(self) -> Path:
        """NNI's trial code directory, which in a configuration file is relative to that file."""
        base = getattr(self.config, "_base_path", None) or Path.cwd()
        return (Path(base) / Path(self.config.trial_code_directory).expanduser()).resolve()

    def run(self, port: int = 8080, wait_completion: bool = True, debug: bool = False) -> list[TrialResult]:
        """Run the search to its end, called as NNI's method of this name.

        Args:
            port: the port of NNI's web portal while the search runs.
            wait_completion: must be True: the record of the search is kept while this waits.
            debug: whether NNI logs more.

        Returns:
            The trials, in the order in which they ended.

        Raises:
            ValueError: ``wait_completion`` is False.
            TypeError, ValueError, RuntimeError: see `run_all`.
        """
        if not wait_completion:
            raise ValueError("wait_completion is False; the record is kept while run() waits: call it in a thread")
        if debug:
            self.config.debug = True
        return self.run_all(port)

    def run_all(self, port: int = 8080, on_trial: Callable[[TrialResult], None] | None = None) -> list[TrialResult]:
        """Run the trials until there are no more, and stop NNI.

        Ctrl-C, SIGTERM and exceptions stop it too, with everything that it started; the search can then be resumed.

        Args:
            port: the port of NNI's web portal while the search runs.
            on_trial: called with each trial that ended.

        Returns:
            All trials, in the order in which they ended; of a resumed search also the earlier ones.

        Raises:
            TypeError, ValueError: something in the configuration cannot work; nothing was started.
            ImportError: trials could not import their code.
            RuntimeError: the port is in use, or NNI's manager or tuner died.
        """
        arguments = [] if self._call is None else self._prepare(self._call)
        local = is_local(self.config)
        manager.check_port(port, and_next=not local)
        if arguments and local:
            check_imports([sys.executable, *arguments], self.code_directory)
        record = TrialRecord(self._output / TRIALS_FILE)
        with terminated_as_exit():
            for attempts_left in reversed(range(START_ATTEMPTS)):
                try:
                    self._run_once(port, record, on_trial)
                    break
                except _TunerTooLateError:
                    if not attempts_left:
                        raise
                    if not self._resumed:
                        self.id = management.generate_experiment_id()
        return list(record.results)

    def _prepare(self, call: TrialCall) -> list[str]:
        """Fill in what the user need not set. Returns the arguments of Python for a trial."""
        tuner, class_args = find_tuner(self.config.tuner.name), self.config.tuner.class_args
        arguments = call.arguments(
            self.code_directory,
            minimize=(class_args or {}).get("optimize_mode") == "minimize",
            failed_status=tuner.failed_status,
        )
        fill_commands(self.config, arguments)
        if (implementation := tuner.implementation(3 if NNI_3 else 2)) is not None:
            self.config.tuner = CustomAlgorithmConfig(
                class_name=implementation.class_name,
                code_directory=implementation.code_directory,
                class_args=class_args,
            )
        if self._output is None:
            self._output = Path(self.config.experiment_working_directory).expanduser() / self.id
        elif str(self.config.experiment_working_directory) == "~/nni-experiments":
            self.config.experiment_working_directory = str((self._output / "nni").resolve())
        self._check_output()
        self._output.mkdir(parents=True, exist_ok=True)
        Path(self.config.experiment_working_directory).expanduser().mkdir(parents=True, exist_ok=True)
        return arguments

    def _check_output(self) -> None:
        if (self._output / STATE_FILE).exists():
            raise FileExistsError(f"{self._output} holds a search already: resume it, or choose another output")

    def _run_once(self, port: int, record: TrialRecord, on_trial: Callable[[TrialResult], None] | None) -> None:
        experiment = self.id  # NNI 2.10.1 forgets it when it stops
        started = self._resumed
        try:
            self._write_state(port, running=True)
            with manager.patience():
                self.start(port)
            print(f"NNI web portal: http://localhost:{port} (experiment {experiment})", flush=True)
            started = True
            self._follow(record, on_trial)
        except _TunerTooLateError:
            started = self._resumed
            raise
        finally:
            self._stop_all(experiment, port)
            self._write_state(port, running=False)
            if not started:  # there is nothing to resume
                (self._output / STATE_FILE).unlink(missing_ok=True)

    def _write_state(self, port: int, *, running: bool) -> None:
        """Write what `resume` needs.

        Args:
            port: the manager's port.
            running: whether this process runs the search.
        """
        directory = Path(self.config.experiment_working_directory).expanduser().resolve()
        process = manager.identity_of(os.getpid()) if running else None
        max_trials = self.config.max_trial_number
        ExperimentState(self.id, port, str(directory), process, max_trials).write(self._output)

    def _follow(self, record: TrialRecord, on_trial: Callable[[TrialResult], None] | None) -> None:
        """Write down trials as they end, until there are no more."""
        quiet_since, last, failures = time.monotonic(), None, 0
        while True:
            try:
                status, jobs = self.get_status(), self.list_trial_jobs()
                for job in jobs:
                    if job.status in ENDED and job.trialJobId not in record:
                        result = self._result(job)
                        record.append(result)
                        if on_trial is not None:
                            on_trial(result)
                failures = 0
            except requests.RequestException as error:
                failures += 1
                if failures > 10 or self._proc is None or self._proc.poll() is not None:
                    raise RuntimeError(f"NNI's manager no longer answers; see {self._logs()}") from error
                time.sleep(POLL_S)
                continue
            moved = (status, len(jobs), len(record.results))
            if moved != last or any(job.status not in ENDED for job in jobs):
                quiet_since, last = time.monotonic(), moved
            if status in ("DONE", "STOPPED"):
                return
            if status == "ERROR":
                failure = RuntimeError if jobs else _TunerTooLateError
                raise failure(f"NNI's experiment failed; see {self._logs()}")
            if time.monotonic() - quiet_since > SETTLED_S:
                if status == "TUNER_NO_MORE_TRIAL":
                    return
                if not manager.has_tuner(self._proc.pid):
                    raise RuntimeError(f"NNI's tuner died; see {self._logs()}")
            time.sleep(POLL_S)

    def _result(self, job: Any) -> TrialResult:
        """The trial's own report. NNI's parameters of a trial may be those of another."""
        metrics = self.get_job_metrics(job.trialJobId).get(job.trialJobId, [])
        final = [metric.data for metric in metrics if metric.type == "FINAL"]
        seconds = None
        if job.startTime and job.endTime and job.endTime >= job.startTime:
            seconds = round((job.endTime - job.startTime) / 1000, 3)
        return TrialResult.of_metric(job.trialJobId, final[-1] if final else None, seconds)

    def _stop_all(self, experiment: str, port: int) -> None:
        """Stop NNI and all its processes; further signals wait until that is done."""
        with deferred_signals():
            manager.stop_manager(experiment, port)
            self._proc = None  # it has stopped: NNI's own stop has only its log to close
            with contextlib.suppress(Exception):
                super().stop()
            self.id = experiment
            manager.wait_until_idle(port)

    def _logs(self) -> Path:
        return Path(self.config.experiment_working_directory).expanduser() / self.id / "log"
