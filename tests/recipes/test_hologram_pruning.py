import dataclasses
import itertools
import json

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from filelock import FileLock

from recipes import hologram_experiment
from recipes.hologram_experiment import CRITERIA, count_cost, prune
from recipes.hologram_pruning import PRESETS, main, parse_arguments
from recipes.training import Training
from recipes.unet import ResUNet

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
        return pd.read_csv(tmp_path / "results.csv"), capsys.readouterr().out

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


def test_from_command_to_report(run, tmp_path):
    results, printed = run()
    assert results["criterion"].tolist() == ["unpruned", *CRITERIA]
    for row in results.itertuples():
        assert row.parameters == parameters_by_hand(row.channels)
        assert row.flops == flops_by_hand(row.channels, 64)
    assert set(results["channels"][1:]) == {"2 2 2 4 4 4 8 8 8 16 8 8 8 4 4 4 2 2 2 1"}
    assert (results["compression"] == results["parameters"][0] / results["parameters"]).all()
    assert (results["speedup"] == results["flops"][0] / results["flops"]).all()
    report = (tmp_path / "report.md").read_text()
    for name in ("reconstructions.png", "masks.png", "filters.png", "performance.png"):
        assert (tmp_path / name).stat().st_size > 10_000
        assert name in report
        assert str(tmp_path / name) in printed
    assert "--output" in report
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / "checkpoints").exists()


def test_resumes_after_a_kill_and_ends_the_same(run, tmp_path, monkeypatch):
    whole, _ = run()
    other = tmp_path / "killed"
    calls, original = [], hologram_experiment.prune

    def killed(base, criterion, *rest):
        calls.append(criterion)
        if criterion == "weight_sum" and len(calls) == 2:
            raise KeyboardInterrupt
        return original(base, criterion, *rest)

    monkeypatch.setattr(hologram_experiment, "prune", killed)
    arguments = ["--device", "cpu", "--output", str(other)]
    with pytest.raises(SystemExit, match="the same command goes on"):
        main(arguments)
    assert pd.read_csv(other / "results.csv")["criterion"].tolist() == ["unpruned", "random"]
    main(arguments)
    assert calls == ["random", "weight_sum", "weight_sum", "spatial_mask"]
    resumed = pd.read_csv(other / "results.csv")
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"))


def test_mixed_precision_trains_and_prunes(run):
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate holds one precision a process
    results, _ = run("--mixed-precision", "bf16", "--criteria", "spatial_mask")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert results["criterion"].tolist() == ["unpruned", "spatial_mask"]
    assert results["mse"].notna().all()


def test_a_folder_of_another_experiment_is_refused(run, tmp_path, capsys):
    run("--criteria", "random")
    with pytest.raises(SystemExit, match=r"--output.*other settings \(seed\).*another folder"):
        run("--seed", "1")
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0


def test_a_folder_that_another_run_writes_to_is_refused(run, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(SystemExit, match="--output: another run is writing"):
        run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--criteria", "magic"], "argument --criteria: unknown criterion 'magic'; choose from random, weight_sum"),
        (["--keep-fractions", "1.5"], "argument --keep-fractions: 1.5 is not a fraction.*between 0 and 1"),
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


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_keeps_the_same_number_of_filters(criterion):
    torch.manual_seed(0)
    base = ResUNet(8)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    target = torch.zeros(2, 1, 16, 16)
    target[..., 4:8, 4:8] = 1
    network = prune(base, criterion, 0.5, [(torch.rand(2, 1, 16, 16), target)], seed=0)
    channels = [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert channels == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 16, 16, 16, 8, 8, 8, 4, 4, 4, 1]
    for name, tensor in base.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_weight_sum_is_the_l1_norm_of_the_filters():
    torch.manual_seed(0)
    base = ResUNet(8)
    network = prune(base, "weight_sum", 0.5, [(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))], seed=0)
    norms = base.encoder[0][0].weight.abs().sum((1, 2, 3))
    kept = norms.topk(4).indices.sort().values
    torch.testing.assert_close(network.encoder[0][0].weight, base.encoder[0][0].weight[kept])


def test_counting_costs_leaves_the_network_in_place():
    network = ResUNet(4)
    cost = count_cost(network, torch.rand(1, 1, 64, 64))
    assert cost["flops"] == flops_by_hand("4 4 4 8 8 8 16 16 16 32 16 16 16 8 8 8 4 4 4 1", 64)
    assert next(network.parameters()).device.type == "cpu"
