"""The cost figures of the resolution-scaling paper."""

import csv
import subprocess
import sys

from recipes.resolution_costs.__main__ import main, resnet_costs


def test_costs_of_resnet_50_follow_the_resolution():
    costs = resnet_costs(1)
    full, small, reduced = (costs[key] for key in (("full size", "224 px"), ("RC", "128"), ("FCR", "128")))
    assert abs(full.macs / 1e9 - 4.089) < 1e-3  # published with torchvision's weights
    first = 112 * 112 * 64 * 3 * 49  # of the first convolution at 224 px
    assert reduced.macs - small.macs == first - 64 * 64 * 64 * 3 * 49
    assert full.weight_bytes == small.weight_bytes == reduced.weight_bytes
    assert costs["width", "0.5"].macs < full.macs / 3


def test_report_figures_and_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.resolution_costs.__main__.GRIDS", (11,))
    monkeypatch.setattr("recipes.resolution_costs.__main__.CNN_SIZES", (128,))
    monkeypatch.setattr(sys, "argv", ["resolution_costs", "--output", str(tmp_path)])
    main()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *(f"figure_{i}.{suffix}" for i in (1, 2) for suffix in ("csv", "png")),
        "report.md",
    ]
    with open(tmp_path / "figure_2.csv") as file:
        rows = {(row["method"], row["setting"]): row for row in csv.DictReader(file)}
    target = float(rows["grid", "11"]["flops"])
    assert abs(float(rows["mlp", "11"]["flops"]) / target - 1) < 0.01
    assert "python -m recipes.resolution_costs --output" in (tmp_path / "report.md").read_text()


def test_help():
    done = subprocess.run([sys.executable, "-m", "recipes.resolution_costs", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--batch" in done.stdout
