"""Responses and thresholds as drawn, compared with plain loops over activations and masks."""

import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial import SpatialMaskImportance, report
from torchprune_spatial.report.responses import region_responses

from ..networks import ProgramNet, calibration
from ..pruning import EXAMPLE
from .drawn import algorithm_1, dashed, labelled, means_by_loops, object_planes, offsets, pruned, read_by


@pytest.mark.parametrize("fract", [0.2, 0.35, 0.5])
def test_responses_and_thresholds_of_a_fraction_by_loops(net, importance, fract):
    loader = calibration()
    figure = report.plot_region_responses(importance, net, EXAMPLE, ["0", "3"], fract)
    assert len(figure.axes) == 2
    for axes, reader in zip(figure.axes, "35", strict=True):
        means, _ = means_by_loops(read_by(net, reader, loader), object_planes(loader))
        kept, thresholds = algorithm_1(means, fract)
        points = means[::-1].T  # background across, object up
        for drawn, expected in zip(offsets(axes), (points[kept], points[~kept]), strict=True):
            np.testing.assert_allclose(drawn, sorted(expected.tolist()), rtol=1e-5)
        np.testing.assert_allclose(np.ravel(dashed(axes)), thresholds, rtol=1e-5)
        assert f"{kept.sum()} of {len(kept)} kept" in axes.get_title()
        assert axes.get_xlabel() == "mean activation, background"
        assert axes.get_ylabel() == "mean activation, object"


def test_kept_and_removed_differ_in_shape_and_colour(net, importance):
    (axes,) = report.plot_region_responses(importance, net, EXAMPLE, "3", 0.3).axes
    kept, removed = axes.collections
    assert not np.array_equal(kept.get_facecolor(), removed.get_facecolor())
    assert len(kept.get_paths()[0].vertices) != len(removed.get_paths()[0].vertices)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.6])
def test_a_record_shows_what_it_kept_and_the_thresholds_that_this_implies(net, importance, ratio):
    record = pruned(net, importance, pruning_ratio=ratio)
    for name in "03":
        of = region_responses(importance, net, EXAMPLE, name, record)[name]
        assert of.kept.nonzero().flatten().tolist() == record.kept_out[name].tolist()
        above = (of.means > of.thresholds.unsqueeze(1)).any(0)
        assert not (above & ~of.kept).any()
        assert (of.kept & ~above).sum() in (0, 1)  # a number between two unions
        assert (of.means > of.thresholds.unsqueeze(1)).sum(1).tolist() == [of.top, of.top]
        (axes,) = report.plot_region_responses(importance, net, EXAMPLE, name, record).axes
        kept, removed = offsets(axes)
        assert (len(kept), len(removed)) == (int(of.kept.sum()), int((~of.kept).sum()))
        np.testing.assert_allclose(np.ravel(dashed(axes)), of.thresholds)


def test_another_criterion_has_no_thresholds(net, importance):
    worst = region_responses(importance, net, EXAMPLE, "3", 1.0)["3"].overall.argsort()[:4]
    (axes,) = report.plot_region_responses(importance, net, EXAMPLE, "3", {"3": worst}).axes
    kept, removed = offsets(axes)
    assert kept.max() <= removed.max()
    assert dashed(axes) == ([], [])
    assert "4 of 8 kept" in axes.get_title()


def test_nothing_removed(net, importance):
    (axes,) = report.plot_region_responses(importance, net, EXAMPLE, "3", 1.0).axes
    assert len(offsets(axes)[1]) == 0
    assert dashed(axes) == ([], [])


