import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from recipes.criterion_study import experiment as study_experiment
from recipes.criterion_study.__main__ import main, parse_arguments
from recipes.criterion_study.cells import EQUAL, Block
from recipes.criterion_study.experiment import PRESETS, judge
from recipes.criterion_study.report import against_torch_pruning, paired, verdict
from recipes.criterion_study.tasks import TASKS, Images
from recipes.criterion_study.tasks.task import DIGIT_PX
from recipes.experiments.training import Training

TINY = dataclasses.replace(
    PRESETS["smoke"],
    width=4,
    train_images=12,
    validation_images=6,
    test_images=8,
    training=Training(1, 1e-3, 4),
    retraining=Training(1, 1e-3, 4),
    classifier=Training(0, 1e-3),
    tasks=("segmentation", "denoising"),
    blocks=(Block(("mean_activation", "interpolative"), ("uniform", EQUAL), (True,), factors=(3,)),),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", TINY)

    def run(*arguments):
        output = parse_arguments(["--output", str(tmp_path), *arguments]).output
        main(["--device", "cpu", "--output", str(tmp_path), *arguments])
        return pd.read_csv(output / "results.csv", keep_default_na=False)

    return run


class Constant(nn.Module):
    """Gives the same logit everywhere."""

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, x):
        return self.logit.expand(len(x), 1, *x.shape[2:])


def test_errors_by_hand():
    """Output 0.5 everywhere; two images of which one pixel in 4096 is object."""
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    masks[0, 0, 3, 4] = masks[1, 0, 60, 1] = True
    images = Images(torch.rand(2, 1, 64, 64), masks.float(), masks, torch.zeros(2, 2, dtype=torch.long), torch.zeros(2))
    scores = judge(Constant(0.0), TASKS["segmentation"](), images, None)
    assert scores["mse"] == pytest.approx(0.25)
    assert scores["mse_object"] == pytest.approx(0.25)
    assert scores["accuracy"] == 0
    scores = judge(Constant(20.0), TASKS["segmentation"](), images, None)  # all is called object
    assert scores["mse_object"] == pytest.approx(0, abs=1e-6)
    assert scores["accuracy"] == pytest.approx(2 / (2 * 64 * 64))
    assert scores["delta_accuracy"] == pytest.approx(1 - 1 / 64**2)


