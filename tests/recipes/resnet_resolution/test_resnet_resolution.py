import dataclasses
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image

from recipes.experiments import training
from recipes.experiments.training import Training
from recipes.networks.resnet import SmallResNet
from recipes.resnet_resolution import report as resnet_resolution_report
from recipes.resnet_resolution.__main__ import main
from recipes.resnet_resolution.claims import accuracy_at, choose_sizes, judged_claims
from recipes.resnet_resolution.experiment import PRESETS
from resolution_scaling import compare

TINY = dataclasses.replace(
    PRESETS["smoke"],
    network=lambda classes: SmallResNet(4, 3, classes),
    train_sizes=(8, 16),
    widths=(0.5,),
    evaluation_sizes=range(8, 29, 10),
    train_images=32,
    validation_images=16,
    test_images=16,
    training=Training(1, 1e-2, 16, "one_cycle", "adamw", keep="last"),
)
NETWORKS = [["RC", "8"], ["RC", "16"], ["RC", "28"], ["FCR", "8"], ["FCR", "16"], ["width", "0.5"]]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    small = compare({("full size", ""): SmallResNet(4, 3)}, (1, 3, 28, 28)).reports
    monkeypatch.setattr(resnet_resolution_report, "resnet_costs", lambda batch: small)

    def run(*arguments, output=tmp_path):
        main(["--device", "cpu", "--output", str(output), *arguments])
        return pd.read_csv(output / "results.csv", dtype={"setting": str}), capsys.readouterr().out

    return run


def flops_by_hand(width, size, reduced=None, classes=10):
    """Two per multiplication; of 3 x 3 convolutions but the shortcuts; behind the first one on maps of ``reduced``."""
    maps, macs = reduced or size, 27 * width * size**2
    macs += maps**2 * 2 * 9 * width**2
    for channels in (width, 2 * width):
        maps = math.ceil(maps / 2)
        macs += maps**2 * (9 * channels * 2 * channels + 9 * (2 * channels) ** 2 + channels * 2 * channels)
    return 2 * (macs + 4 * width * classes)


def test_from_command_to_report(run, tmp_path, drawn):
    results, printed = run("--seeds", "2", "--seed", "5")
    assert results.drop_duplicates(["seed", "method", "setting"])[["method", "setting"]].values.tolist() == 2 * NETWORKS
    assert results["seed"].unique().tolist() == [5, 6]
    for row in results.itertuples():
        width = 2 if row.method == "width" else 4
        reduced = round(row.K_eval * int(row.setting) / 28) if row.method == "FCR" else None
        assert row.flops == flops_by_hand(width, row.K_eval, reduced)
        assert row.K_train == (int(row.setting) if row.method == "RC" else 28)
        reduced = int(row.setting) if row.method == "FCR" else None
        assert row.training_flops == flops_by_hand(width, row.K_train, reduced)
    report = (tmp_path / "report.md").read_text()
    for name in ("figure_1.png", "figure_3.png", "figure_4.png"):
        assert f"({name})" in report
        assert str(tmp_path / name) in printed
    for text in ("--seed 5", "seeds: 5, 6", "32 training, 16 validation and 16 test images", "one-cycle", "RC 28"):
        assert text in report
    assert report.count("best K_eval above K_train") >= 4
    assert report in printed
    assert_sizes_are_drawn(drawn["figure_3.png"], results)
    assert_trade_offs_are_drawn(drawn["figure_4.png"], results)
    (line,) = drawn["figure_1.png"].axes[0].lines
    assert line.get_xdata() == pytest.approx([flops_by_hand(4, 28) / 1e9])
    assert not list(tmp_path.glob("*.partial"))


def assert_sizes_are_drawn(figure, results):
    """A panel for each of RC and FCR, and in it a line for each K_train: means over the seeds, percent."""
    for axes, method in zip(figure.axes, ("RC", "FCR"), strict=True):
        settings = [setting for name, setting in NETWORKS if name == method]
        assert [line.get_label() for line in axes.lines] == settings
        for line, setting in zip(axes.lines, settings, strict=True):
            rows = results[(results["method"] == method) & (results["setting"] == setting)]
            first, second = (rows[rows["seed"] == seed]["accuracy"].to_numpy() for seed in (5, 6))
            assert line.get_xdata().tolist() == [8, 18, 28]
            assert line.get_ydata() == pytest.approx(100 * (first + second) / 2)


