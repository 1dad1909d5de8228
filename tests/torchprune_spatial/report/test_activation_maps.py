"""Which filters are shown, and the maps as drawn."""

import numpy as np
import pytest
import torch
from torch import nn

from torchprune_spatial import SpatialMaskImportance, report

from ..networks import calibration, plain_net
from ..pruning import EXAMPLE
from .drawn import algorithm_1, means_by_loops, object_planes, read_by


def test_activation_maps_show_the_best_of_each_region_and_the_nearest_removed(net, importance):
    loader = calibration()
    maps = read_by(net, "3", loader)
    means, _ = means_by_loops(maps, object_planes(loader))
    kept, _ = algorithm_1(means, 0.5)
    figure = report.plot_activation_maps(importance, net, EXAMPLE, "0", 0.5, filters=2, image=3)
    numbers = [int(axes.get_title().split()[1].rstrip(",")) for axes in figure.axes[1:]]
    states = [axes.get_title().split()[2] for axes in figure.axes[1:]]
    assert states == ["kept", "kept", "removed", "removed"]
    assert [kept[number] for number in numbers] == [True, True, False, False]
    assert numbers[0] == means[0].argmax()
    if means[1].argmax() != numbers[0]:
        assert numbers[1] == means[1].argmax()
    removed = [number for number in range(6) if not kept[number]]
    best_rank = {number: max((row < row[number]).sum() for row in means) for number in removed}
    assert best_rank[numbers[2]] == max(best_rank.values())
    assert figure.axes[0].get_title() == "image 3"
    for axes, number in zip(figure.axes[1:], numbers, strict=True):
        expected = maps[3, number].abs()
        assert f"up to {expected.max():.2g}" in axes.get_title()
        (image,) = axes.get_images()
        np.testing.assert_allclose(image.get_array(), expected / expected.max().clamp_min(1e-12), atol=1e-6)
        assert list(image.get_extent()) == [0, 8, 8, 0]  # of the mask, which lies over it


def test_an_upsampled_image_of_one_value_has_no_outline():
    """Regions of a plane without an edge draw no line, and warn of nothing."""
    net = plain_net()
    loader = [(torch.randn(2, 2, 8, 8), torch.zeros(2, 1, 8, 8)), *calibration()]
    figure = report.plot_activation_maps(SpatialMaskImportance(loader), net, EXAMPLE, "0", 0.5)
    assert figure.axes[0].collections == [] or len(figure.axes[0].collections) == 0


def test_layers_behind_pooling_have_no_map():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    importance = SpatialMaskImportance(calibration())
    assert report.plot_region_responses(importance, model, EXAMPLE, "0", 0.5)
    with pytest.raises(ValueError, match="'0' are read without their positions"):
        report.plot_activation_maps(importance, model, EXAMPLE, "0", 0.5)


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (0, ValueError, "filters is 0; expected a whole number above 0"),
        (2.0, TypeError, "filters is 2.0; expected a whole number above 0"),
        ([9], ValueError, "a filter of '0' is 9; expected a whole number from 0 to 5"),
        ([-1], ValueError, "a filter of '0' is -1"),
        ([0.5], TypeError, "a filter of '0' is 0.5"),
        ([True], TypeError, "a filter of '0' is True"),
    ],
)
def test_wrong_filters(net, importance, filters, error, message):
    with pytest.raises(error, match=message):
        report.plot_activation_maps(importance, net, EXAMPLE, "0", 0.5, filters=filters)
