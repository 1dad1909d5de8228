"""Experiments with NNI's own manager, of whichever generation is installed."""

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("nni")

from nni.experiment import Experiment, ExperimentConfig

from resolution_scaling.nni.autocompress import AutoCompressionExperiment
from resolution_scaling.nni.experiment import manager, recorded_experiment, stored_profile
from resolution_scaling.nni.experiment.experiment_state import ExperimentState
from resolution_scaling.nni.experiment.trial_code import code_directory_of, import_path
from resolution_scaling.nni.experiment.trial_experiment import TrialExperiment

from ..example_module import Module
from .example_trials import Example

ROOT = Path(__file__).parents[4]
RUN = "tests.resolution_scaling.nni.experiment.example_trials:measure"


def space(*fates, x=(1,)):
    return {"fate": {"_type": "choice", "_value": list(fates)}, "x": {"_type": "choice", "_value": list(x)}}


def lines(output):
    return [json.loads(line) for line in (output / "trials.jsonl").read_text().splitlines()]


def experiment_in(output):
    return json.loads((output / "experiment.json").read_text())["experiment"]


# Real experiments


def test_a_search_ends_by_itself_records_failures_and_leaves_nothing_behind(tmp_path, port, capfd):
    """Four points and room for ten trials; one point crashes, one gives NaN, one kills its process."""
    experiment = TrialExperiment(
        RUN,
        Example,
        space("good", "crash", "nan", "killed"),
        options={"scale": 0.5},
        tuner="GridSearch",
        max_trials=10,
        concurrency=2,
        output=tmp_path / "search",
    )
    seen = []
    results = experiment.run_all(port, on_trial=seen.append)
    assert results == seen
    by_fate = {result.parameters["fate"] if result.parameters else "killed": result for result in results}
    assert len(results) == len(by_fate) == 4
    good, crash, nan, killed = (by_fate[fate] for fate in ("good", "crash", "nan", "killed"))
    assert (good.status, good.score, good.metrics["flops"]) == ("succeeded", 10.5, 2)  # 10 + 0.5 * 1
    assert (crash.status, crash.score, crash.metrics["default"]) == ("failed", None, -1e9)
    assert crash.metrics["error"] == "RuntimeError: this trial was told to crash"
    assert (nan.status, nan.parameters) == ("failed", {"fate": "nan", "x": 1})
    assert (killed.status, killed.parameters) == ("failed", None)
    assert [line["trial"] for line in lines(tmp_path / "search")] == [result.trial for result in results]
    assert f"http://localhost:{port}" in capfd.readouterr().out
    assert manager.processes_of(experiment_in(tmp_path / "search")) == []


def launch(output, port, how="GridSearch"):
    command = [sys.executable, "-m", "tests.resolution_scaling.nni.experiment.launcher", str(output), str(port), how]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for_trials(launcher, count):
    while count:
        line = launcher.stdout.readline()
        assert line, "the launcher ended early"
        count -= line.startswith("ended")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["GridSearch", "TPE"])
