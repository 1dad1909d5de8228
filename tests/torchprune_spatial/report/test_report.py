"""Pictures: what is drawn, compared with plain loops over activations and masks."""

import copy
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import timm
import torch
import torch_pruning as tp
from matplotlib.text import Text
from torch import nn

from torchprune_spatial import Calibration, PruningRecord, SpatialMaskImportance, prune_to, report
from torchprune_spatial.report.responses import region_responses

from ..networks import ProgramNet, calibration, plain_net
from ..pruning import EXAMPLE, make_pruner


def offsets(axes):
    """Kept and removed filters as drawn: ``[filters, (across, up)]`` each, sorted."""
    drawn = {points.get_label(): np.asarray(points.get_offsets()) for points in axes.collections}
    return np.array(sorted(drawn["kept"].tolist())), np.array(sorted(drawn["removed"].tolist()))


def dashed(axes):
    """Places of the horizontal and the vertical thresholds."""
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    horizontal = [line.get_ydata()[0] for line in lines if line.get_ydata()[0] == line.get_ydata()[1]]
    return horizontal, [line.get_xdata()[0] for line in lines if line.get_xdata()[0] == line.get_xdata()[1]]


def means_by_loops(maps, planes):
    """Region means and the overall mean: over pure cells, or by coverage where a region has none in any image.

    ``maps`` ``[images, channels, height, width]``, ``planes`` ``[images, regions, *size]`` of 0 and 1.
    """
    maps, step = maps.abs().double().numpy(), planes.shape[2] // maps.shape[2]
    images, channels, height, width = maps.shape
    rows = []
    for region in range(planes.shape[1]):
        cells = []
        for n in range(images):
            for i in range(height):
                for j in range(width):
                    block = planes[n, region, i * step : (i + 1) * step, j * step : (j + 1) * step]
                    cells.append((float(block.double().mean()), maps[n, :, i, j]))
        pure = [(1.0, values) for share, values in cells if share == 1]
        chosen = pure or cells
        rows.append(sum(share * values for share, values in chosen) / sum(share for share, _ in chosen))
    return np.array(rows), maps.transpose(1, 0, 2, 3).reshape(channels, -1).mean(1)


def object_planes(loader):
    inside = torch.cat([target[:, 0] for _, target in loader]) > 0.5
    return torch.stack([inside, ~inside], 1)


def algorithm_1(means, fract):
    """The paper's lines: ``>= quantile(1 - fract)`` in any region."""
    thresholds = np.array([np.quantile(row, 1 - fract) for row in means])
    return (means >= thresholds[:, None]).any(0), thresholds


def read_by(model, reader, loader):
    """All that a layer reads of the calibration images."""
    found = []
    handle = model.get_submodule(reader).register_forward_pre_hook(lambda _, args: found.append(args[0].detach()))
    with torch.no_grad():
        for image, *_ in loader:
            model(image)
    handle.remove()
    return torch.cat(found)


@pytest.fixture(scope="module")
def net():
    return plain_net().eval()


@pytest.fixture(scope="module")
def importance():
    return SpatialMaskImportance(calibration())


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


def pruned(net, importance, **options):
    """A pruned copy's record, the output left alone."""
    model = copy.deepcopy(net)
    record = PruningRecord(model)
    record.step(make_pruner(model, importance, ignored_layers=[model[5]], **options))
    return record


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


