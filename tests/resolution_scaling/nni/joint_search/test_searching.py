import json
import math

import numpy as np
import pytest
import torch

from resolution_scaling.nni.algorithms import registry
from resolution_scaling.nni.experiment.results import TrialResult
from resolution_scaling.nni.joint_search.limits import check_limits, violation
from resolution_scaling.nni.joint_search.search_check import check_search
from resolution_scaling.nni.joint_search.search_report import SearchReport, apart, row_of
from resolution_scaling.nni.joint_search.search_result import SearchResult
from resolution_scaling.nni.joint_search.search_space import Trial, corners, search_space
from resolution_scaling.nni.joint_search.search_trial import run_trial
from resolution_scaling.nni.joint_search.searching import search

from .search_module import Searched, Talkative, flops

CONVOLUTIONS = [{"op_types": ["Conv2d"]}]
UNCHANGED = {"flops": flops(8, 16, 16), "score": 1.0}
UNPRUNED, KEPT = {"_name": "none"}, {"_name": "keep"}
NARROW = {"_name": "narrow", "sparsity": 0.5}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(Searched, "calls", [])
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))


def scale(**sizes):
    return {"_name": "scale", **sizes}


def tried(pruning=UNPRUNED, resolution=KEPT, **changes):
    options = {"config_list": CONVOLUTIONS, "limits": {}, "unchanged": UNCHANGED, "reward_for_halving": {}} | changes
    return run_trial(Searched, {"pruning": pruning, "resolution": resolution}, **options)


# One trial


@pytest.mark.parametrize(
    ("pruning", "resolution", "channels", "low", "calls"),
    [
        (UNPRUNED, KEPT, 8, 16, ["evaluate"]),
        (NARROW, KEPT, 4, 16, ["epochs of narrow", "epoch 0", "epoch 1", "evaluate"]),
        (UNPRUNED, scale(size=8), 8, 8, ["epochs of resolution", "epoch 0", "epoch 1", "evaluate"]),
        (NARROW, scale(size=8.0), 4, 8, ["epochs of narrow", "epoch 0", "epoch 1", "evaluate"]),
        ({"_name": "narrow", "factor": 4.0}, KEPT, 2, 16, ["epochs of narrow", "epoch 0", "epoch 1", "evaluate"]),
        ({"_name": "blind", "sparsity": 0.75}, KEPT, 2, 16, ["epochs of blind", "epoch 0", "epoch 1", "evaluate"]),
    ],
)
def test_a_trial_prunes_scales_trains_and_evaluates(pruning, resolution, channels, low, calls):
    metrics = tried(pruning, resolution, limits={"flops": 1e9})
    assert metrics["flops"] == flops(channels, 16, low)
    assert metrics["parameter_count"] == 9 * channels + 9 * 16 * channels
    assert metrics["default"] == metrics["accuracy"] == channels / 8
    assert metrics["feasible"] is True
    assert metrics["repeated"] is False
    assert metrics["memory_bytes"] > 4 * metrics["parameter_count"]
    assert metrics["peak_bytes"] > 0
    assert Searched.calls == calls


def test_halved_costs_are_rewarded():
    metrics = tried(NARROW, reward_for_halving={"flops": 0.25})
    assert metrics["default"] == pytest.approx(0.5 + 0.25)  # half of the channels, so half of the FLOPs
    assert tried(reward_for_halving={"flops": 0.25})["default"] == 1.0


