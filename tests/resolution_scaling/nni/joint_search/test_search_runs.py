"""Searches with NNI's manager, tuners and trials, of whichever generation is installed."""

import collections
import json
import multiprocessing

import pytest

pytest.importorskip("nni")

from resolution_scaling.nni.joint_search.searching import resume_search, search
from resolution_scaling.nni.tuners.loaded_by_nni.steady_tpe import SteadyTPE

from ..functions_of_nni import changed_since, functions_of_nni
from .search_module import Faulty, Searched, flops

LIMIT = flops(6, 16, 12)
PRUNING = {"narrow": [0.25, 0.5], "blind": [0.75]}
CHANNELS = {"none": 8, "narrow 0.25": 6, "narrow 0.5": 4, "blind 0.75": 2}


def expected(row):
    """Channels and FLOPs by what the row says was done."""
    channels = CHANNELS[row["pruning"]]
    low = {"keep": 16, "12 px": 12, "8 px": 8}[row["resolution"]]
    return channels, flops(channels, 16, low)


def check(row):
    channels, cost = expected(row)
    assert row["status"] == "succeeded"
    assert row["flops"] == cost
    assert row["feasible"] == (cost <= LIMIT)
    assert row["accuracy"] == (channels / 8 if row["feasible"] else None)
    if not row["feasible"]:
        assert row["score"] == pytest.approx(-3 * cost / LIMIT)


@pytest.mark.parametrize(
    "pruning",
    [
        pytest.param({"narrow": [0.5]}, id="four points"),
        pytest.param(PRUNING, id="eight points", marks=pytest.mark.slow),
    ],
)
def test_a_grid_is_searched_to_its_end(pruning, port, tmp_path):
    seen, functions = [], functions_of_nni()
    result = search(
        Searched,
        pruning=pruning,
        size=[8],
        limits={"flops": LIMIT},
        tuner="GridSearch",
        max_trials=50,
        concurrency=2,
        output=tmp_path / "search",
        port=port,
        on_trial=seen.append,
    )
    choices = ["none", *(f"{name} {ratio}" for name, ratios in pruning.items() for ratio in ratios)]
    assert collections.Counter((row["pruning"], row["resolution"]) for row in result.rows) == {
        (choice, resolution): 1 for choice in choices for resolution in ("keep", "8 px")
    }
    for row in result.rows:
        check(row)
    assert [trial.trial for trial in seen] == [row["trial"] for row in result.rows]
    lines = (tmp_path / "search" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [row["trial"] for row in result.rows]
    assert changed_since(functions) == []
    front = [(choice, "8 px") for choice in sorted(choices, key=lambda choice: CHANNELS[choice])]
    assert [(row["pruning"], row["resolution"]) for row in result.front()] == front


def test_tpe_survives_the_end_of_a_trial_that_is_still_running():
    tuner = SteadyTPE("maximize", seed=0)
    tuner.update_search_space({"x": {"_type": "uniform", "_value": [0, 1]}})
    for number in range(2):
        tuner.generate_parameters(number)
    tuner.trial_end(0, True)  # NNI 3.0 means 1
    tuner.receive_trial_result(1, {}, 0.5)
    tuner.receive_trial_result(0, {}, 0.7)
    tuner.trial_end(1, True)
    assert sorted(record.loss for record in tuner._history[("x",)]) == [-0.7, -0.5]


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["TPE", "Evolution", "Random"])
def test_every_tuner_searches(tuner, port, tmp_path):
    result = search(
        Searched,
        pruning={"narrow": {"_type": "quniform", "_value": [0.25, 0.5, 0.25]}},
        size=[8, 12],
        limits={"flops": LIMIT},
        tuner=tuner,
        max_trials=9,
        concurrency=2,
        output=tmp_path / "search",
        port=port,
    )
    assert len(result.trials) == 9
    points = collections.Counter()
    for row in result.rows:
        check(row)
        points[row["pruning"], row["resolution"]] += not row["repeated"]
    assert max(points.values()) <= 2  # two at once may try the same point
    assert max(row["score"] for row in result.rows) > 0


@pytest.mark.slow
def test_failures_stop_nothing(port, tmp_path):
    result = search(
        Faulty, pruning={"narrow": [0.25, 0.5]}, size=[8], tuner="GridSearch", max_trials=6, output=tmp_path, port=port
    )
    rows = {(row["pruning"], row["resolution"]): row for row in result.rows if row["pruning"]}
    assert len(result.rows) == 6
    statuses = [row["status"] for row in result.rows]
    assert collections.Counter(statuses) == {"failed": 4, "succeeded": 2}
    assert rows["narrow 0.5", "keep"]["accuracy"] == 1
    assert "gave nan; expected a finite number" in rows["narrow 0.5", "8 px"]["error"]
    assert sum(row["pruning"] is None for row in result.rows) == 2  # those that ended their process
    assert [row["status"] for row in result.front()] == ["succeeded"]


def search_and_stop(folder, port):
    """Ends with its second trial, as by Ctrl-C."""
    seen = []

    def stop(result):
        seen.append(result)
        if len(seen) == 2:
            raise KeyboardInterrupt

    search(Searched, pruning=PRUNING, size=[8, 12], max_trials=5, output=folder, port=port, on_trial=stop)


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_stopped(port, tmp_path):
    launcher = multiprocessing.get_context("spawn").Process(target=search_and_stop, args=(tmp_path, port))
    launcher.start()
    launcher.join()
    assert launcher.exitcode != 0
    result = resume_search(tmp_path, port=port)
    assert len(result.rows) >= 5
    assert result.unchanged["flops"] == flops(8, 16, 16)
    for row in result.rows:
        if row["status"] == "succeeded":  # not one that was cut off
            assert row["accuracy"] == expected(row)[0] / 8
    assert sum(row["status"] == "succeeded" for row in result.rows) >= 4