def labelled(size=8):
    """Label maps with the regions 0, 1 and 3, and void: columns of two pixels."""
    labels = torch.tensor([0, 1, 3, 255]).repeat_interleave(size // 4).expand(4, size, size)
    images = torch.randn(4, 2, size, size, generator=torch.Generator().manual_seed(1))
    return list(zip(images.split(2), torch.zeros(4).split(2), labels.split(2), strict=True))


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


def test_tokens_of_a_transformer():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, num_classes=3).eval()
    loader = calibration(images=2, size=64, channels=3)
    importance = SpatialMaskImportance(loader)
    figure = report.plot_region_responses(importance, model, loader[0][0], "blocks.0.mlp.fc1", 0.3)
    tokens = read_by(model, "blocks.0.mlp.fc2", loader)
    maps = tokens[:, 1:].mT.unflatten(2, (4, 4))  # behind the class token
    means, _ = means_by_loops(maps, object_planes(loader))
    kept, _ = algorithm_1(means, 0.3)
    drawn = offsets(figure.axes[0])
    np.testing.assert_allclose(drawn[0], sorted(means[::-1].T[kept].tolist()), rtol=1e-4)
    figure = report.plot_activation_maps(
        importance, model, loader[0][0], "blocks.0.mlp.fc1", 0.3, filters=[7, 11], image=1
    )
    shown = {axes.get_title().split(",")[0]: axes.get_images()[0].get_array() for axes in figure.axes}
    for number in (7, 11):
        expected = maps[1, number].abs()
        expected = expected / expected.max()
        np.testing.assert_allclose(shown[f"filter {number}"], expected, atol=1e-4)


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


@pytest.mark.parametrize("draw", [report.plot_region_responses, report.plot_activation_maps])
@pytest.mark.parametrize(
    ("layer", "kept", "error", "message"),
    [
        ("4", 0.3, ValueError, "no layer '4' with filters.*it has '0', '3'$"),
        ("5", 0.3, ValueError, "channels of '5', because they are outputs.*drawn: '0', '3'$"),
        ("3", 1.5, ValueError, "kept is 1.5"),
        ("3", "a lot", TypeError, "kept is a str"),
        ("3", True, TypeError, "kept is a bool"),
        ("3", {"0": torch.tensor([1])}, ValueError, "kept has no layer '3'; it has '0'"),
        ("3", {"3": torch.tensor([8])}, ValueError, "before pruning"),
    ],
)
def test_errors_leave_the_network_alone(net, importance, draw, layer, kept, error, message):
    net.train()
    with pytest.raises(error, match=message):
        draw(importance, net, EXAMPLE, layer, kept)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_the_pruned_network_is_not_the_one_to_draw(net, importance):
    record = pruned(net, importance)
    with pytest.raises(ValueError, match=r"'3' has 4 of 8 filters.*deepcopy"):
        report.plot_region_responses(importance, record.model, EXAMPLE, "3", record)
    with pytest.raises(ValueError, match="pruned already"):
        report.plot_region_responses(importance, record.model, EXAMPLE, "3", copy.copy(record))


def test_only_spatial_masks_know_regions(net):
    with pytest.raises(TypeError, match=r"SpatialMaskImportance\(importance.calibration\)"):
        report.plot_region_responses(tp.importance.APoZImportance(calibration()), net, EXAMPLE, "3", 0.5)


class Failing(nn.Module):
    def __init__(self, net, calls):
        super().__init__()
        self.net, self.calls = net, calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("out of order")
        return self.net(x)


@pytest.mark.parametrize("calls", range(4))  # the graph, two batches, the maps
def test_a_network_that_fails_is_left_alone(net, calls):
    model = Failing(net, calls).train()
    with pytest.raises(RuntimeError, match="out of order"):
        report.plot_activation_maps(SpatialMaskImportance(calibration()), model, EXAMPLE, "net.3", 0.5)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_drawing_leaves_the_network_alone(net, importance):
    model = copy.deepcopy(net).train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    report.plot_region_responses(importance, model, EXAMPLE, "0", 0.5)
    report.plot_activation_maps(importance, model, EXAMPLE, "0", 0.5)
    report.plot_regions(importance, ["0"], model=model)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, *[True] * 5]


def test_kept_channels_are_the_records_plot(net, importance):
    figure = report.plot_kept_channels(pruned(net, importance))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [6, 8, 1, 3, 4, 1]
    assert [text.get_text() for text in axes.texts] == ["3 of 6", "4 of 8", "1 of 1"]


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


