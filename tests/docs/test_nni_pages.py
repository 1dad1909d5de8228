"""The pages on NNI run, with real experiments, on the generation that is installed. Searches are cut to few trials."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("sybil")
pytest.importorskip("nni", reason="needs NNI (extra nni3 or nni2)")

from resolution_scaling.nni.algorithms import registry
from resolution_scaling.nni.algorithms.generation import NNI_3
from resolution_scaling.nni.experiment.recorded_experiment import RecordedExperiment
from tests.ports import free_port

from .pages import DOCS, ROOT, run

SCRIPT = Path(__file__).parent / "nni_script"
TRIALS = 3


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages presuppose: the reader's own files, in whose folder the script stands; and a free port."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(SCRIPT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(registry._algorithms, "halve", raising=False)  # which a page registers
    run_all = RecordedExperiment.run_all

    def few(self, port=8080, on_trial=None):
        if not self._resumed:
            self.config.max_trial_number = min(TRIALS, self.config.max_trial_number)
        return run_all(self, free_port(), on_trial)

    monkeypatch.setattr(RecordedExperiment, "run_all", few)
    from my_module import MyModule
    from my_package.search import MyClass

    logging.disable(logging.WARNING)
    yield {"torch": torch, "MyModule": MyModule, "MyClass": MyClass, "__file__": str(tmp_path / "script.py")}
    logging.disable(logging.NOTSET)


def ended(folder):
    return [json.loads(line)["status"] for line in Path(folder, "trials.jsonl").read_text().splitlines()]


@pytest.mark.skipif(not NNI_3, reason="a page for NNI 3.0")
def test_step():
    pytest.importorskip("torchvision")
    run(DOCS / "nni_step.md", {})


@pytest.mark.slow
def test_autocompress(names):
    module_class = names["MyModule"]
    after = run(DOCS / "nni_autocompress.md", names, lambda _, space: space.update(MyModule=module_class))
    assert ended("results/mine") == ["succeeded"] * TRIALS
    assert ended("results/widths") == ["succeeded"] * 3
    assert after["best"].score == max(result.score for result in after["results"])


@pytest.mark.slow
def test_search(names):
    after = run(DOCS / "nni_search.md", names)
    assert ended("results/search") == ["succeeded"] * TRIALS
    assert (Path("results/search") / "report.md").is_file()
    assert after["network"](torch.rand(2, 3, 224, 224)).shape == (2, 2)