def test_a_network_over_the_limits_is_neither_pruned_nor_trained(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("pruned")

    registry.register_algorithm(
        registry.Algorithm("narrow", never, registry.find_algorithm("narrow").outline), replace=True
    )
    metrics = tried(NARROW, limits={"flops": flops(4, 16, 16) / 1.5})
    assert metrics["feasible"] is False
    assert "accuracy" not in metrics
    assert metrics["default"] == pytest.approx(-3 * 1.5)  # three times the unchanged score, and half of that
    assert metrics["flops"] == flops(4, 16, 16)
    assert Searched.calls == []


def test_what_cannot_be_told_beforehand_is_counted_before_training():
    metrics = tried({"_name": "blind", "sparsity": 0.5}, limits={"parameters": 100})
    assert metrics["feasible"] is False
    assert metrics["parameter_count"] == 9 * 4 + 9 * 16 * 4
    assert Searched.calls == []


def test_the_penalty_grows_and_is_below_every_useful_score():
    values = [tried(limits={"flops": limit})["default"] for limit in (20_000, 10_000, 1)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 3
    assert all(math.isfinite(value) and value < -1 for value in values)
    assert violation({"flops": 30, "parameters": 5}, {"flops": 20, "parameters": 10}) == pytest.approx(0.5)


def test_a_point_that_was_tried_is_not_tried_again(tmp_path):
    record = str(tmp_path / "points.jsonl")
    first = tried(NARROW, record=record)
    calls = list(Searched.calls)
    with open(record, "a") as file:
        file.write('["cut off by a k')
    again = tried({"_name": "narrow", "sparsity": 0.5 + 1e-12}, record=record)
    assert Searched.calls == calls
    assert again == first | {"repeated": True}
    other_limit = tried(NARROW, record=record, limits={"flops": 1})
    assert other_limit["feasible"] is False
    assert tried(NARROW, record=record, limits={"flops": 1}) == other_limit | {"repeated": True}


def test_a_trial_that_fails_is_not_written_down(tmp_path):
    record = tmp_path / "points.jsonl"
    with pytest.raises(ValueError, match="unknown algorithm 'magic'"):
        tried({"_name": "magic"}, record=str(record))
    assert not record.exists()


def test_an_evaluator_that_gives_text_is_refused():
    with pytest.raises(TypeError, match=r"Talkative.evaluator\(\) gave 'very good'; expected a number"):
        check_search(Talkative, search_space({"narrow": [0.5]}, {}), CONVOLUTIONS, {})


# The search space


def test_the_space_is_nnis():
    ratios = {"_type": "quniform", "_value": [0.2, 0.6, 0.1]}
    space = search_space({"l1": ratios, "spatial_mask": {"compression": [2, 4]}}, {"size": [128, 160], "grid": ()})
    assert space == {
        "pruning": {
            "_type": "choice",
            "_value": [
                {"_name": "none"},
                {"_name": "l1", "sparsity": ratios},
                {"_name": "spatial_mask", "compression": {"_type": "choice", "_value": [2, 4]}},
            ],
        },
        "resolution": {
            "_type": "choice",
            "_value": [{"_name": "keep"}, {"_name": "scale", "size": {"_type": "choice", "_value": [128, 160]}}],
        },
    }
    ends = list(corners(space))
    assert len(ends) == 5 * 3
    assert {"pruning": {"_name": "l1", "sparsity": 0.6}, "resolution": {"_name": "scale", "size": 128}} in ends


def test_a_range_of_sizes_is_spelled_out():
    space = search_space({}, {"grid": {"_type": "quniform", "_value": [8, 14, 2]}})
    assert space["resolution"]["_value"][1]["grid"] == {"_type": "choice", "_value": [8, 10, 12, 14]}


def test_what_a_tuner_chose_is_read():
    trial = Trial.of(
        {
            "pruning": {"_name": "l1", "sparsity": 0.30000000000000004, "mode": "dependency_aware"},
            "resolution": {"_name": "scale", "grid": 7.0, "patch_size": 16},
        }
    )
    assert trial == Trial("l1", 0.3, {"mode": "dependency_aware"}, {"grid": 7, "patch_size": 16})
    assert isinstance(trial.sizes["grid"], int)
    layers = [{"op_types": ["Conv2d"]}, {"op_names": ["stem"], "exclude": True}]
    assert trial.config_list(layers) == [{"op_types": ["Conv2d"], "sparsity": 0.3}, layers[1]]
    assert trial.pruning_text == "l1 0.3 mode=dependency_aware"
    assert trial.resolution_text == "grid 7, patch 16 px"
    unchanged = Trial.of({"pruning": UNPRUNED, "resolution": KEPT})
    assert (unchanged.pruning_text, unchanged.resolution_text) == ("none", "keep")


@pytest.mark.parametrize(
    ("pruning", "sizes", "error", "message"),
    [
        ({}, {}, ValueError, "nothing to search: give pruning"),
        ({"l1": []}, {}, ValueError, "pruning\\['l1'\\] is .*expected values"),
        ({"l1": 0.5}, {}, TypeError, r"pruning\['l1'\] is 0.5; expected a list of values"),
        ({"l1": {}}, {}, ValueError, r"pruning\['l1'\] is empty"),
        ({"l1": [1.5]}, {}, ValueError, r"pruning\['l1'\] is \[1.5\]; expected ratios between 0 and 1"),
        ({"l1": {"sparse_ratio": [0, 0.5]}}, {}, ValueError, "expected ratios between 0 and 1"),
        ({"l1": {"_type": "normal", "_value": [0, 1]}}, {}, ValueError, "one of NNI's ranges of type choice"),
        ({"l1": {"_type": "quniform", "_value": [0.2, 0.6]}}, {}, ValueError, r"quniform takes \[low, high, step\]"),
        ({"l1": {"_type": "uniform", "_value": [0.6, 0.2]}}, {}, ValueError, r"uniform takes \[low, high\]"),
        ({"none": [0.5]}, {}, ValueError, "pruning has the key 'none'"),
        ({"resolution": [112]}, {}, ValueError, "pass resolutions as size, grid or patch_size"),
        ({}, {"size": [112.5]}, ValueError, r"size is \[112.5\]; expected whole numbers above 0"),
        ({}, {"grid": "77"}, TypeError, "grid is '77'; expected a list"),
    ],
)
def test_a_bad_space_is_explained(pruning, sizes, error, message):
    with pytest.raises(error, match=message):
        search_space(pruning, sizes)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"time": 1}, "limits has the key 'time'; expected one of 'flops', 'memory_bytes'"),
        ({"flops": "1G"}, r"limits\['flops'\] is '1G'; expected a number above 0"),
        ({"flops": 0}, "expected a number above 0"),
        ({"flops": math.nan}, "expected a number above 0"),
    ],
)
def test_bad_limits_are_explained(limits, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_limits(limits)


# Before the start


def test_the_unchanged_network_is_counted_and_evaluated():
    unchanged = check_search(Searched, search_space({"narrow": [0.5]}, {"size": [8, 12]}), CONVOLUTIONS, {})
    assert unchanged["flops"] == flops(8, 16, 16)
    assert unchanged["parameters"] == 9 * 8 + 9 * 16 * 8
    assert unchanged["score"] == 1.0
    assert Searched.calls == ["evaluate"]


def test_limits_that_no_network_keeps_are_refused():
    space = search_space({"narrow": [0.25, 0.5]}, {"size": [8, 12]})
    least = flops(4, 16, 8)
    check_search(Searched, space, CONVOLUTIONS, {"flops": least})
    message = rf"limits cannot be kept by any network.*flops {least:,} \(limit {least - 1:,}\)"
    with pytest.raises(ValueError, match=message):
        check_search(Searched, space, CONVOLUTIONS, {"flops": least - 1})


def test_limits_are_left_to_the_trials_where_a_criterion_cannot_tell():
    assert check_search(Searched, search_space({"blind": [0.5]}, {}), CONVOLUTIONS, {"flops": 1})["score"] == 1


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"size": [8, 24]}, ValueError, "size=24 is impossible for Sequential: size is 24, larger than"),
        ({"grid": [7]}, TypeError, "grid=7 is impossible for Sequential"),
    ],
)
def test_impossible_resolutions_are_refused(sizes, error, message):
    with pytest.raises(error, match=message):
        check_search(Searched, search_space({}, sizes), CONVOLUTIONS, {})