def test_a_killed_search_is_resumed(tmp_path, port, how):
    output = tmp_path / "search"
    launcher = launch(output, port, how)
    wait_for_trials(launcher, 2)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    experiment = experiment_in(output)
    assert manager.processes_of(experiment)  # NNI's manager outlives the script
    before = lines(output)
    resumed = launch(output, port, "resume")
    printed, _ = resumed.communicate(timeout=400)
    assert "complete" in printed
    after = lines(output)
    assert after[: len(before)] == before
    assert len({line["trial"] for line in after}) == len(after)
    assert experiment_in(output) == experiment
    assert manager.processes_of(experiment) == []
    tried = [line["parameters"]["x"] for line in after if line["parameters"]]
    if how == "GridSearch":
        assert sorted(set(tried)) == [1, 2, 3, 4, 5]
    else:
        assert len(tried) == 5
    assert all(line["metrics"]["default"] == 10 + line["parameters"]["x"] for line in after if line["parameters"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_everything(tmp_path, port, number):
    output = tmp_path / "search"
    launcher = launch(output, port)
    wait_for_trials(launcher, 1)
    launcher.send_signal(number)
    assert launcher.wait(timeout=100) != 0
    assert manager.processes_of(experiment_in(output)) == []
    manager.check_port(port)


@pytest.mark.slow
def test_an_exception_of_the_caller_stops_everything(tmp_path, port):
    def refuse(result):
        raise KeyError(result.trial)

    experiment = TrialExperiment(RUN, Example, space("good", x=range(20)), output=tmp_path / "search")
    with pytest.raises(KeyError):
        experiment.run_all(port, on_trial=refuse)
    assert manager.processes_of(experiment_in(tmp_path / "search")) == []
    results = TrialExperiment.resume(tmp_path / "search", max_trials=3).run_all(port)  # in the same process
    assert len(results) == 3


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["TPE", "Evolution", "Random"])
def test_tuners_go_on_after_trials_that_failed(tmp_path, port, tuner):
    arguments = {"population_size": 4} if tuner == "Evolution" else {"seed": 0}
    experiment = TrialExperiment(
        RUN,
        Example,
        space("good", "crash", x=range(20)),
        tuner=tuner,
        tuner_args=arguments,
        max_trials=6,
        concurrency=2,
        output=tmp_path / "search",
    )
    results = experiment.run_all(port)
    assert len(results) == 6
    for result in results:
        good = result.parameters["fate"] == "good"
        assert result.status == ("succeeded" if good else "failed")
        assert result.score == (10 + result.parameters["x"] if good else None)


@pytest.mark.slow
def test_a_tuner_that_dies_is_told(tmp_path, port):
    experiment = TrialExperiment(RUN, Example, space("slow"), output=tmp_path / "search")
    errors = []

    def run():
        try:
            experiment.run_all(port)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + 120
    while time.monotonic() < end and not (experiment.port and experiment.list_trial_jobs()):
        time.sleep(1)
    for process in manager.processes_of(experiment.id):
        if "--exp_params" in " ".join(process.cmdline()) or process.environ().get("NNI_TRIAL_JOB_ID"):
            process.kill()
    thread.join(timeout=120)
    assert errors
    assert "NNI's" in errors[0]
    assert manager.processes_of(experiment.id) == []


# What is said before an experiment starts


def test_a_port_in_use_by_another_program(port):
    with socket.socket() as other:
        other.bind(("localhost", port))
        other.listen()
        with pytest.raises(RuntimeError, match=f"port {port} is in use by another program: pass another port"):
            manager.check_port(port)
        with pytest.raises(RuntimeError, match=f"port {port} is in use"):
            manager.check_port(port - 1, and_next=True)


def test_a_port_in_use_by_an_experiment_of_nni(port):
    class Manager(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"id": "abcd1234"}')

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("localhost", port), Manager) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(RuntimeError, match=r"in use by NNI experiment abcd1234: .*nnictl stop abcd1234"):
            manager.check_port(port)
        server.shutdown()


@pytest.mark.parametrize("number", [0, 70000, "8080", True])
def test_a_port_is_a_number(number):
    with pytest.raises((TypeError, ValueError), match="expected a whole number from 1 to 65535"):
        manager.check_port(number)


def test_numbers_and_spaces_are_checked(tmp_path):
    with pytest.raises(ValueError, match="max_trials is 0"):
        TrialExperiment(RUN, Example, space("good"), max_trials=0, output=tmp_path)
    with pytest.raises(TypeError, match=r"concurrency is 1.5"):
        TrialExperiment(RUN, Example, space("good"), concurrency=1.5, output=tmp_path)
    with pytest.raises(TypeError, match="search_space is None"):
        TrialExperiment(RUN, Example, None, output=tmp_path)
    with pytest.raises(TypeError, match="options are"):
        TrialExperiment(RUN, Example, space("good"), options={"model": object()}, output=tmp_path)


def test_an_output_that_holds_a_search_is_not_overwritten(tmp_path):
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds a search already: resume it, or choose another"):
        TrialExperiment(RUN, Example, space("good"), output=tmp_path)


def attributes(experiment):
    return {name for name in vars(experiment) if not name.startswith("__")}


def test_every_experiment_is_made_by_the_constructors_of_nni(tmp_path, monkeypatch):
    """Each has what NNI's own constructor sets, here one attribute more, and keeps what it was given."""
    made = Experiment.__init__

    def __init__(self, *arguments, **options):
        made(self, *arguments, **options)
        self.set_by_nni = True

    monkeypatch.setattr(Experiment, "__init__", __init__)
    monkeypatch.setattr(stored_profile, "change", lambda *arguments: None)
    monkeypatch.setattr(
        recorded_experiment.launcher, "get_stopped_experiment_config", lambda *arguments: ExperimentConfig("local")
    )
    ExperimentState("abcd1234", 1, str(tmp_path), None, 7).write(tmp_path)
    experiments = [
        TrialExperiment(RUN, Example, space("good"), output=tmp_path / "a"),
        AutoCompressionExperiment(Module, "local", output=tmp_path / "b"),
        AutoCompressionExperiment.resume(tmp_path, max_trials=9),
    ]
    for experiment in experiments:
        assert attributes(experiment) >= attributes(Experiment("local")) | {"set_by_nni"}
        assert isinstance(experiment.config, ExperimentConfig)
    assert experiments[2].id == "abcd1234"
    assert experiments[2].config.max_trial_number == 9
    assert len({experiment.id for experiment in experiments}) == 3


def test_there_must_be_a_search_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no search in"):
        TrialExperiment.resume(tmp_path)


