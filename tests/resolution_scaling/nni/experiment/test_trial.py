"""What a trial does between its parameters and its metric; no manager, and no NNI is needed."""

import json
import math
import subprocess
import sys
import types

import pytest
import torch

from resolution_scaling.nni.experiment import trial
from resolution_scaling.nni.experiment.results import TrialRecord, TrialResult
from resolution_scaling.nni.experiment.trial import (
    PENALTY,
    dump_options,
    final_metrics,
    load_object,
    load_options,
    metric_of_trial,
)

RUN, MODULE_CLASS = (
    "tests.resolution_scaling.nni.experiment.example_trials:measure",
    "tests.resolution_scaling.nni.experiment.example_trials:Example",
)


@pytest.fixture
def manager(monkeypatch):
    """NNI as a trial sees it: gives parameters, takes metrics; notes what was imported before it was asked."""
    seen = types.SimpleNamespace(parameters={"fate": "good", "x": 4}, reported=[], imported_before=None)

    def get_next_parameter():
        seen.imported_before = "tests.resolution_scaling.nni.experiment.example_trials" in sys.modules
        return seen.parameters

    fake = types.SimpleNamespace(get_next_parameter=get_next_parameter, report_final_result=seen.reported.append)
    monkeypatch.setitem(sys.modules, "nni", fake)
    monkeypatch.delitem(sys.modules, "tests.resolution_scaling.nni.experiment.example_trials", raising=False)
    return seen


def test_a_trial_reports_its_metrics_and_its_parameters_once(manager):
    status = trial.main(["--run", RUN, "--module-class", MODULE_CLASS, "--options", '{"scale": 0.5}'])
    assert status == 0
    assert manager.reported == [
        {"default": 12.0, "flops": 2.0, "note": "measured", "parameters": '{"fate": "good", "x": 4}'}
    ]


def test_parameters_are_taken_before_the_users_code_is_imported(manager):
    trial.main(["--run", RUN, "--module-class", MODULE_CLASS])
    assert manager.imported_before is False


ENTRY = """
import json, runpy, sys, types

class Manager(types.ModuleType):
    def get_next_parameter(self):
        self.loaded = [name for name in HEAVY if name in sys.modules]
        return {"fate": "good", "x": 4}

    def report_final_result(self, metric):
        print(json.dumps([self.loaded, metric["default"]]))

HEAVY = ["nni.compression", "nni.experiment", "torch._dynamo", "torch_pruning", MODULE_CLASS.partition(":")[0]]
sys.modules["nni"] = Manager("nni")
sys.argv = ["trial", "--run", RUN, "--module-class", MODULE_CLASS]
runpy.run_module("resolution_scaling.nni.experiment.trial", run_name="__main__")
"""


def test_the_entry_takes_its_parameters_before_hosts_and_the_users_code_are_imported():
    """On NNI 3.0 a trial that dies before it took its parameters leaves them to another."""
    code = f"RUN, MODULE_CLASS = {RUN!r}, {MODULE_CLASS!r}\n{ENTRY}"
    done = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[[], 14.0]"], done.stderr  # 10 + 4


@pytest.mark.parametrize(("fate", "error"), [("crash", "RuntimeError: this trial was told to crash"), ("nan", "nan")])
def test_a_failing_trial_reports_a_finite_penalty_and_exits_with_1(manager, fate, error):
    manager.parameters = {"fate": fate, "x": 1}
    assert trial.main(["--run", RUN, "--module-class", MODULE_CLASS]) == 1
    (metric,) = manager.reported
    assert metric["default"] == PENALTY == -1e9
    assert error in metric["error"]
    assert json.loads(metric["parameters"]) == {"fate": fate, "x": 1}


def test_penalty_and_exit_status_can_be_told(manager):
    manager.parameters = {"fate": "crash", "x": 1}
    assert trial.main(["--run", RUN, "--module-class", MODULE_CLASS, "--penalty=7", "--failed-status=0"]) == 0
    assert manager.reported[0]["default"] == 7


def test_code_that_cannot_be_imported_is_a_failed_trial_too(manager):
    assert trial.main(["--run", RUN, "--module-class", "tests.nowhere:Example"]) == 1
    assert "No module named 'tests.nowhere'" in manager.reported[0]["error"]


