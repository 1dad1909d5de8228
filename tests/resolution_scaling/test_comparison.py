"""Several networks side by side."""

import csv

import pytest
import timm
import torch
import torchvision
from torch import nn

import resolution_scaling as rs

from .pictures import assert_shows


@pytest.fixture(scope="module")
def comparison():
    model = torchvision.models.resnet18(num_classes=4)
    return rs.compare(
        {
            ("whole", "256 px"): (model, (1, 3, 256, 256)),
            ("RC", "160 px"): (model, (1, 3, 160, 160)),
            ("RC", "128 px"): (model, (1, 3, 128, 128)),
            ("FCR", "160 px"): (rs.scale_resolution(model, 160, input_size=256), (1, 3, 256, 256)),
        }
    )


def test_rows_are_the_reports(comparison):
    rows = {(row["method"], row["setting"]): row for row in comparison.rows()}
    assert rows["whole", "256 px"]["times_fewer_flops"] == 1
    assert rows["RC", "128 px"]["times_fewer_flops"] == pytest.approx(4, rel=1e-3)  # a quarter of the pixels
    # FCR: the first convolution still runs at full size: 128 * 128 outputs of 64 filters of 3 * 7 * 7, 2 FLOPs a MAC
    first = 2 * 64 * 3 * 7 * 7
    expected = rows["RC", "160 px"]["flops"] + first * (128**2 - 80**2)
    assert rows["FCR", "160 px"]["flops"] == expected
    assert {row["weight_bytes"] for row in rows.values()} == {rows["whole", "256 px"]["weight_bytes"]}


def test_table_csv_and_plot(comparison, tmp_path):
    assert "FCR 160 px" in str(comparison)
    assert "1x3x128x128" in str(comparison)
    comparison.to_csv(tmp_path / "costs.csv")
    with open(tmp_path / "costs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == ["256 px", "160 px", "128 px", "160 px"]
    axes = comparison.plot(tmp_path / "costs.png").axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["whole", "RC", "FCR"]
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["GFLOPs", "memory, MB"]
    for line, own_rows in zip(axes.get_lines(), [(0,), (2, 1), (3,)], strict=True):
        assert line.get_xdata().tolist() == [float(rows[i]["flops"]) / 1e9 for i in own_rows]
        assert line.get_ydata().tolist() == [float(rows[i]["memory_bytes"]) / 1e6 for i in own_rows]
    assert [text.get_text() for text in axes.texts] == ["256 px", "128 px", "160 px", "160 px"]
    assert_shows(tmp_path / "costs.png", axes.figure, [line.get_color() for line in axes.get_lines()])


def test_a_vit_is_counted_at_the_size_that_it_works_at():
    vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    comparison = rs.compare(
        {"grid 14": vit, "grid 8": rs.scale_resolution(vit, grid=8), "as is": rs.profile(vit, (2, 3, 224, 224))}
    )
    assert [row["input"] for row in comparison.rows()] == ["1x3x224x224", "1x3x128x128", "2x3x224x224"]


def test_one_size_for_all():
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    (row,) = rs.compare({"net": model}, (1, 1, 8, 8)).rows()
    assert row["flops"] == 2 * 4 * 9 * 6 * 6
    (row,) = rs.compare({"net": model}, (1, 1, 8, 8), dtype=torch.float16).rows()
    assert row["weight_bytes"] == 2 * (4 * 9 + 4)


@pytest.mark.parametrize(
    ("models", "message"),
    [({}, "dict of at least one network"), ({"a": 3}, r"models\['a'\] is a int")],
)
def test_bad_arguments(models, message):
    with pytest.raises(TypeError, match=message):
        rs.compare(models)
