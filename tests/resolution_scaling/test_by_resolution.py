"""What one network costs at several resolutions."""

import copy
import csv

import pytest
import timm
import torch
from matplotlib.text import Text
from torch import nn

import resolution_scaling as rs


def convolutions():
    """Two convolutions, the second with stride 2, and global pooling."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, padding=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
    )


def flops_by_hand(size, first=None):
    """2 FLOPs a MAC: 4 * 3 * 9 a pixel, 8 * 4 * 9 a quarter of the pixels, 8 * 2."""
    return 2 * (4 * 27 * (first or size) ** 2 + 8 * 36 * (size // 2) ** 2 + 16)


def drawn(axes):
    return {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}


def test_curves_by_hand():
    """RC computes all at the size; FCR its first convolution at 16 px. Both read and write float32."""
    model = convolutions()
    costs = rs.compare_resolutions(model, [8, 16, 24], input_size=16)
    figure = costs.plot_costs()
    flops, weights, largest, peak = (drawn(axes) for axes in figure.axes)
    assert flops == {
        "RC": {size: flops_by_hand(size) / 1e9 for size in (8, 16, 24)},
        "FCR": {8: flops_by_hand(8, first=16) / 1e9, 16: flops_by_hand(16) / 1e9},
    }
    parameters = 4 * 27 + 4 + 8 * 36 + 8 + 16 + 2
    assert weights == {
        "RC": dict.fromkeys((8, 16, 24), 4e-6 * parameters),
        "FCR": dict.fromkeys((8, 16), 4e-6 * parameters),
    }
    # ReLU reads and writes 4 channels, where the first convolution reads 3 and writes 4
    assert largest["RC"] == pytest.approx({size: 4e-6 * 8 * size**2 for size in (8, 16, 24)})
    assert [axes.get_ylabel() for axes in figure.axes] == [
        *("GFLOPs (2 x MACs)", "weights, MB", "largest operator, MB", "peak of activations, MB")
    ]
    for (method, setting), report in costs.reports.items():
        assert peak[{"rc": "RC", "fcr": "FCR"}[method]][costs.sizes[method, setting]] == report.peak_bytes / 1e6
    assert {axes.get_xlabel() for axes in figure.axes} == {"resolution, px"}


def test_rows_table_and_csv(tmp_path):
    costs = rs.compare_resolutions(convolutions(), [16, 8], "rc", batch=2)
    assert [(row["size_px"], row["input"]) for row in costs.rows()] == [(16, "2x3x16x16"), (8, "2x3x8x8")]
    assert costs.rows()[1]["times_fewer_flops"] == pytest.approx(flops_by_hand(16) / flops_by_hand(8), rel=1e-3)
    assert "RC 8 px" in str(costs)
    costs.to_csv(tmp_path / "costs.csv")
    with open(tmp_path / "costs.csv") as file:
        assert [row["size_px"] for row in csv.DictReader(file)] == ["16", "8"]
    assert [line.get_label() for line in costs.plot().axes[0].get_lines()] == ["RC"]


def test_a_transformer_gets_other_grids():
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64, num_classes=2)
    before = copy.deepcopy(vit.state_dict())
    costs = rs.compare_resolutions(vit, range(32, 97, 32), in_channels=3)
    (axes,) = costs.plot_costs(costs="flops").axes
    for size, gflops in drawn(axes)["tokens"].items():
        tokens, width = (size // 16) ** 2 + 1, 192
        macs = (tokens - 1) * 768 * width + tokens * (3 + 1 + 4 + 4) * width**2 + 2 * tokens**2 * width + width * 2
        assert gflops == pytest.approx(2 * macs / 1e9, rel=1e-9)
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())
    with pytest.raises(ValueError, match="40"):
        rs.compare_resolutions(vit, [40])


def test_figure_is_legible_and_lines_differ_in_more_than_colour(tmp_path):
    figure = rs.compare_resolutions(convolutions(), [8, 16], input_size=16).plot_costs(tmp_path / "costs.png")
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8
    one, other = figure.axes[0].get_lines()
    assert one.get_marker() != other.get_marker()
    assert one.get_linestyle() != other.get_linestyle()


def test_the_network_is_left_alone():
    model = convolutions().train()
    before = copy.deepcopy(model.state_dict())
    rs.compare_resolutions(model, [8, 16], input_size=16)
    with pytest.raises(ValueError, match="cannot"):
        rs.compare_resolutions(nn.Sequential(nn.Conv2d(3, 4, 9), nn.Conv2d(4, 4, 9)), [8])
    assert [type(layer) for layer in model] == [type(layer) for layer in convolutions()]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "sizes is empty"),
        (([1.5],), TypeError, "a size of sizes is 1.5"),
        (([8], "crop"), ValueError, "methods is .*'rc', 'fcr', 'tokens'"),
        (([8], ()), ValueError, "methods is"),
        (([256], "fcr"), ValueError, "above the 224 px"),
        (([8], "tokens"), TypeError, "not a vision transformer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rs.compare_resolutions(convolutions(), *arguments)


@pytest.mark.parametrize("costs", [[], ["time"], "operators"])
def test_unknown_costs(costs):
    with pytest.raises(ValueError, match="expected at least one of 'macs', 'flops'"):
        rs.compare_resolutions(convolutions(), [8]).plot_costs(costs=costs)
