import dataclasses
import itertools
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from filelock import FileLock
from scipy import stats

from recipes.datasets.digits import load_digits
from recipes.datasets.holography import OPTICS
from recipes.experiments.criteria import PAPERS
from recipes.experiments.training import Training
from recipes.hologram_pruning import experiment as hologram_experiment
from recipes.hologram_pruning.__main__ import main, parse_arguments
from recipes.hologram_pruning.claims import at_compression, judged_claims
from recipes.hologram_pruning.experiment import PRESETS
from recipes.hologram_pruning.pruning import Pruning, count_cost, prune, prunings
from recipes.networks.unet import ResUNet
from torchprune_spatial.criteria.ranking import top_count
from torchprune_spatial.residuals.channel_scatter import ChannelScatter

TINY = dataclasses.replace(
    PRESETS["smoke"],
    width=4,
    train_images=16,
    validation_images=8,
    test_images=12,
    training=Training(1, 1e-3, batch_size=8),
    retraining=Training(1, 1e-3, batch_size=8),
    classifier_epochs=0,
    keep_fractions=(0.5,),
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "smoke", TINY)

    def run(*arguments):
        main(["--device", "cpu", "--output", str(tmp_path), *arguments])
        return pd.read_csv(tmp_path / "results.csv", float_precision="round_trip"), capsys.readouterr().out

    return run


def parameters_by_hand(channels):
    widths = [1, *map(int, channels.split())]
    return sum(9 * i * o + o for i, o in itertools.pairwise(widths))


def flops_by_hand(channels, size):
    """Two per multiplication: three convolutions a level, one at the bottom, and back; biases do not count."""
    widths = [1, *map(int, channels.split())]
    levels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0]
    pairs = itertools.pairwise(widths)
    return sum(2 * 9 * i * o * (size >> level) ** 2 for (i, o), level in zip(pairs, levels, strict=True))


def test_from_command_to_report(run, tmp_path, drawn):
    results, printed = run()
    assert results["criterion"].tolist() == ["unpruned", "random", "weight_sum", "spatial_mask", "spatial_mask"]
    assert results["literal"].tolist() == [False] * 4 + [True]
    for row in results.itertuples():
        assert row.parameters == parameters_by_hand(row.channels)
        assert row.flops == flops_by_hand(row.channels, 64)
    assert set(results["channels"][1:4]) == {"2 2 2 4 4 4 8 8 8 16 8 8 8 4 4 4 2 2 2 1"}
    assert (results["compression"] == results["parameters"][0] / results["parameters"]).all()
    assert (results["speedup"] == results["flops"][0] / results["flops"]).all()
    report = (tmp_path / "report.md").read_text()
    for name in ("reconstructions.png", "masks.png", "filters.png", "performance.png"):
        assert name in report
        assert str(tmp_path / name) in printed
    assert "--output" in report
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("checkpoints"))
    assert_examples_are_drawn(drawn["reconstructions.png"], tmp_path / "base_0" / "examples")
    assert_results_are_drawn(drawn["performance.png"], results)
    filters = [panel.collections for panel in drawn["filters.png"].axes]
    assert [sum(len(points.get_offsets()) for points in panel) for panel in filters] == [4, 8, 16, 16, 8, 4]
    object_mask = torch.zeros(1, 64, 64)
    object_mask[:, 18:46, 18:46] = load_digits()[0][12] > 0.5  # the first validation digit, behind twelve test digits
    grids = [panel.images[0].get_array() for panel in drawn["masks.png"].axes[1:5]]
    for grid, cell_px in zip(grids, (1, 2, 4, 8), strict=True):
        np.testing.assert_allclose(grid, F.avg_pool2d(object_mask, cell_px)[0], atol=1e-6)