def test_a_patch_size_that_does_not_divide_is_refused():
    timm = pytest.importorskip("timm")

    class Transformer(Searched):
        @classmethod
        def model(cls):
            return timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=32, patch_size=8, depth=1)

        @classmethod
        def dummy_input(cls):
            return torch.rand(1, 3, 32, 32)

        @classmethod
        def evaluate(cls, model):
            return float(model(cls.dummy_input()).shape[1])

    space = search_space({}, {"size": [32], "patch_size": [8, 12]})
    with pytest.raises(ValueError, match=r"size=32, patch_size=12 is impossible for VisionTransformer.*not a multiple"):
        check_search(Transformer, space, CONVOLUTIONS, {})
    options = {"config_list": [], "limits": {}, "unchanged": UNCHANGED, "reward_for_halving": {}}
    point = {"pruning": UNPRUNED, "resolution": scale(grid=2, patch_size=4)}
    metrics = run_trial(Transformer, point, **options)  # its images stay at 32 px
    assert metrics["accuracy"] == 2


def test_a_class_without_example_input_is_refused():
    with pytest.raises(TypeError, match=r"object has no dummy_input\(\), which a search counts costs for"):
        check_search(object, search_space({"narrow": [0.5]}, {}), CONVOLUTIONS, {})


# What was found