def test_more_than_two_regions_have_a_panel_each(net):
    loader = labelled()
    importance = SpatialMaskImportance(loader)
    figure = report.plot_region_responses(importance, net, EXAMPLE, "0", 0.3)
    labels = torch.cat([batch[2] for batch in loader])
    planes = torch.stack([labels == i for i in (0, 1, 3)], 1)
    maps = read_by(net, "3", loader)
    means, _ = means_by_loops(maps, planes)
    valued = maps[:, :, :, :3].abs().double()  # without the void column
    kept, thresholds = algorithm_1(means, 0.3)
    assert [axes.get_ylabel() for axes in figure.axes] == [f"mean activation, region {i}" for i in (0, 1, 3)]
    for axes, row, threshold in zip(figure.axes, means, thresholds, strict=True):
        points = np.stack([valued.mean((0, 2, 3)).numpy(), row], 1)
        for drawn, expected in zip(offsets(axes), (points[kept], points[~kept]), strict=True):
            np.testing.assert_allclose(drawn, sorted(expected.tolist()), rtol=1e-5)
        assert dashed(axes)[0] == [pytest.approx(threshold, rel=1e-5)]
        assert dashed(axes)[1] == []
    names = ["sky", "house", "tree"]
    figure = report.plot_region_responses(importance, net, EXAMPLE, "0", 0.3, regions=names)
    assert [axes.get_ylabel().split()[-1] for axes in figure.axes] == names


def test_two_regions_of_a_label_map_are_not_called_object_and_background(net):
    loader = [(image, target, (target[:, 0] > 0.5).long()) for image, target in calibration()]
    (axes,) = report.plot_region_responses(SpatialMaskImportance(loader), net, EXAMPLE, "0", 0.3).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("mean activation, region 1", "mean activation, region 0")


def test_concatenated_layers_are_each_themselves():
    net = ProgramNet(["concatenation"], width=4).eval()
    loader = calibration()
    first, second = (name for name in net.layers if name.startswith("layer"))
    both = net.run(torch.cat([image for image, _ in loader]))[dict(net.readers())["output"]].detach()
    means, _ = means_by_loops(both, object_planes(loader))
    found = region_responses(
        SpatialMaskImportance(loader, group_reduction="gate"), net, EXAMPLE, [f"layers.{second}"], 0.5
    )[f"layers.{second}"]
    np.testing.assert_allclose(found.means, means[:, -4:], rtol=1e-5)
    assert first != second
    kept, thresholds = algorithm_1(means[:, -4:], 0.5)
    assert found.kept.tolist() == kept.tolist()
    np.testing.assert_allclose(found.thresholds, thresholds, rtol=1e-5)


class ConcatenationThatIsAdded(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.both = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 5, 1), nn.Conv2d(2, 8, 1)
        self.output = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return self.output((torch.cat([self.a(x), self.b(x)], 1) + self.both(x)).relu())


@pytest.mark.parametrize(("name", "part"), [("a", slice(0, 3)), ("b", slice(3, 8)), ("both", slice(0, 8))])
def test_filters_are_ranked_among_all_that_are_pruned_together(name, part):
    net, loader = ConcatenationThatIsAdded().eval(), calibration()
    means, _ = means_by_loops(read_by(net, "output", loader), object_planes(loader))
    importance = SpatialMaskImportance(loader)
    found = region_responses(importance, net, EXAMPLE, name, 0.4)[name]
    np.testing.assert_allclose(found.means, means[:, part], rtol=1e-5)
    kept, thresholds = algorithm_1(means, 0.4)
    assert found.kept.tolist() == kept[part].tolist()
    np.testing.assert_allclose(found.thresholds, thresholds, rtol=1e-5)


def test_layers_that_are_added_share_responses():
    net = ProgramNet(["residual"], width=4).eval()
    names = [f"layers.{name}" for name in net.layers if name.startswith("layer")]
    found = region_responses(SpatialMaskImportance(calibration()), net, EXAMPLE, [names[0], names[2]], 0.5)
    one, other = found.values()
    assert torch.equal(one.means, other.means)
    assert torch.equal(one.kept, other.kept)


def test_the_pruned_network_is_not_the_one_to_draw(net, importance):
    record = pruned(net, importance)
    with pytest.raises(ValueError, match=r"'3' has 4 of 8 filters.*deepcopy"):
        report.plot_region_responses(importance, record.model, EXAMPLE, "3", record)
    with pytest.raises(ValueError, match="pruned already"):
        report.plot_region_responses(importance, record.model, EXAMPLE, "3", copy.copy(record))


def test_only_spatial_masks_know_regions(net):
    with pytest.raises(TypeError, match=r"SpatialMaskImportance\(importance.calibration\)"):
        report.plot_region_responses(tp.importance.APoZImportance(calibration()), net, EXAMPLE, "3", 0.5)
