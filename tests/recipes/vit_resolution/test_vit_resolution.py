import dataclasses
import itertools
import math
import os

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

import resolution_scaling as rs
from recipes.experiments import classification
from recipes.experiments.training import Training
from recipes.vit_resolution import experiment as vit_resolution
from recipes.vit_resolution import report as vit_resolution_report
from recipes.vit_resolution.__main__ import main
from recipes.vit_resolution.claims import judged_claims
from recipes.vit_resolution.experiment import AS_PRINTED, PRESETS
from recipes.vit_resolution.report import table_1
from recipes.vit_table1.table import TABLE_1

TINY = dataclasses.replace(
    PRESETS["smoke"],
    network={"image_size": 28, "patch_size": 2, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 64},
    patches=(2,),
    train_images=16,
    validation_images=8,
    test_images=12,
    training=Training(1, 1e-3, batch_size=8, keep="last"),
    seeds=1,
    grids=(8, 14),
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    monkeypatch.setattr(vit_resolution, "RIVALS", {8: ("hidden", "mlp")})
    costs = {("full size", "14"): rs.profile(TINY.build(14, 2, 10), (1, 3, 28, 28))}  # those of ViT-S take a while
    monkeypatch.setattr(vit_resolution_report, "vit_costs", lambda batch: costs)
    monkeypatch.setattr(vit_resolution_report, "TABLE_1", (TABLE_1[0], TABLE_1[6]))  # hidden, and grid 8 at patch 16

    def run(*arguments, output=tmp_path):
        main(["--device", "cpu", "--output", str(output), *arguments])
        return pd.read_csv(output / "results.csv", dtype={"setting": str}), capsys.readouterr().out

    return run


def flops_by_hand(grid, patch, hidden, mlp, depth, classes=10):
    """Two per multiplication: patches; projections, scores, sums of values and MLPs of each block; the head."""
    tokens = grid**2 + 1
    block = 4 * tokens * hidden**2 + 2 * tokens**2 * hidden + 2 * tokens * hidden * mlp
    return 2 * (grid**2 * 3 * patch**2 * hidden + depth * block + hidden * classes)


def test_from_command_to_report(run, tmp_path, drawn):
    results, printed = run("--seeds", "2", "--seed", "3")
    assert results["seed"].tolist() == [3] * 3 + [4] * 3
    assert [*zip(results["method"], results["setting"], results["K_eval"], strict=True)][:3] == [
        ("grid", "8 patch 2", 16),
        ("grid", "14 patch 2", 28),
        ("hidden", "8", 28),
    ]
    assert results["flops"][0] == flops_by_hand(8, 2, 16, 64, 2)
    assert results["flops"][1] == flops_by_hand(14, 2, 16, 64, 2)
    assert results["accuracy"].between(0, 1).all()
    report = (tmp_path / "report.md").read_text()
    for name in ("figure_2.png", "accuracy.png", "patches.png"):
        assert name in report
        assert str(tmp_path / name) in printed
    assert "python -m recipes.vit_resolution --device cpu" in report
    assert "seeds: 3, 4" in report
    assert "no row for mlp at grid 8: mlp scaling cannot reach" in report
    assert "grid 8 beats hidden" in report
    assert "+23.10" in report  # 70.64 - 47.54 of Table 1
    assert not list(tmp_path.glob("*.partial"))
    means = 100 * (results["accuracy"][:3].to_numpy() + results["accuracy"][3:].to_numpy()) / 2  # over the two seeds
    flops = results["flops"][:3].to_numpy() / 1e6
    lines = {line.get_label(): line.lines[0].get_xydata() for line in drawn["accuracy.png"].axes[0].containers}
    assert list(lines) == ["grid, patches of 2 px", "hidden"]
    assert lines["grid, patches of 2 px"] == pytest.approx(np.array([flops[:2], means[:2]]).T)
    assert lines["hidden"] == pytest.approx(np.array([[flops[2], means[2]]]))
    low, high = drawn["patches.png"].axes[0].containers
    assert low.lines[0].get_xydata() == pytest.approx(np.array([[16, means[0]]]))  # grid 8 in patches of 2 px
    assert not len(high.lines[0].get_xdata())  # grid 11 was not trained
    assert len(drawn["figure_2.png"].axes[0].lines) == 1


def test_resumes_after_a_kill_and_ends_the_same(run, tmp_path, monkeypatch):
    whole, _ = run()
    killed, trained, original = tmp_path / "killed", [], classification.train

    def train(*arguments, **options):
        trained.append(options["description"])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(classification, "train", train)
    with pytest.raises(SystemExit, match="the same command continues"):
        run(output=killed)
    resumed, _ = run(output=killed)
    assert trained == [f"{name}, seed 0" for name in ("grid 8 patch 2", *["grid 14 patch 2"] * 2, "hidden 8")]
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"))


def test_a_sitting_ends_after_its_minutes(run, tmp_path, capsys):
    with pytest.raises(SystemExit, match=str(os.EX_TEMPFAIL)):
        run("--minutes", "1e-9")
    assert "minutes are over; the same command continues from" in capsys.readouterr().err
    results, _ = run()
    assert len(results) == 3


def test_the_grids_of_the_paper():
    variants = PRESETS["paper"].variants({})
    grids = {(8, 16), (11, 16), (12, 16), (13, 16), (14, 16), (15, 16)}
    grids |= set(itertools.product((8, 11), (8, 12, 16, 24, 32)))
    assert {variant.setting for variant in variants} == {f"{grid} patch {patch}" for grid, patch in grids}
    assert len(variants) == len(grids)
    for variant in variants:
        grid, patch = map(int, variant.setting.split(" patch "))
        assert variant.K_train == grid * patch
        assert variant.evaluation_sizes == (grid * patch,)


def test_rivals_of_the_paper():
    preset = PRESETS["paper"]
    assert preset.rival("depth", 8, 1000).configuration["depth"] == 4  # as in Table 1
    assert abs(preset.rival(AS_PRINTED, 8, 1000).configuration["mlp"] - 144) <= 8  # solved from Table 1's costs
    with pytest.raises(ValueError, match=r"mlp scaling cannot reach 2.877 GFLOPs"):
        preset.rival("mlp", 8, 1000)


@pytest.mark.parametrize("preset", ["smoke", "small"])
def test_rivals_have_the_flops_of_their_grid(preset):
    preset = PRESETS[preset]
    size = preset.network
    grids = {grid: flops_by_hand(grid, 2, size["hidden_dim"], size["mlp_dim"], size["num_layers"]) for grid in (8, 11)}
    rivals, missing = preset.rivals(10)
    assert list(missing) == [("mlp", 8)]
    for (method, grid), rival in rivals.items():
        sizes = rival.configuration
        by_hand = flops_by_hand(14, 2, sizes["hidden"], sizes["mlp"], sizes["depth"])
        assert rs.profile(rival.model, (1, 3, 28, 28)).flops == by_hand
        if method == AS_PRINTED:
            assert by_hand > 1.1 * grids[grid]
        else:
            assert abs(by_hand / grids[grid] - 1) < 0.15


@pytest.fixture
def table():
    """Two seeds, with a difference of 2 points between them that pairing takes out."""
    networks = {  # K_eval, FLOPs, accuracy
        ("grid", "8 patch 1"): (8, 25, 0.60),
        ("grid", "8 patch 2"): (16, 25, 0.70),
        ("grid", "8 patch 3"): (24, 25, 0.72),
        ("grid", "11 patch 1"): (11, 55, 0.62),
        ("grid", "11 patch 2"): (22, 55, 0.74),
        ("grid", "12 patch 2"): (24, 70, 0.76),
        ("grid", "14 patch 2"): (28, 100, 0.765),
        ("hidden", "8"): (28, 26, 0.60),
        (AS_PRINTED, "8"): (28, 40, 0.75),
        ("depth", "8"): (28, 24, 0.68),
        ("mlp", "11"): (28, 55, 0.73),
    }
    return pd.DataFrame(
        [
            {"seed": seed, "method": method, "setting": setting, "K_eval": size, "flops": flops}
            | {"accuracy": accuracy + 0.02 * seed, "validation_accuracy": accuracy + 0.02 * seed}
            for seed in (0, 1)
            for (method, setting), (size, flops, accuracy) in networks.items()
        ]
    )


def test_claims_of_a_table_by_hand(table):
    judged = {claim.text: (round(claim.ours.mean, 6), claim.paper, claim.verdict) for claim in judged_claims(table, 2)}
    assert judged == {
        "a lower grid loses at most 1 point for 28 % fewer FLOPs": (-0.5, "-1 point", "holds"),
        "grid 8 beats the best of equal FLOPs (depth)": (2.0, "+8.50", "holds"),
        "grid 8 beats hidden": (10.0, "+23.10", "holds"),
        f"grid 8 beats {AS_PRINTED}": (-5.0, "+1.75", "does not hold"),
        "grid 8 beats depth": (2.0, "+8.50", "holds"),
        "the exception: mlp beats grid 11": (-1.0, "+0.45", "does not hold"),
        "the best image size is about the same whatever the grid": (
            round(22 / 24, 6),
            "1.03 (132 and 128 px of 224)",
            "holds",
        ),
    }
    reduced = judged_claims(table, 2)[0]
    assert "-30% FLOPs" in reduced.measure
    assert reduced.difference == "+0.50 points"


def test_one_seed_decides_nothing(table):
    claims = judged_claims(table[table["seed"] == 0], 2)
    assert {claim.verdict for claim in claims} == {"not decided"}
    assert all("more seeds" in claim.reason for claim in claims)
    assert all(math.isinf(claim.ours.high) for claim in claims)


def test_equal_patches_give_other_image_sizes(table):
    """Where patches of 2 px are best on both grids, 22 px against 16 are not about the same."""
    table.loc[table["setting"] == "8 patch 3", "validation_accuracy"] = 0
    claim = judged_claims(table, 2)[-1]
    assert claim.ours.mean == pytest.approx(1.375)
    assert claim.verdict == "does not hold"


def test_table_1_has_the_papers_rows_and_ours(table):
    lines = table_1(table, 2, 9).splitlines()
    assert len(lines) == 2 + 9
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert cells["grid 8 x 8, patches of 16 px"] == [
        *("70.64", "40.3", "40.3", "88.8", "4.7", "4.7", "2.88"),
        *("0.00", "71.00 (58.29 to 83.71)"),  # 70 and 72, t of 1 degree of freedom: 12.706 / sqrt(2) * sqrt(2)
    ]
    assert cells["grid 8 x 8, patches of 12 px"][-1] == "not trained"  # 1.5 px
    assert cells["MLP 144"][-1].startswith("76.00")


def test_a_folder_of_another_experiment_is_refused(run, tmp_path, monkeypatch):
    run()
    monkeypatch.setitem(PRESETS, "smoke", dataclasses.replace(TINY, test_images=13))
    with pytest.raises(SystemExit, match=r"--output.*other settings \(test_images\).*another folder"):
        run()


def test_a_folder_that_another_run_writes_to_is_refused(run, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(SystemExit, match="--output: another run is writing"):
        run()


def test_a_folder_without_images_is_refused(run, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*there is no Fashion-MNIST in"):
        run("--data", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper"], "argument --preset: paper needs --data"),
        (["--preset", "huge"], "argument --preset"),
        (["--seeds", "0"], "argument --seeds: 0 is not above 0"),
        (["--minutes", "soon"], "argument --minutes: invalid float value"),
        (["--device", "abacus"], "argument --device: 'abacus' cannot be used here"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())