def test_code_that_leaves_by_sys_exit_is_a_failed_trial_too():
    metric, succeeded = metric_of_trial(RUN, MODULE_CLASS, {"fate": "exit"}, {})
    assert not succeeded
    assert metric["error"].startswith("SystemExit")


@pytest.mark.parametrize(
    "result", [0.5, {"default": 0.5}, torch.tensor(0.5), {"default": torch.tensor(0.5, dtype=torch.float64)}]
)
def test_numbers_and_dicts_of_numbers_are_results(result):
    assert final_metrics(result) == {"default": 0.5}


def test_metrics_are_what_json_can_hold():
    given = {"default": 1, "loss": math.inf, "shape": (1, 2), "of": torch.float32, "count": torch.tensor(3)}
    metrics = final_metrics(given)
    assert metrics == {"default": 1.0, "loss": "inf", "shape": (1, 2), "of": "torch.float32", "count": 3}
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ("good", TypeError, r"gave 'good' \(str\); expected a finite number"),
        (None, TypeError, "NoneType"),
        (True, TypeError, "bool"),
        ({"accuracy": 1}, TypeError, "without 'default'"),
        ({"default": "good"}, TypeError, "str"),
        (torch.zeros(2), TypeError, "Tensor"),
        (math.nan, ArithmeticError, "nan"),
        (-math.inf, ArithmeticError, "inf"),
    ],
)
def test_other_results_are_refused(result, error, message):
    with pytest.raises(error, match=message):
        final_metrics(result)


def test_options_survive_any_shell():
    options = {"text": 'it\'s "quoted" $HOME; `ls` %41 & é', "list": [1, 2.5, None], "nested": {"a": True}}
    text = dump_options(options)
    assert load_options(text) == options == load_options(json.dumps(options))
    for shell in (["sh", "-c"], ["bash", "-c"]):
        for command in (f"printf %s {text}", f"eval 'printf %s {text}'"):
            assert subprocess.run([*shell, command], capture_output=True, text=True, check=True).stdout == text


@pytest.mark.parametrize("options", [{"a": object()}, {"a": math.nan}, {"a": {1, 2}}])
def test_options_must_be_json(options):
    with pytest.raises(TypeError, match=r"options are .*; expected numbers, strings, lists and dicts"):
        dump_options(options)


def test_paths_of_objects():
    assert load_object("tests.resolution_scaling.nni.experiment.example_trials:Example.offset") == 10.0
    with pytest.raises(ValueError, match=r"expected package.module:name"):
        load_object("tests.resolution_scaling.nni.experiment.example_trials")
    with pytest.raises(ImportError, match=r"has no Nothing: define it at the module's top level"):
        load_object("tests.resolution_scaling.nni.experiment.example_trials:Nothing")


def test_a_record_is_read_back_and_what_a_kill_left_of_its_last_line_is_cut_off(tmp_path):
    path = tmp_path / "trials.jsonl"
    good = TrialResult.of_metric("aa", {"default": 0.5, "flops": 8, "parameters": '{"x": 1}'}, 1.5)
    bad = TrialResult.of_metric("bb", {"default": -1e9, "error": "oh", "parameters": '{"x": 2}'}, None)
    killed = TrialResult.of_metric("cc", None, 2.0)
    record = TrialRecord(path)
    for result in (good, bad, killed):
        record.append(result)
    with path.open("a") as file:
        file.write('{"trial": "dd", "sta')
    again = TrialRecord(path)
    assert again.results == [good, bad, killed]
    assert [result.status for result in again.results] == ["succeeded", "failed", "failed"]
    assert [result.score for result in again.results] == [0.5, None, None]
    assert [result.parameters for result in again.results] == [{"x": 1}, {"x": 2}, None]
    assert "bb" in again
    assert "dd" not in again
    again.append(TrialResult.of_metric("dd", None, None))
    assert [json.loads(line)["trial"] for line in path.read_text().splitlines()] == ["aa", "bb", "cc", "dd"]
    assert json.loads(path.read_text().splitlines()[2])["parameters"] is None