def result(trial, pruning, resolution, accuracy, cost, **changes):
    metrics = {"default": accuracy, "accuracy": accuracy, "feasible": True, "repeated": False, "seconds": 1.0}
    metrics |= {"flops": cost, "memory_bytes": 10 * cost, "peak_bytes": cost, "parameter_count": cost} | changes
    return TrialResult(trial, "succeeded", {"pruning": pruning, "resolution": resolution}, accuracy, metrics)


@pytest.fixture
def trials():
    return [
        result("a", NARROW, KEPT, 0.9, 50),
        result("b", UNPRUNED, scale(size=8), 0.8, 60),
        result("c", NARROW, scale(size=8), 0.7, 20),
        result("d", NARROW, scale(size=8), 0.7, 20, repeated=True),
        result("e", UNPRUNED, KEPT, -3.0, 100, feasible=False),
        TrialResult("f", "failed", None, None, {"error": "killed"}),
    ]


def test_searches_are_told_apart(trials):
    searches = apart([row_of(trial) for trial in trials])
    names = {name: [row["trial"] for row in rows] for name, rows in searches.items()}
    assert names == {"joint": list("abcdef"), "pruning alone": ["a", "e"], "resolution alone": ["b", "e"]}


def test_fronts_and_hypervolumes_by_hand(trials):
    unchanged = {"flops": 100, "memory_bytes": 1000, "peak_bytes": 100, "parameters": 100, "score": 0.905}
    report = SearchReport(apart([row_of(trial) for trial in trials]), unchanged)
    assert [row["trial"] for row in report.front("joint")] == ["c", "a"]
    assert [row["trial"] for row in report.networks("joint")] == ["a", "b", "c"]
    # the lowest score on a front is 0.7, so the reference is (1, 0.7)
    assert report.hypervolume("joint") == pytest.approx(0.5 * 0.2)
    assert report.hypervolume("pruning alone") == pytest.approx(0.5 * 0.2)
    assert report.hypervolume("resolution alone", "memory_bytes") == pytest.approx(0.4 * 0.1)
    assert report.nearly_as_good("joint")["trial"] == "a"
    assert report.nearly_as_good("resolution alone") is None


