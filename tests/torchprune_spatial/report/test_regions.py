"""Regions and their shares of the cells of grids as drawn."""

import numpy as np
import pytest
import torch
import torch_pruning as tp

from torchprune_spatial import Calibration, SpatialMaskImportance, report

from ..networks import calibration
from .drawn import labelled, object_planes


def test_regions_on_grids_by_loops(net, importance):
    inside = object_planes(calibration())[2, 0].double()
    figure = report.plot_regions(importance, ["0", 2, (8, 4)], model=net, image=2)
    image, *grids, bar = figure.axes
    assert image.get_title() == "input 2"
    assert bar.get_ylabel() == "share of the cell in the region"
    for axes, (rows, columns) in zip(grids, ((4, 4), (2, 2), (8, 4)), strict=True):
        height, width = 8 // rows, 8 // columns
        expected = np.array(
            [
                [inside[i * height : (i + 1) * height, j * width : (j + 1) * width].mean() for j in range(columns)]
                for i in range(rows)
            ]
        )
        (drawn,) = axes.get_images()
        np.testing.assert_allclose(drawn.get_array(), expected)
        pure = int((expected == 1).sum())
        assert f"{rows} x {columns} cells\nobject, {pure} pure cell{'s' * (pure != 1)}" in axes.get_title()


def test_the_target_and_bare_calibration_data():
    loader = calibration()
    figure = report.plot_regions(Calibration(loader), picture="target")
    target = loader[0][1][0, 0]
    expected = (target - target.min()) / (target.max() - target.min())
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array(), expected, atol=1e-6)


def test_every_region_of_a_label_map_has_a_row():
    figure = report.plot_regions(Calibration(labelled()), 4, regions=["sky", "house", "tree"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:4] == [f"4 x 4 cells\n{name}, 4 pure cells" for name in ("sky", "house", "tree")]
    for column, axes in enumerate(figure.axes[1:4]):
        expected = np.zeros((4, 4))
        expected[:, column] = 1
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "house", "tree"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": 4}, ValueError, "image is 4; expected a whole number from 0 to 3: the loader has 4 images"),
        ({"image": -1}, ValueError, "image is -1; expected a whole number of at least 0"),
        ({"image": 0.0}, TypeError, "image is 0.0; expected a whole number of at least 0"),
        ({"grids": ["0"]}, ValueError, "pass its network too"),
        ({"grids": [0]}, ValueError, "a number in grids is 0; expected a whole number above 0"),
        ({"grids": [(2, 4.0)]}, TypeError, "a number in grids is 4.0"),
        ({"grids": [1]}, ValueError, "grid of one cell"),
        ({"grids": [(2, 2, 2)]}, ValueError, "grids holds"),
        ({"picture": "output"}, ValueError, "picture is 'output'"),
        ({"regions": ["one"]}, ValueError, "expected 2 names"),
    ],
)
def test_bad_arguments_of_regions(importance, arguments, error, message):
    with pytest.raises(error, match=message):
        report.plot_regions(importance, **arguments)


def test_regions_need_images(net):
    with pytest.raises(TypeError, match="calibration data"):
        report.plot_regions(tp.importance.MagnitudeImportance())
    signal = SpatialMaskImportance([(torch.rand(2, 2, 16), torch.rand(2, 1, 16))])
    with pytest.raises(ValueError, match="1 spatial dimensions"):
        report.plot_regions(signal)
    classes = SpatialMaskImportance([(torch.rand(2, 2, 8, 8), torch.zeros(2), torch.rand(2, 8, 8) > 0.5)])
    with pytest.raises(ValueError, match="picture='input'"):
        report.plot_regions(classes, picture="target")
