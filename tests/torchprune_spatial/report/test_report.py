"""What all the pictures have in common: errors, data, a network that is left alone, sizes of text."""

import copy
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import timm
import torch
from matplotlib.text import Text
from torch import nn

from torchprune_spatial import Calibration, SpatialMaskImportance, prune_to, report
from torchprune_spatial.report.responses import region_responses

from ..networks import calibration, plain_net
from ..pruning import EXAMPLE
from .drawn import algorithm_1, means_by_loops, object_planes, offsets, pruned, read_by


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


class Failing(nn.Module):
    def __init__(self, net, calls):
        super().__init__()
        self.net, self.calls = net, calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("out of order")
        return self.net(x)


@pytest.mark.parametrize("calls", range(3))  # the graph (after which the network is as it was), two batches, the maps
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