def test_results_are_written(trials, tmp_path):
    pytest.importorskip("matplotlib")
    unchanged = {"flops": 100, "memory_bytes": 1000, "peak_bytes": 100, "parameters": 100, "score": 0.905}
    table, figure, report = SearchResult(trials, unchanged, tmp_path).write()
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + 6 + 2 + 2
    assert lines[0].startswith("search,trial,status,pruning,resolution,feasible,accuracy,")
    assert lines[0].endswith("on_front_of_flops,on_front_of_memory_bytes")
    assert lines[1].startswith("joint,a,succeeded,narrow 0.5,keep,True,0.9,0.9,50,500,50,50,1.0,False,,True,True")
    assert figure.read_bytes().startswith(b"\x89PNG")
    text = report.read_text()
    assert "| joint" in text
    assert "narrow 0.5" in text


def test_the_figure_shows_fronts_and_the_unchanged_network(trials):
    pytest.importorskip("matplotlib")
    unchanged = {"flops": 100, "memory_bytes": 1000, "peak_bytes": 100, "parameters": 100, "score": 0.905}
    flops_axes, memory_axes = SearchReport(apart([row_of(trial) for trial in trials]), unchanged).plot().axes
    assert (flops_axes.get_xlabel(), flops_axes.get_ylabel()) == ("MFLOPs", "score (higher is better)")
    assert memory_axes.get_xlabel() == "memory (weights + largest operator), MB"
    for axes, cost in ((flops_axes, 1), (memory_axes, 10)):  # of a network, by its FLOPs
        fronts = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
        assert fronts["joint"] == pytest.approx(np.array([[20 * cost / 1e6, 0.7], [50 * cost / 1e6, 0.9]]))
        assert fronts["resolution alone"] == pytest.approx(np.array([[60 * cost / 1e6, 0.8]]))
        (star,) = [points for points in axes.collections if points.get_label() == "unchanged network"]
        assert np.asarray(star.get_offsets()) == pytest.approx(np.array([[100 * cost / 1e6, 0.905]]))


def test_a_search_in_which_all_failed_is_reported(tmp_path):
    pytest.importorskip("matplotlib")
    unchanged = {"flops": 100, "memory_bytes": 1000, "peak_bytes": 100, "parameters": 100, "score": 0.9}
    found = SearchResult([TrialResult("f", "failed", None, None, {"error": "killed"})], unchanged, tmp_path)
    assert found.front() == []
    assert found.report.hypervolume("joint") == 0
    found.write()
    assert json.loads(json.dumps(found.rows))[0]["error"] == "killed"


def test_the_network_of_a_trial_is_made_again(trials, tmp_path):
    settings = {
        "config_list": CONVOLUTIONS,
        "imports": ["tests.resolution_scaling.nni.joint_search.search_module"],
        "seed": 0,
    }
    (tmp_path / "search.json").write_text(json.dumps(settings))
    found = SearchResult(trials, {}, tmp_path)
    network = found.network(Searched, "c")
    assert network[0].out_channels == 4
    assert network[0](torch.rand(1, 1, 16, 16)).shape == (1, 4, 8, 8)
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 16)
    assert Searched.calls == ["epochs of narrow", "epoch 0", "epoch 1"]
    with pytest.raises(ValueError, match="trial is 'f'; expected the id of a trial that reported"):
        found.network(Searched, "f")


def test_bad_calls_are_refused_before_anything_is_tried(tmp_path):
    pytest.importorskip("nni")

    def refused(module_class=Searched, **arguments):
        search(module_class, output=tmp_path / "search", **{"pruning": {"narrow": [0.5]}} | arguments)

    with pytest.raises(ValueError, match="unknown algorithm 'magic'; known here are"):
        refused(pruning={"magic": [0.5]})
    with pytest.raises(ValueError, match=r"reward_for_halving has the key 'time'; expected 'flops'"):
        refused(reward_for_halving={"time": 1})
    with pytest.raises(ValueError, match="is defined inside a function, where trials cannot find it"):
        refused(type("Local", (Searched,), {"__qualname__": "f.<locals>.Local"}))
    with pytest.raises(TypeError, match="lacks the class method model"):
        refused(dict)
    assert Searched.calls == []
    assert not (tmp_path / "search").exists()