def assert_trade_offs_are_drawn(figure, results):
    """For each method all networks at all sizes, MFLOPs and MB, then those at the chosen sizes."""
    drawn = figure.axes[0].collections
    assert [len(points.get_offsets()) for points in drawn] == [9, 3, 6, 2, 3, 1]
    for points, method in zip(drawn[::2], ("RC", "FCR", "width"), strict=True):
        rows = results[(results["method"] == method) & (results["seed"] == 5)]
        costs = sorted(zip(rows["flops"] / 1e6, rows["memory"] / 1e6, strict=True))
        assert np.array(sorted(points.get_offsets().tolist())) == pytest.approx(np.array(costs))


def test_a_run_that_was_stopped_ends_the_same(run, tmp_path, monkeypatch):
    whole, _ = run("--seeds", "1")
    save, saved = training._save, []

    def save_and_die(*arguments):
        save(*arguments)
        saved.append(None)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", save_and_die)
    with pytest.raises(SystemExit, match="stopped; the same command continues from"):
        run("--seeds", "1", output=tmp_path / "stopped")
    part = pd.read_csv(tmp_path / "stopped" / "results.csv")
    assert part["setting"].unique().tolist() == [8, 16]
    resumed, _ = run("--seeds", "1", output=tmp_path / "stopped")
    assert len(saved) == len(NETWORKS)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), whole.drop(columns="seconds"))
    incomplete = pd.concat([whole, whole.iloc[:3].assign(seed=1)])
    incomplete.to_csv(tmp_path / "stopped" / "results.csv", index=False)
    run("--seeds", "1", output=tmp_path / "stopped")
    assert "- seeds: 0\n" in (tmp_path / "stopped" / "report.md").read_text()


def test_a_sitting_that_is_over_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    with pytest.raises(SystemExit) as stop:
        main(["--device", "cpu", "--output", str(tmp_path), "--minutes", "1e-9"])
    assert stop.value.code == os.EX_TEMPFAIL
    assert f"minutes are over; the same command continues from {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


def test_images_of_ones_own(run, tmp_path, monkeypatch):
    for part, count in (("train", 16), ("val", 4)):
        for name, value in (("cat", 30), ("dog", 220), ("wolf", 120)):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (30 + i, 40), (value, i, value)).save(tmp_path / "images" / part / name / f"{i}.png")
    results, _ = run("--seeds", "1", "--data", str(tmp_path / "images"), output=tmp_path / "results")
    full = results[(results["setting"] == "28") & (results["K_eval"] == 28)].iloc[0]
    assert full["flops"] == flops_by_hand(4, 28, classes=3)
    assert results["accuracy"].mul(12).round(9).mod(1).eq(0).all()  # of 12 test images


def test_the_papers_networks():
    """ResNet-50 of 25,557,032 parameters; FCR and RC of the same; half the filters by convolutions are a quarter."""
    with torch.device("meta"):
        networks = {(v.method, v.setting): v.build(1000) for v in PRESETS["paper"].variants()}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert [name for name in counts if name[0] != "RC"] == [
        *(("FCR", size) for size in ("64", "128", "160", "176")),
        ("width", "0.5"),
        ("width", "0.25"),
    ]
    for (method, _), count in counts.items():
        if method != "width":
            assert count == 25_557_032
    assert counts["width", "0.5"] == pytest.approx(25_557_032 / 4, rel=0.1)
    assert [*PRESETS["paper"].evaluation_sizes] == [*range(112, 353, 16)]


def test_the_small_network_trains_on_crops_of_8_px():
    network = SmallResNet(8, 3)
    network(torch.rand(4, 3, 8, 8)).sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def rows(**columns):
    return pd.DataFrame({"seed": 0, "method": "RC", "setting": "8", **columns})


def test_the_size_is_chosen_by_validation_and_of_equals_the_smallest():
    results = rows(K_eval=[8, 16, 24, 32], validation_accuracy=[0.5, 0.7, 0.7, 0.6], accuracy=[0.4, 0.5, 0.6, 0.9])
    assert choose_sizes(results)[["K_eval", "accuracy"]].values.tolist() == [[16, 0.5]]


