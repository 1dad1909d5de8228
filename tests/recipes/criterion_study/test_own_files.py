"""A task, a criterion and optics of one's own, each in a file of its own that the command line names."""

import numpy as np
import pandas as pd
import pytest
import torch

from recipes.criterion_study.__main__ import main
from recipes.criterion_study.__main__ import parse_arguments as study_arguments
from recipes.criterion_study.experiment import PRESETS
from recipes.criterion_study.tasks import TASKS, Task, register_task, unregister_task
from recipes.datasets.digits import load_digits
from recipes.datasets.holography import OPTICS, HologramSimulation, register_optics
from recipes.hologram_pruning.__main__ import _preset
from recipes.hologram_pruning.__main__ import parse_arguments as hologram_arguments
from torchprune_spatial import unregister_allocation, unregister_criterion

from .test_criterion_study import TINY

TASK = '''
"""Grey images are made twice as bright."""
import torch
from recipes.criterion_study.tasks import Images, Task, register_task


@register_task
class Brightening(Task):
    name = "brightening"
    accuracy = "bright enough"

    def images(self, count, seed):
        inputs = torch.full((count, 1, 64, 64), 0.1)
        inputs[:, :, 8:16, 8:16] = 0.4
        masks = inputs > 0.2
        return Images(inputs, 2 * inputs, masks, torch.zeros(count, 2, dtype=torch.long), torch.zeros(count))

    def classifier(self):
        return None

    def accuracies(self, outputs, images, classifier):
        return 0.25, 0.75
'''
CRITERION = '''
"""The channels of the lowest mean activation are kept."""
from torchprune_spatial import MeanActivationImportance, register_criterion


@register_criterion
class WeakestImportance(MeanActivationImportance):
    name = "weakest"

    def __call__(self, group):
        scores = super().__call__(group)
        return None if scores is None else -scores
'''
ALLOCATION = '''
"""No step is taken."""
from torchprune_spatial import Allocation, register_allocation


@register_allocation
class Nothing(Allocation):
    name = "nothing"

    def order(self, work):
        return []
'''
OPTICS_FILE = '''
"""A camera in place of a hologram: the sensor sees the object itself."""
from dataclasses import dataclass
from recipes.datasets.holography import HologramSimulation, register_optics


@dataclass(frozen=True)
class Camera(HologramSimulation):
    def intensity(self, transmission):
        return transmission.abs().square()


register_optics("camera", Camera(image_px=64, padded_px=192, upsampling=1, noise=0.0))
'''


@pytest.fixture(autouse=True)
def _registries():
    """What a test registers is forgotten after it."""
    registries = TASKS, OPTICS
    copies = [dict(registry) for registry in registries]
    yield
    for registry, copy in zip(registries, copies, strict=True):
        registry.clear()
        registry.update(copy)


def test_a_task_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    (tmp_path / "brightening.py").write_text(TASK)
    command = ["--import", str(tmp_path / "brightening.py"), "--tasks", "brightening", "--criteria", "mean_activation"]
    main([*command, "--allocations", "uniform", "--device", "cpu", "--output", str(tmp_path / "out")])
    results = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    assert results["task"].tolist() == ["brightening"] * 2
    assert results["criterion"].tolist() == ["unpruned", "mean_activation"]
    assert (results["accuracy"] == 0.25).all()
    assert (results["delta_accuracy"] == 0.5).all()
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## Brightening" in report
    assert "accuracy 25.0 % (bright enough)" in report


def test_a_criterion_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    (tmp_path / "weakest.py").write_text(CRITERION)
    command = ["--import", str(tmp_path / "weakest.py"), "--criteria", "weakest", "mean_activation", "--no-fold"]
    try:
        options = ["--allocations", "uniform", "--tasks", "denoising", "--device", "cpu", "--output", str(tmp_path)]
        main([*command, *options])
        assert hologram_arguments(["--criteria", "weakest"]).criteria == ["weakest"]
    finally:
        unregister_criterion("weakest")
    results = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert results["criterion"].tolist() == ["unpruned", "weakest", "mean_activation"]
    assert results["channels"][1] == results["channels"][2]
    assert results["mse"][1] != results["mse"][2]


def test_optics_of_ones_own(tmp_path):
    (tmp_path / "camera.py").write_text(OPTICS_FILE)
    options = hologram_arguments(["--import", str(tmp_path / "camera.py"), "--optics", "camera"])
    simulation = _preset(options).simulation
    digits = load_digits()[0][:2]
    images = simulation.holograms(digits, torch.Generator().manual_seed(0))
    dark = torch.exp(-2 * simulation.targets(digits))  # |exp(-digit)|², scaled to 0..1 by its extremes
    low, high = np.exp(-2), 1.0
    torch.testing.assert_close(images, (dark - low) / (high - low), atol=1e-5, rtol=1e-4)


def test_names_are_given_once():
    class Other(Task):
        name = "denoising"

    with pytest.raises(ValueError, match="name of Other is 'denoising', which Denoising has; choose another"):
        register_task(Other)
    Other.name = "two words"
    with pytest.raises(ValueError, match="name of Other is 'two words'; expected letters, digits and underscores"):
        register_task(Other)
    assert register_task(TASKS["denoising"]) is TASKS["denoising"]
    with pytest.raises(ValueError, match="name is 'small', which is the name of other optics"):
        register_optics("small", HologramSimulation())


@pytest.mark.parametrize(
    ("file", "message"),
    [("missing.py", "argument --import: .*missing.py is not a file"), ("notes.txt", "its name must end in .py")],
)
def test_files_that_cannot_be_imported(tmp_path, file, message):
    (tmp_path / "notes.txt").write_text("not Python")
    with pytest.raises(SystemExit, match=message):
        study_arguments(["--import", str(tmp_path / file)])


def test_an_unknown_name_is_explained(capsys):
    with pytest.raises(SystemExit):
        study_arguments(["--tasks", "magic"])
    assert "argument --tasks: invalid choice: 'magic'" in capsys.readouterr().err


def test_a_task_is_unregistered_by_its_name():
    unregister_task("denoising")
    assert "denoising" not in TASKS
    with pytest.raises(ValueError, match="no task is named 'denoising'; known are "):
        unregister_task("denoising")


def test_an_allocation_of_ones_own(tmp_path):
    (tmp_path / "nothing.py").write_text(ALLOCATION)
    command = ["--import", str(tmp_path / "nothing.py"), "--allocations", "nothing"]
    try:
        assert list(study_arguments(command).allocations) == ["nothing"]
    finally:
        unregister_allocation("nothing")
    with pytest.raises(SystemExit):
        study_arguments(["--allocations", "nothing"])