def test_the_classifier_reads_the_squares_of_the_digits():
    images = TASKS["denoising"]().images(5, 0)

    class First(nn.Module):
        """Calls every image a class by its mean, the same for equal crops."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, crops):
            assert crops.shape[1:] == (1, DIGIT_PX, DIGIT_PX)
            return nn.functional.one_hot(images.labels, 10).float()

    scores = judge(Constant(0.0), TASKS["denoising"](), images, First())
    assert scores["accuracy"] == 1
    assert scores["delta_accuracy"] == 0


def test_from_command_to_report_and_another_criterion_costs_its_own_runs_alone(run, tmp_path, monkeypatch, drawn):
    results = run("--criteria", "mean_activation", "--allocations", "uniform")
    assert results["criterion"].tolist() == ["unpruned", "mean_activation"] * 2
    assert results["task"].tolist() == ["segmentation"] * 2 + ["denoising"] * 2
    pruned = results[results["criterion"] != "unpruned"]
    assert pruned["compression"].between(2.9, 3.6).all()
    trained, train = [], study_experiment.StudyExperiment._fit
    monkeypatch.setattr(
        study_experiment.StudyExperiment,
        "_fit",
        lambda self, network, training, description, *loss: (
            trained.append(description) or train(self, network, training, description, *loss)
        ),
    )
    more = run()
    ways = ["mean_activation equal", "interpolative uniform", "interpolative equal"]
    assert trained == [f"{way} fold compression 3" for way in ways] * 2
    both = more.merge(results, on=["task", "criterion", "allocation"], suffixes=("", "_before"))
    assert (both["mse"] == both["mse_before"]).all()
    again = run("--criteria", "mean_activation", "--allocations", "uniform")
    pd.testing.assert_frame_equal(again, results)  # what was asked for, not all that is there
    run()
    report = (tmp_path / "report.md").read_text()
    assert "## Segmentation" in report
    assert "ours" in report
    assert "study.png" not in report
    results = run("--criteria", "mean_activation", "--allocations", "uniform", "--factors", "2", "3")
    assert "study.png" in (tmp_path / "report.md").read_text()
    panels = drawn["study.png"].axes
    assert [panel.get_title() for panel in panels] == ["segmentation", "denoising"]
    for panel, (_, rows) in zip(panels, results.groupby("task", sort=False), strict=True):
        base, line = panel.lines
        assert base.get_ydata()[0] == pytest.approx(1e3 * rows["mse"].iloc[0])
        expected = sorted(zip(rows["factor"], 1e3 * rows["mse"], strict=True))[1:]
        assert line.get_xydata() == pytest.approx(np.array(expected))


def test_gradients_reach_taylor(run):
    results = run("--criteria", "taylor", "--allocations", "global", "--tasks", "denoising", "--no-fold")
    assert not results["fold"].any()
    assert results["criterion"].tolist() == ["unpruned", "taylor"]


def test_sparse_training_shrinks_the_scales_of_the_norms(run, tmp_path, monkeypatch):
    scales = {}
    for sparsity in (0.0, 10.0):
        preset = dataclasses.replace(TINY, norms=True, sparsity=sparsity, tasks=("segmentation",))
        monkeypatch.setitem(PRESETS, "smoke", preset)
        output = tmp_path / str(sparsity)
        results = run("--criteria", "bn_scale", "--allocations", "global", "--no-fold", "--output", str(output))
        assert results["compression"].iloc[-1] > 2.9
        weights = load_file(output / "segmentation_0" / "base.safetensors")
        norms = [name.removesuffix("running_mean") for name in weights if name.endswith("running_mean")]
        assert len(norms) == 19
        scales[sparsity] = torch.cat([weights[name + "weight"] for name in norms]).abs().mean()
    assert scales[10.0] < scales[0.0] - 2e-3  # three steps of Adam, each of 1e-3


def test_ratios_are_paired_over_base_networks():
    """Ours: 1 and 10; the other 2 and 20 (always twice); a third 2 and 5 (noise)."""
    table = [
        *((seed, "interpolative", EQUAL, True, mse) for seed, mse in ((0, 1.0), (1, 10.0))),
        *((seed, "taylor", "cost", False, mse) for seed, mse in ((0, 2.0), (1, 20.0))),
        *((seed, "apoz", "uniform", False, mse) for seed, mse in ((0, 2.0), (1, 5.0))),
    ]
    results = pd.DataFrame(table, columns=["seed", "criterion", "allocation", "fold", "mse"])
    times = {row.criterion: row.times for row in paired(results).itertuples()}
    assert times["taylor"].mean == pytest.approx(2)
    assert verdict(times["taylor"]) == "worse"
    logs = np.log([2.0, 0.5])
    low, high = stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))
    assert (times["apoz"].low, times["apoz"].high) == (pytest.approx(np.exp(low)), pytest.approx(np.exp(high)))
    assert verdict(times["apoz"]) == "noise"


def test_the_best_rival_with_torch_prunings_own_allocations():
    """Ours have medians of 2 and 3; the best rival 8, because what is folded or allocated as ours does not count."""
    table = [
        *(("interpolative", allocation, True, mse) for allocation, mse in ((EQUAL, 2.0), ("uniform", 3.0))),
        *(("taylor", allocation, fold, mse) for allocation, fold, mse in ((EQUAL, False, 1.0), ("global", True, 1.0))),
        ("taylor", "global", False, 8.0),
        ("fpgm", "uniform", False, 9.0),
    ]
    rows = [("hologram", "compression", 20, *way, mse * factor, 0.01) for *way, mse in table for factor in (0.5, 1, 30)]
    found = against_torch_pruning(
        pd.DataFrame(
            rows, columns=["task", "limit", "factor", "criterion", "allocation", "fold", "mse", "delta_accuracy"]
        )
    )
    assert found["times"].tolist() == [2 / 8, 3 / 8]
    assert found["rival"].tolist() == ["taylor, global"] * 2
    assert found["allocation"].tolist() == [EQUAL, "uniform"]


def test_what_the_command_names_is_compared_with_each_of_the_rest():
    assert parse_arguments(["--preset", "small"]).blocks == PRESETS["small"].blocks
    (block,) = parse_arguments(["--preset", "small", "--criteria", "contrast", "--factors", "20"]).blocks
    assert block.criteria == ("contrast",)
    assert {*block.allocations} == {"equal", "sensitivity", "uniform", "global", "isomorphic", "cost"}
    assert (block.folds, block.limits, block.factors) == ((False, True), ("compression", "speedup"), (20.0,))
    assert len(block.cells()) == 24


def test_the_same_channels_a_layer_whatever_the_scores(run):
    results = run("--allocations", "equal", "--tasks", "denoising")
    assert results["channels"].nunique() == 2  # those of the unpruned network, and of all others


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--criteria", "magic"], "argument --criteria: invalid choice: 'magic'"),
        (["--factors", "0"], "argument --factors: 0 is not above 0"),
        (["--bases", "0"], "argument --bases: 0 is not above 0"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err