def test_accuracy_between_costs():
    """(10, .5), (100, .7) and (1000, .8) are best for their FLOPs; 500 is beaten by 100; between, by logarithms."""
    results = rows(
        flops=[1000, 10, 100, 500, 100],
        validation_accuracy=[0.8, 0.5, 0.7, 0.6, 0.65],
        accuracy=[0.9, 0.4, 0.6, 0.99, 0.99],
    )
    assert accuracy_at(results, 10) == pytest.approx(0.4)
    assert accuracy_at(results, 10 * math.sqrt(10)) == pytest.approx(0.5)
    assert accuracy_at(results, 10**2.5) == pytest.approx(0.75)
    assert accuracy_at(results, 5000) == pytest.approx(0.9)
    assert math.isnan(accuracy_at(results, 9))


def test_claims_by_hand():
    """Two seeds, one size each; t of one degree of freedom is 12.7062, so a half width is 12.7062 / 2 of the gap."""
    table = [
        # seed, method, setting, K_train, K_eval, flops, validation and test accuracy
        (0, "RC", "8", 8, 8, 10, 0.1, 0.1),
        (0, "RC", "8", 8, 16, 40, 0.6, 0.60),
        (1, "RC", "8", 8, 16, 40, 0.6, 0.60),
        (0, "RC", "28", 28, 28, 120, 0.7, 0.70),
        (1, "RC", "28", 28, 28, 120, 0.7, 0.70),
        (0, "FCR", "8", 28, 28, 20, 0.5, 0.62),
        (1, "FCR", "8", 28, 28, 20, 0.5, 0.64),
        (0, "width", "0.5", 28, 28, 60, 0.5, 0.55),
        (1, "width", "0.5", 28, 28, 40, 0.5, 0.55),
    ]
    names = ["seed", "method", "setting", "K_train", "K_eval", "flops", "validation_accuracy", "accuracy"]
    results = pd.DataFrame(table, columns=names)
    claims = {claim.text: claim for claim in judged_claims(choose_sizes(results))}

    def check(text, mean, half, verdict):
        ours = claims[text].ours
        assert (ours.mean, ours.high - ours.mean) == (pytest.approx(mean), pytest.approx(half, abs=1e-3))
        assert claims[text].verdict == verdict

    check("best K_eval above K_train 8", 2, 0, "holds")
    check("best K_eval above K_train 28", 1, 0, "does not hold")
    check("best K_eval above K_train, all sizes", math.sqrt(2), 0, "holds")
    check("FCR beats RC at 8", 3, 12.706, "not decided")
    check("FCR beats RC at equal training cost, all sizes", 3, 12.706, "not decided")
    # RC between (40, 0.6) and (120, 0.7) at 60, and at 40; its cheaper size was not chosen
    at_60 = 0.6 + 0.1 * math.log(60 / 40) / math.log(120 / 40)
    check(
        "RC beats width 0.5 at equal FLOPs",
        (100 * (at_60 - 0.55) + 5) / 2,
        12.7062 * abs(100 * (at_60 - 0.55) - 5) / 2,
        "not decided",
    )
    # FCR has 0.62 and 0.64 at fewer FLOPs than the rival
    check("FCR beats width 0.5 at equal FLOPs", 8, 12.706, "not decided")


def test_a_folder_of_another_experiment_or_run_is_refused(run, tmp_path):
    run("--seeds", "1")
    with pytest.raises(SystemExit, match=r"--output.*other settings \(mixed_precision\).*another folder"):
        run("--mixed-precision", "bf16")
    with FileLock(tmp_path / ".lock"), pytest.raises(SystemExit, match="--output: another run is writing"):
        run()


def test_data_that_is_not_there_is_explained(run, tmp_path):
    with pytest.raises(
        SystemExit, match=r"error: --data: there is no Fashion-MNIST in .*none.*no folders train and val"
    ):
        run("--data", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper"], "paper needs --data, a folder with ImageNet's train and val"),
        (["--seeds", "0"], "argument --seeds: 0 is not above 0"),
        (["--seeds", "two"], "argument --seeds: invalid int value: 'two'"),
        (["--minutes", "-1"], "argument --minutes: -1 is not above 0"),
        (["--device", "abacus"], "argument --device: 'abacus' cannot be used here"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())
