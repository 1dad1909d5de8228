"""The cost figures of the resolution-scaling paper."""

import csv

import numpy as np
import pytest

from recipes.resolution_costs import costs
from recipes.resolution_costs.__main__ import main
from recipes.resolution_costs.costs import resnet_costs


def test_costs_of_resnet_50_follow_the_resolution():
    found = resnet_costs(1)
    full, small, reduced = (found[key] for key in (("full size", "224 px"), ("RC", "128"), ("FCR", "128")))
    assert abs(full.macs / 1e9 - 4.089) < 1e-3  # published with torchvision's weights
    first = 112 * 112 * 64 * 3 * 49  # of the first convolution at 224 px
    assert reduced.macs - small.macs == first - 64 * 64 * 64 * 3 * 49
    assert full.weight_bytes == small.weight_bytes == reduced.weight_bytes
    assert found["width", "0.5"].macs < full.macs / 3


def test_report_figures_and_tables(tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.setattr(costs, "GRIDS", (11,))
    monkeypatch.setattr(costs, "CNN_SIZES_PX", (128,))
    main(["--output", str(tmp_path)])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *(f"figure_{i}.{suffix}" for i in (1, 2) for suffix in ("csv", "png")),
        "report.md",
    ]
    tables = {}
    for figure in ("figure_1", "figure_2"):
        with open(tmp_path / f"{figure}.csv") as file:
            tables[figure] = {(row["method"], row["setting"]): row for row in csv.DictReader(file)}
        points = sorted(
            (float(row["flops"]) / 1e9, float(row["memory_bytes"]) / 1e6) for row in tables[figure].values()
        )
        assert points_of(drawn[f"{figure}.png"]) == pytest.approx(np.array(points))
    target = float(tables["figure_2"]["grid", "11"]["flops"])
    assert abs(float(tables["figure_2"]["mlp", "11"]["flops"]) / target - 1) < 0.01
    report = (tmp_path / "report.md").read_text()
    assert f"`python -m recipes.resolution_costs --output {tmp_path}`" in report
    assert report in capsys.readouterr().out


def points_of(figure):
    """The different points that the lines of the first axes join, in order."""
    return np.unique(np.concatenate([line.get_xydata() for line in figure.axes[0].lines]), axis=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--help"], "--batch"),
        (["--batch", "0"], "argument --batch: 0 is not above 0"),
    ],
)
def test_the_command_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