def test_a_search_that_is_running_is_not_resumed(tmp_path):
    state = {"experiment": "none0000", "port": 1, "working_directory": str(tmp_path), "max_trials": 3}
    state["launcher"] = manager.identity_of(os.getpid())
    (tmp_path / "experiment.json").write_text(json.dumps(state))
    with pytest.raises(RuntimeError, match=f"still running, in process {os.getpid()}"):
        TrialExperiment.resume(tmp_path)
    state["launcher"][1] -= 100  # a process of long ago that had this number
    (tmp_path / "experiment.json").write_text(json.dumps(state))
    with pytest.raises(FileNotFoundError, match="NNI's files of experiment none0000 are gone"):
        TrialExperiment.resume(tmp_path)


@pytest.fixture
def database(tmp_path):
    """NNI's, of an experiment ``abc`` that was stopped: of four trials one waits, and one is running."""
    folder = tmp_path / "abc" / "db"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "nni.sqlite")) as database, database:
        database.execute("CREATE TABLE TrialJobEvent (trialJobId text, event text)")
        database.execute("CREATE TABLE ExperimentProfile (id text, revision integer, params text)")
        events = [
            "a WAITING",
            "b WAITING",
            "a RUNNING",
            "a SUCCEEDED",
            "c WAITING",
            "c RUNNING",
            "d WAITING",
            "d FAILED",
        ]
        database.executemany("INSERT INTO TrialJobEvent VALUES (?, ?)", [event.split() for event in events])
        params = {"tuner": {"name": "TPE", "classArgs": {"seed": 1, "optimize_mode": "maximize"}}, "maxTrialNumber": 9}
        database.execute("INSERT INTO ExperimentProfile VALUES ('abc', 0, ?)", (json.dumps(params),))
        database.commit()
        yield database


@pytest.mark.parametrize(("is_nni_3", "allowed"), [(True, 20), (False, 22)])
def test_what_is_changed_in_a_stored_profile(tmp_path, database, monkeypatch, is_nni_3, allowed):
    """NNI 2.10.1 counts interrupted trials twice."""
    monkeypatch.setattr(stored_profile, "NNI_3", is_nni_3)
    for _ in range(2):  # of a search that is resumed again
        stored_profile.change(tmp_path, "abc", 20)
        (text,) = database.execute("SELECT params FROM ExperimentProfile").fetchone()
        assert json.loads(text)["maxTrialNumber"] == allowed
        assert json.loads(text)["tuner"]["classArgs"] == {"optimize_mode": "maximize"}


def test_a_search_of_which_nni_kept_nothing(tmp_path, database):
    database.execute("DELETE FROM ExperimentProfile")
    database.commit()
    with pytest.raises(FileNotFoundError, match="NNI kept nothing of experiment abc"):
        stored_profile.change(tmp_path, "abc", 20)
    database.execute("DROP TABLE ExperimentProfile")
    database.commit()
    with pytest.raises(FileNotFoundError, match="NNI kept nothing of experiment abc"):
        stored_profile.change(tmp_path, "abc", 20)


def test_code_of_trials_is_imported_before_the_experiment_starts(tmp_path, port):
    experiment = TrialExperiment(
        "tests.resolution_scaling.nni.experiment.example_trials:absent",
        Example,
        space("good"),
        output=tmp_path / "search",
    )
    with pytest.raises(ImportError, match="has no absent"):
        experiment.run_all(port)
    assert not (tmp_path / "search" / "experiment.json").exists()


def test_classes_that_trials_cannot_import(tmp_path, monkeypatch):
    class Local:
        pass

    with pytest.raises(ValueError, match="Local is defined inside a function"):
        import_path(Local, ROOT)
    with pytest.raises(TypeError, match=r"is no class: pass the class itself"):
        import_path(Example(), ROOT)
    with pytest.raises(ValueError, match=r"not in the trial code directory .*: move it there, or set"):
        import_path(Example, tmp_path)
    config = ExperimentConfig("local")
    config.trial_code_directory = tmp_path
    with pytest.raises(ValueError, match="not in the trial code directory"):
        TrialExperiment(RUN, Example, space("good"), output=tmp_path, config=config)
    monkeypatch.setattr(Example, "__module__", "__main__")
    with pytest.raises(ValueError, match="defined in the script that is run"):
        import_path(Example, ROOT)


def test_the_name_under_which_trials_import_a_class():
    assert code_directory_of(Example) == ROOT
    assert import_path(Example, ROOT) == "tests.resolution_scaling.nni.experiment.example_trials:Example"
    assert import_path(Example, ROOT / "tests") == "resolution_scaling.nni.experiment.example_trials:Example"
    assert import_path(ExperimentConfig, ROOT) == "nni.experiment.config.experiment_config:ExperimentConfig"