def assert_examples_are_drawn(figure, folder):
    """A row of six images for each of holograms, targets and networks, and all rows differ."""
    rows = [[panel.images[0].get_array() for panel in figure.axes[i : i + 6]] for i in range(0, len(figure.axes), 6)]
    holograms, targets, *networks = map(np.array, rows)
    np.testing.assert_allclose(targets, OPTICS["small"].targets(load_digits()[0][:6])[:, 0])
    assert (np.ptp(holograms, axis=(1, 2)) == 1).all()
    names = ("unpruned_1", "random_0.5", "weight_sum_0.5", "spatial_mask_0.5", "spatial_mask_literal_0.5")
    for images, name in zip(networks, names, strict=True):
        np.testing.assert_array_equal(images, np.load(folder / f"{name}.npy")[:, 0])
    for row, other in itertools.combinations((holograms, targets, *networks), 2):
        assert not np.allclose(row, other, atol=1e-3)


def assert_results_are_drawn(figure, results):
    """Panels of MSE above Δacc, against compression and speed-up; a point for each pruned network."""
    for panel, (score, cost) in zip(
        figure.axes, itertools.product(("mse", "delta_accuracy"), ("compression", "speedup")), strict=True
    ):
        scale = 100 if score == "delta_accuracy" else 1
        base, *others = panel.lines[0].get_ydata(), *(line.lines[0].get_xydata()[0] for line in panel.containers)
        assert base[0] == pytest.approx(scale * results[score][0])
        expected = results[[cost, score]][1:].to_numpy() * [1, scale]
        assert others == [pytest.approx(point) for point in expected]


def test_several_base_networks_and_mixed_connectivity(run, tmp_path):
    results, _ = run("--bases", "2", "--criteria", "weight_sum", "spatial_mask", "--mixed-fractions", "0.5")
    assert results["seed"].tolist() == [0] * 7 + [1] * 7
    assert results["mixed"].sum() == 2 * 3
    whole, literal = (results[results["mixed"] & (results["literal"] == literal)] for literal in (False, True))
    assert (whole["parameters"] >= results["parameters"][1]).all()  # the sum has the filters of both branches
    assert (literal["compression"].to_numpy() < whole["compression"].max()).all()
    report = (tmp_path / "report.md").read_text()
    assert "## Mixed connectivity" in report
    part, _ = run("--bases", "1", "--criteria", "weight_sum")
    assert part["criterion"].tolist() == ["unpruned", "weight_sum"]  # what was asked for, not all that is there
    assert report.count("lowest MSE over the whole range") >= 4
    assert (tmp_path / "performance_mixed.png").exists()


def test_resumes_after_a_kill_and_ends_the_same(run, tmp_path, monkeypatch):
    whole, _ = run()
    other = tmp_path / "killed"
    calls, original = [], hologram_experiment.prune

    def killed(base, pruning, *rest):
        calls.append(str(pruning))
        if pruning.criterion == "weight_sum" and len(calls) == 2:
            raise KeyboardInterrupt
        return original(base, pruning, *rest)

    monkeypatch.setattr(hologram_experiment, "prune", killed)
    arguments = ["--device", "cpu", "--output", str(other)]
    with pytest.raises(SystemExit, match="the same command continues"):
        main(arguments)
    assert pd.read_csv(other / "base_0" / "results.csv")["criterion"].tolist() == ["unpruned", "random"]
    main(arguments)
    literal = "spatial_mask literal 0.5"
    assert calls == ["random 0.5", "weight_sum 0.5", "weight_sum 0.5", "spatial_mask 0.5", literal]
    resumed = pd.read_csv(other / "results.csv")
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"))


