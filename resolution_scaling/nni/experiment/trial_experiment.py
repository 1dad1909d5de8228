"""An NNI experiment that keeps its own record, ends by itself, and leaves no process behind, on NNI 2.10.1 and 3.0."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni.experiment
import requests
from nni.experiment import AlgorithmConfig, CustomAlgorithmConfig, ExperimentConfig, launcher, management

from ..algorithms.module import NNI_3
from . import manager, stored_profile
from .interruption import deferred_signals, terminated_as_exit
from .results import TrialRecord, TrialResult
from .trial import PENALTY, dump_options
from .trial_code import check_imports, code_directory_of, import_path
from .trial_command import fill_commands, is_local

POLL_S = 1.0
"""How often NNI is asked for trials that ended."""

SETTLED_S = 6.0
"""How long nothing must move before the experiment counts as ended: the manager of 2.10.1 looks every 5 s."""

START_ATTEMPTS = 3
"""NNI 3.0 gives up a tuner that is not there within 10 seconds, which it may be on a busy machine."""

ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")

__all__ = ["TrialExperiment", "TrialResult"]


class _TunerTooLateError(RuntimeError):
    """The experiment failed before it had a trial."""


class TrialExperiment(nni.experiment.Experiment):
    """A search whose trials call ``run(subject, parameters, **options)``, each in a process of its own.

    Unlike NNI's own ``Experiment`` it reads parameters and results from what each trial reports (NNI 3.0 gives the
    parameters of one trial to another), writes them as they come to ``trials.jsonl``, returns when the tuner has no
    more trials, can be resumed after a kill, and stops all its processes however it ends. NNI sends no usage data.

    Args:
        run: what a trial calls, as ``"package.module:function"``; it gives a number, or a dict of metrics with
            ``"default"``.
        subject: a class, at the top level of a file that trials can import.
        search_space: NNI's.
        options: further arguments of ``run``, such as JSON can hold.
        tuner: NNI's name of one: ``"TPE"``, ``"Evolution"``, ``"GridSearch"``, ``"Random"``, ...
        tuner_args: its arguments, as ``{"seed": 0}``; ``"optimize_mode"`` is ``"maximize"`` unless given.
        max_trials: how many trials at most.
        concurrency: how many at once.
        output: directory of the record, made if it is not there.
        config: NNI's ``ExperimentConfig`` or the name of a platform (``"remote"``, ...) for more than that; None for
            ``"local"``. Search space, tuner, the two numbers and the command are set on it; a command that is there
            and has ``{trial}`` in it, as ``"source env.sh && {trial}"``, is kept around that of the trial.

    Raises:
        TypeError, ValueError: an argument is not usable; ``subject`` could not be imported by trials.
        FileExistsError: ``output`` holds a search already.

    Example:
        >>> experiment = TrialExperiment("mine.search:measure", Network, space, output=Path("results/search"))
        >>> for result in experiment.run_all(port=8080):
        ...     print(result.parameters, result.value)
    """

    _proc: Any  # NNI's
    _output: Any  # a Path; None until `_prepare` where NNI's folder is taken

    def __init__(
        self,
        run: str,
        subject: type[Any],
        search_space: dict[str, Any],
        *,
        options: dict[str, Any] | None = None,
        tuner: str = "TPE",
        tuner_args: dict[str, Any] | None = None,
        max_trials: int = 20,
        concurrency: int = 1,
        output: Path,
        config: ExperimentConfig | str | None = None,
    ) -> None:
        for name, number in (("max_trials", max_trials), ("concurrency", concurrency)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; expected a whole number above 0")
        if not isinstance(search_space, dict) or not search_space:
            raise TypeError(f"search_space is {search_space!r}; expected NNI's, a dict of names and what they may be")
        given = config is not None and not isinstance(config, str)
        super().__init__(config if given else ExperimentConfig(config or "local"))
        self.config.search_space = search_space
        arguments = {"optimize_mode": "maximize", **(tuner_args or {})}
        self.config.tuner = AlgorithmConfig(name=tuner, class_args=arguments)
        self.config.max_trial_number = max_trials
        self.config.trial_concurrency = concurrency
        if not given:
            self.config.trial_code_directory = str(code_directory_of(subject))
        self._run, self._subject, self._options, self._output = run, subject, options or {}, Path(output)
        self._resumed = False
        import_path(subject, self._code_directory())
        dump_options(self._options)
        self._check_output()

    @classmethod
    def resume(cls, output: Path, *, max_trials: int | None = None) -> TrialExperiment:
        """Go on with a search that was stopped or killed: call `run_all` on what this returns.

        What a kill left running is stopped first. The tuner is told all finished trials; its seed is dropped, because a
        seeded tuner would begin with the same points again.

        Args:
            output: that of the search.
            max_trials: another number of trials in all.

        Raises:
            FileNotFoundError: there is no search in ``output``, or NNI's own files of it are gone.
            RuntimeError: it is still running.
        """
        output = Path(output)
        state = _read_state(output)
        if manager.is_running(state["launcher"]):
            raise RuntimeError(f"the search in {output} is still running, in process {state['launcher'][0]}")
        manager.stop_manager(state["experiment"], state["port"])
        max_trials = max_trials or state["max_trials"]
        stored_profile.change(state["working_directory"], state["experiment"], max_trials)
        experiment = cls.__new__(cls)
        nni.experiment.Experiment.__init__(experiment, None)
        experiment.id = state["experiment"]
        experiment.config = launcher.get_stopped_experiment_config(state["experiment"], state["working_directory"])
        experiment.config.max_trial_number = max_trials
        experiment._action, experiment._resumed, experiment._output = "resume", True, output
        return experiment

    def run_all(self, port: int = 8080, on_trial: Callable[[TrialResult], None] | None = None) -> list[TrialResult]:
        """Run the trials until there are no more, and stop NNI.

        Ctrl-C, SIGTERM and exceptions stop it as well, with everything that it started; the search can then be resumed.

        Args:
            port: for NNI's web portal while it runs.
            on_trial: called with each trial that ended.

        Returns:
            All trials, in the order in which they ended; of a resumed search also the earlier ones.

        Raises:
            RuntimeError: the port is in use, or NNI's manager or tuner died.
        """
        if not self._resumed:
            self._prepare()
        local = is_local(self.config)
        manager.check_port(port, and_next=not local)
        if not self._resumed and local:
            check_imports([sys.executable, *self._arguments()], self._code_directory())
        record = TrialRecord(self._output / "trials.jsonl")
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
                (self._output / "experiment.json").unlink(missing_ok=True)

    def _prepare(self) -> None:
        """Fill in what the user need not say."""
        fill_commands(self.config, self._arguments())
        if NNI_3 and self.config.tuner.name == "TPE":
            # NNI's own can be killed by trials that run at once.
            tuner, directory = self.config.tuner, Path(__file__).parents[1] / "joint_search" / "tuners"
            self.config.tuner = CustomAlgorithmConfig(
                class_name="steady_tpe.SteadyTPE", code_directory=directory, class_args=tuner.class_args
            )
        if self._output is None:
            self._output = Path(self.config.experiment_working_directory).expanduser() / self.id
        elif str(self.config.experiment_working_directory) == "~/nni-experiments":
            self.config.experiment_working_directory = str((self._output / "nni").resolve())
        self._check_output()
        self._output.mkdir(parents=True, exist_ok=True)
        Path(self.config.experiment_working_directory).expanduser().mkdir(parents=True, exist_ok=True)

    def _arguments(self) -> list[str]:
        """Of Python, for a trial."""
        subject = import_path(self._subject, self._code_directory())
        tuner = self.config.tuner
        minimize = (tuner.class_args or {}).get("optimize_mode") == "minimize"
        arguments = ["-m", "resolution_scaling.nni.experiment.trial", "--run", self._run, "--subject", subject]
        arguments += ["--options", dump_options(self._options), f"--penalty={-PENALTY if minimize else PENALTY}"]
        if str(tuner.name).lower() == "evolution":
            # It breaks down when told that a trial failed which reported a value.
            arguments.append("--failed-status=0")
        return arguments

    def _check_output(self) -> None:
        if (self._output / "experiment.json").exists():
            raise FileExistsError(f"{self._output} holds a search already: resume it, or choose another output")

    def _code_directory(self) -> Path:
        """NNI's trial code directory, which in a file of configuration is relative to that file."""
        base = getattr(self.config, "_base_path", None) or Path.cwd()
        return (Path(base) / Path(self.config.trial_code_directory).expanduser()).resolve()

    def _write_state(self, port: int, *, running: bool) -> None:
        """What `resume` needs.

        Args:
            port: of the manager.
            running: whether this process runs the search.
        """
        directory = Path(self.config.experiment_working_directory).expanduser().resolve()
        process = manager.identity_of(os.getpid()) if running else None
        state = {
            "experiment": self.id,
            "port": port,
            "working_directory": str(directory),
            "launcher": process,
            "max_trials": self.config.max_trial_number,
        }
        new = self._output / "experiment.json.new"
        new.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        new.replace(self._output / "experiment.json")

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
                    raise RuntimeError(f"NNI's manager does not answer any more; see {self._logs()}") from error
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
        """What a trial reported itself. NNI's own parameters of a trial may be another's."""
        metrics = self.get_job_metrics(job.trialJobId).get(job.trialJobId, [])
        final = [metric.data for metric in metrics if metric.type == "FINAL"]
        seconds = None
        if job.startTime and job.endTime and job.endTime >= job.startTime:
            seconds = round((job.endTime - job.startTime) / 1000, 3)
        return TrialResult.of_metric(job.trialJobId, final[-1] if final else None, seconds)

    def _stop_all(self, experiment: str, port: int) -> None:
        """Stop NNI and see that nothing is left of it; further signals wait until that is done."""
        with deferred_signals():
            manager.stop_manager(experiment, port)
            self._proc = None  # it has stopped: NNI's own stop has only its log to close
            with contextlib.suppress(Exception):
                super().stop()
            self.id = experiment
            manager.wait_until_idle(port)

    def _logs(self) -> Path:
        return Path(self.config.experiment_working_directory).expanduser() / self.id / "log"


def _read_state(output: Path) -> dict[str, Any]:
    path = output / "experiment.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no search in {output}: {path.name} is missing")
    return json.loads(path.read_text(encoding="utf-8"))