@pytest.mark.parametrize("filters", [0, [9], [-1], [0.5]])
def test_wrong_filters(net, importance, filters):
    with pytest.raises(ValueError, match="filters"):
        report.plot_activation_maps(importance, net, EXAMPLE, "0", 0.5, filters=filters)


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
        ({"image": -1}, ValueError, "image is -1"),
        ({"grids": ["0"]}, ValueError, "pass its network too"),
        ({"grids": [0]}, ValueError, "grids holds 0"),
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


DRAWN_FROM_DATA = {
    "responses": lambda importance, net: region_responses(importance, net, EXAMPLE, "0", 0.5),
    "region responses": lambda importance, net: report.plot_region_responses(importance, net, EXAMPLE, "0", 0.5),
    "activation maps": lambda importance, net: report.plot_activation_maps(importance, net, EXAMPLE, "0", 0.5),
    "regions": lambda importance, net: report.plot_regions(importance),
    "regions of a layer": lambda importance, net: report.plot_regions(importance, ["0"], model=net),
}


@pytest.mark.parametrize("draw", DRAWN_FROM_DATA.values(), ids=DRAWN_FROM_DATA)
def test_an_empty_loader_is_reported_in_a_sentence(net, draw):
    with pytest.raises(ValueError, match="loader yielded no batch: pass at least one batch to calibrate on"):
        draw(SpatialMaskImportance([]), net)


@pytest.mark.parametrize("draw", ["region responses", "activation maps", "regions"])
def test_a_loader_that_is_empty_when_it_is_read_again_is_reported_in_a_sentence(net, draw):
    loader = calibration()
    importance = SpatialMaskImportance(loader)
    region_responses(importance, net, EXAMPLE, "0", 0.5)  # reads the loader
    loader.clear()
    with pytest.raises(ValueError, match="yielded no batch when it was read again: pass a loader that can be iterated"):
        DRAWN_FROM_DATA[draw](importance, net)


def test_batches_without_images_are_reported_in_a_sentence():
    with pytest.raises(ValueError, match="loader yielded batches without images"):
        report.plot_regions(Calibration([(torch.zeros(0, 2, 8, 8), torch.zeros(0, 1, 8, 8))]))


def test_masks_from_a_callable_and_inputs_in_a_dict():
    loader = [{"image": image} for image, _ in calibration()]
    calibrated = Calibration(
        loader,
        masks=lambda batch, _: batch["image"][:, 0] > 0,
        forward=lambda model, batch: model(batch["image"]),
    )
    net = plain_net()
    figure = report.plot_regions(calibrated, ["0"], model=net, image=1)
    assert figure.axes[1].get_images()[0].get_array().shape == (4, 4)
    assert report.plot_activation_maps(SpatialMaskImportance(calibrated), net, EXAMPLE, "0", 0.5, image=1)


def test_text_is_at_least_8_pt(net, importance, tmp_path):
    record = prune_to(copy.deepcopy(net), EXAMPLE, importance, compression=2)
    common = importance, net, EXAMPLE
    figures = {
        "channels": report.plot_kept_channels(record, tmp_path / "channels.png"),
        "responses": report.plot_region_responses(*common, ["0", "3"], record, path=tmp_path / "responses.png"),
        "maps": report.plot_activation_maps(*common, "3", record, path=tmp_path / "maps.png"),
        "regions": report.plot_regions(importance, ["3"], model=net, path=tmp_path / "regions.png"),
    }
    for name, figure in figures.items():
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8


def test_matplotlib_comes_with_the_first_figure_and_pyplot_never():
    code = """
        import sys, torch, torchprune_spatial
        assert "matplotlib" not in sys.modules
        data = torchprune_spatial.Calibration([(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))])
        torchprune_spatial.report.plot_regions(data, 4)
        assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True)