def test_stops_when_the_time_is_up_and_goes_on(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--minutes", "1e-6")
    assert stop.value.code == os.EX_TEMPFAIL
    assert "1e-06 minutes are over; the same command continues" in capsys.readouterr().err
    results, _ = run()
    assert len(results) == 5


@pytest.fixture
def other_precision():
    """Accelerate holds one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
def test_mixed_precision_trains_and_prunes(run):
    results, _ = run("--mixed-precision", "bf16", "--criteria", "spatial_mask")
    assert results["criterion"].tolist() == ["unpruned", "spatial_mask", "spatial_mask"]
    assert results["mse"].notna().all()


def test_a_folder_of_another_experiment_is_refused(run, tmp_path, monkeypatch):
    run("--criteria", "random")
    monkeypatch.setitem(PRESETS, "smoke", dataclasses.replace(TINY, width=5))
    with pytest.raises(SystemExit, match=r"--output.*other settings \(preset\).*another folder"):
        run()
    assert json.loads((tmp_path / "base_0" / "settings.json").read_text())["preset"]["width"] == 4


def test_a_folder_that_another_run_writes_to_is_refused(run, tmp_path):
    (tmp_path / "base_0").mkdir()
    with FileLock(tmp_path / "base_0" / ".lock"), pytest.raises(SystemExit, match="another run is writing to base_0"):
        run("--bases", "2", "--criteria", "random")
    assert len(pd.read_csv(tmp_path / "base_1" / "results.csv")) == 2  # the rest is done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--criteria", "magic"], "argument --criteria: invalid choice: 'magic'.*random.*weight_sum"),
        (["--keep-fractions", "1.5"], "argument --keep-fractions: 1.5 is not a fraction.*between 0 and 1"),
        (["--mixed-fractions", "0.5", "0.1"], "argument --mixed-fractions: 0.1 leaves no filter"),
        (["--bases", "0"], "argument --bases: 0 is not above 0"),
        (["--keep-fractions", "0.1"], "leaves no filter in layers of 8; choose at least 0.125"),
        (["--device", "cuda:7"], "argument --device: 'cuda:7' cannot be used here.*choose cpu"),
        (["--device", "abacus"], "argument --device: 'abacus' cannot be used here"),
        (["--preset", "huge"], "argument --preset"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert pd.Series([" ".join(capsys.readouterr().err.split())]).str.contains(message).all()


@pytest.fixture
def base():
    torch.manual_seed(0)
    return ResUNet(8)


@pytest.fixture
def calibration():
    target = torch.zeros(2, 1, 16, 16)
    target[..., 4:8, 4:8] = 1
    return [(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)), target)]


def channels_of(network):
    return [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("criterion", PAPERS)
def test_every_criterion_keeps_the_same_number_of_filters(base, calibration, criterion, mixed):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    network = prune(base, Pruning(criterion, 0.5, mixed=mixed), calibration, seed=0)
    assert channels_of(network) == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 16, 16, 16, 8, 8, 8, 4, 4, 4, 1]
    assert any(isinstance(module, ChannelScatter) for module in network.modules()) == mixed
    for name, tensor in base.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.6, 0.7])
def test_fractions_are_not_rounded_down_twice(fraction):
    """``int(10 * (1 - (1 - 0.2)))`` is 1."""
    network = prune(ResUNet(10), Pruning("random", fraction), [(torch.rand(1, 1, 16, 16),)], seed=0)
    assert channels_of(network)[0] == round(10 * fraction)


def test_the_literal_form_keeps_the_union_of_two_top_sets(base, calibration):
    network = prune(base, Pruning("spatial_mask", 0.25, literal=True), calibration, seed=0)
    for kept, all_channels in zip(channels_of(network)[:-1], channels_of(base)[:-1], strict=True):
        assert top_count(0.25, all_channels) <= kept <= 2 * top_count(0.25, all_channels)


def test_weight_sum_is_the_l1_norm_of_the_filters(base, calibration):
    network = prune(base, Pruning("weight_sum", 0.5), calibration, seed=0)
    norms = base.encoder[0][0].weight.abs().sum((1, 2, 3))
    kept = norms.topk(4).indices.sort().values
    torch.testing.assert_close(network.encoder[0][0].weight, base.encoder[0][0].weight[kept])


def test_taylor_is_the_gradient_of_the_calibration_loss_times_the_weight(base, calibration):
    """First layer, alone in its group: ``|w g|`` summed over its filter and what reads it (Molchanov 2019)."""
    network = prune(base, Pruning("taylor", 0.5), calibration, seed=0)
    (holograms, targets), (first, second) = calibration[0], base.encoder[0][:2]
    F.binary_cross_entropy_with_logits(base(holograms), targets).backward()
    own = (first.weight * first.weight.grad).abs().sum((1, 2, 3))
    read = (second.weight * second.weight.grad).abs().sum((0, 2, 3))
    kept = (own + read).topk(4).indices.sort().values
    torch.testing.assert_close(network.encoder[0][0].weight, first.weight[kept])


def test_prunings_in_order():
    names = [str(pruning) for pruning in prunings(["random", "spatial_mask"], [0.2, 0.5], mixed=True)]
    assert names[:3] == ["random mixed 0.2", "spatial_mask mixed 0.2", "spatial_mask literal mixed 0.2"]
    assert len(names) == 6


def results_by_hand(mse_of_spatial_mask):
    """Two base networks; MSE doubles with each doubling of the compression for weight sum."""
    rows = []
    for seed, scale in ((0, 1.0), (1, 1.1)):
        plain = {"seed": seed, "mixed": False, "literal": False}
        rows.append(plain | {"criterion": "unpruned", "compression": 1.0, "mse": 1e-3 * scale, "delta_accuracy": 0.0})
        for compression in (2.0, 8.0, 32.0):
            pruned = plain | {"compression": compression, "delta_accuracy": 0.01 * np.log2(compression)}
            rows.append(pruned | {"criterion": "weight_sum", "mse": 1e-3 * scale * compression})
            rows.append(pruned | {"criterion": "spatial_mask", "mse": mse_of_spatial_mask(scale, compression)})
    return pd.DataFrame(rows).assign(speedup=lambda frame: frame["compression"] ** 0.5)


def test_between_fractions_lines_are_straight_in_logarithms():
    found = at_compression(results_by_hand(lambda scale, c: 1e-3 * scale), [4, 16, 64])
    assert sorted(found["level"].unique()) == [4, 16]  # 64 lies beyond
    weight_sum = found[(found["criterion"] == "weight_sum") & (found["seed"] == 1)]
    assert weight_sum["mse"].tolist() == pytest.approx([4.4e-3, 17.6e-3])
    assert weight_sum["delta_accuracy"].tolist() == pytest.approx([0.02, 0.04])
    assert weight_sum["speedup"].tolist() == pytest.approx([2, 4])


def test_claims_that_hold_and_claims_that_do_not():
    better = {claim.text: claim for claim in judged_claims(results_by_hand(lambda s, c: 0.9e-3 * s), False, False, "")}
    lowest, half = better["lowest MSE over the whole range"], better["less than half of the others' MSE at x20"]
    assert lowest.verdict == half.verdict == "holds"
    assert half.ours.mean == pytest.approx(0.9 / 20)
    assert better["Δacc 0.4 % at x20"].ours.mean == pytest.approx(np.log2(20))
    assert better["Δacc 0.4 % at x20"].verdict == "does not hold"
    worse = judged_claims(results_by_hand(lambda s, c: 2e-3 * s**2 * c), False, False, "because")
    assert worse[0].verdict == "does not hold"
    assert worse[0].reason == "because"
    logs = np.log([2.0, 2.2])
    low, high = stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))
    assert worse[1].ours.low == pytest.approx(np.exp(low))
    assert worse[1].ours.high == pytest.approx(np.exp(high))


def test_counting_costs_leaves_the_network_in_place():
    network = ResUNet(4)
    cost = count_cost(network, torch.rand(1, 1, 64, 64))
    assert cost["flops"] == flops_by_hand("4 4 4 8 8 8 16 16 16 32 16 16 16 8 8 8 4 4 4 1", 64)
    assert next(network.parameters()).device.type == "cpu"
