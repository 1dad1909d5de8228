import csv
import dataclasses
import json
import socket

import numpy as np
import pytest
import torch
from filelock import FileLock

from recipes.autocompress_search import experiment as autocompress_search
from recipes.autocompress_search.__main__ import main, parse_arguments
from recipes.autocompress_search.experiment import PRESETS, Searches
from recipes.autocompress_search.task import CLASSES, IMAGE_PX, Task
from recipes.experiments.training import Training
from recipes.networks.resnet import SmallResNet
from resolution_scaling.nni.joint_search.limits import count_costs

TINY = dataclasses.replace(
    PRESETS["smoke"],
    task=Task(width=4, train_images=64, validation_images=50, finetuning_epochs=1, batch_size=16),
    training=Training(epochs=1, learning_rate=1e-2, batch_size=16),
    trials=3,
    sizes=(14,),
)


@pytest.fixture
def _tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    monkeypatch.setenv(autocompress_search.TASK_VARIABLE, "")


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_costs_of_the_network_by_hand():
    width, px = 4, IMAGE_PX
    macs = 9 * width * px**2 + 2 * 9 * width**2 * px**2
    for stage, side in ((1, px // 2), (2, px // 4)):
        out = width * 2**stage
        macs += (9 * out // 2 * out + 9 * out * out + out // 2 * out) * side**2
    macs += 4 * width * CLASSES
    assert count_costs(SmallResNet(width), torch.rand(1, 1, px, px))["flops"] == 2 * macs


def test_training_and_validation_images_do_not_overlap():
    training, validation = TINY.task.data()
    assert (len(training), len(validation)) == (64, 50)
    seen = {image.numpy().tobytes() for image, _ in validation}
    assert not seen & {image.numpy().tobytes() for image, _ in training}
    assert training[0][0].shape == (1, IMAGE_PX, IMAGE_PX)
    with pytest.raises(ValueError, match="there are 10000 images, fewer than the 10050"):
        dataclasses.replace(TINY.task, train_images=10_000).data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper"], "argument --preset"),
        (["--tuner", "Magic"], "argument --tuner"),
        (["--port", "99999"], "argument --port: 99999 is not a port"),
        (["--concurrency", "-1"], "argument --concurrency: -1 is not a number of trials"),
        (["--fashion-mnist", "/nowhere"], "argument --fashion-mnist: /nowhere is not a folder"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path, _tiny):
    """A folder of results, as it is before anything was trained."""
    Searches(parse_arguments(["--output", str(tmp_path)]))
    return tmp_path


def test_a_folder_of_another_experiment_is_refused(folder):
    with pytest.raises(ValueError, match=r"--output.*other settings \(seed, tuner\).*another folder"):
        Searches(parse_arguments(["--output", str(folder), "--seed", "1", "--tuner", "Random"]))


def test_a_search_without_a_trial_is_begun_anew(folder, monkeypatch):
    """NNI need not have kept anything of it: here it was killed before there was a database."""
    pytest.importorskip("nni")
    (folder / "joint").mkdir()
    state = {"experiment": "killed_early", "port": free_port()}
    (folder / "joint" / "experiment.json").write_text(json.dumps(state))

    def search(module, *, output, on_trial, **plan):
        output.mkdir()
        return "found"

    monkeypatch.setattr(autocompress_search, "search", search)
    searches = Searches(parse_arguments(["--output", str(folder)]))
    assert searches._search("joint", {"max_trials": 3, "port": free_port()}) == "found"
    assert [file.name for file in (folder / "joint").iterdir()] == ["finished.json"]


def test_a_folder_that_another_run_writes_to_is_refused(folder):
    pytest.importorskip("nni")
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="--output: another run is writing"):
        main(["--output", str(folder)])


def test_without_nni_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"need NNI: pip install 'torchprune-spatial\[nni3\]'"):
        main(["--output", str(folder)])


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny")
def test_from_command_to_report(tmp_path, capsys, drawn):
    """The preset is tiny only here: trials read its sizes from the folder."""
    pytest.importorskip("nni")
    command = ["--output", str(tmp_path), "--port", str(free_port()), "--tuner", "Random"]
    main(command)
    printed = capsys.readouterr().out
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 3 + 2
    assert {line.split(",")[0] for line in lines[1:]} == {"joint", "pruning alone", "resolution alone"}
    assert all(",succeeded," in line for line in lines[1:])
    with open(tmp_path / "results.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["accuracy"]]
    assert rows
    points = np.concatenate([points.get_offsets() for points in drawn["front.png"].axes[0].collections])
    for row in rows:
        assert np.isclose(points, [float(row["flops"]) / 1e6, float(row["accuracy"])]).all(1).any()
    report = (tmp_path / "report.md").read_text()
    assert "| resolution alone | 2 " in report
    assert "hypervolume" in report
    assert report in printed
    assert "NNI web portal: http://localhost:" in printed
    assert not list(tmp_path.glob("*.partial"))
    main(command)  # everything is there already
    assert (tmp_path / "results.csv").read_text().splitlines() == lines
