import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial.calibration import measurements
from torchprune_spatial.calibration.batches import CalibrationData
from torchprune_spatial.calibration.measurements import RegionMeans
from torchprune_spatial.calibration.statistics import collect_statistics

from ..networks import ProgramNet, calibration


def collect(model, data, cells="auto"):
    """Region means, by the layer that reads the channels."""
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, 2, 8, 8))
    return collect_statistics(graph, CalibrationData(data, 0.5), [RegionMeans(cells)]).values[RegionMeans(cells)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for layer, means in one.items():
        torch.testing.assert_close(other[layer], means)


@pytest.fixture
def model():
    return ProgramNet(["residual", "transposed", "depthwise"], norm=True)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_batches_do_not_matter(model, batch):
    assert_same(collect(model, calibration(images=7, batch=7)), collect(model, calibration(images=7, batch=batch)))


def test_chunks_do_not_matter(model, monkeypatch):
    expected = collect(model, calibration())
    monkeypatch.setattr(measurements, "CHUNK_ELEMENTS", 1)
    assert_same(expected, collect(model, calibration()))


def test_sums_are_float64_and_one_number_a_channel_and_region(model):
    result = collect(model, calibration())
    for layer, means in result.items():
        assert means.dtype == torch.float64
        assert means.shape == (3, layer.in_channels)


def test_many_batches_keep_their_precision():
    """2,000 batches of the same image: float32 sums would drift in the fifth digit."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1))
    (batch,) = calibration(images=1, batch=1)
    once, often = (collect(model, [batch] * count)[model[1]] for count in (1, 2000))
    torch.testing.assert_close(often, once, rtol=1e-12, atol=0)


def test_a_tensor_that_several_layers_read_is_added_up_once(monkeypatch):
    class Inception(nn.Module):
        def __init__(self):
            super().__init__()
            self.source = nn.Conv2d(2, 4, 1)
            self.branches = nn.ModuleList(nn.Conv2d(4, 2, 1) for _ in range(3))
            self.output = nn.Conv2d(6, 1, 1)

        def forward(self, x):
            x = torch.relu_(self.source(x))
            return self.output(torch.cat([branch(x) for branch in self.branches], 1))

    calls, add_up = [], RegionMeans.measure
    monkeypatch.setattr(RegionMeans, "measure", lambda self, reading: calls.append(1) or add_up(self, reading))
    result = collect(Inception(), calibration(images=2, batch=2))
    assert len(calls) == 3  # the image, the relu, the concatenation
    assert len(result) == 5


def test_a_tensor_that_changed_in_place_is_added_up_again():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x):
            x = self.source(x)
            return self.first(x) + self.second(x.mul_(2))

    model = InPlace()
    means = collect(model, calibration())
    torch.testing.assert_close(means[model.second], 2 * means[model.first])


def test_signed_activations_count_by_magnitude():
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 1, 1))
    model[0].weight.data = torch.tensor([[-3.0, 0], [0, 1.0]]).view(2, 2, 1, 1)
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    image = torch.ones(1, 2, 8, 8) * torch.tensor([1.0, -1.0]).repeat(4)  # its mean is 0
    assert collect(model, [(image, target)])[model[1]].tolist() == [[3, 1]] * 3


def test_a_layer_that_runs_twice_counts_both_inputs():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.shared, self.output = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x):
            self.read = [torch.relu(self.source(x))]
            self.read.append(torch.relu(self.shared(self.read[0])))
            return self.output(self.shared(self.read[1]))

    model = Shared()
    result = collect(model, calibration(images=2, batch=2))
    expected = torch.stack(model.read).double().mean((0, 1, 3, 4))
    torch.testing.assert_close(result[model.shared][-1], expected, rtol=1e-6, atol=0)


def test_pure_cells_and_coverage_by_hand():
    """On a 2 x 2 grid the object covers cells by 1, 1/4, 0, 0; the activations are 10, 20, 30, 40."""
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.MaxPool2d(4), nn.Conv2d(1, 1, 1))
    model[0].weight.data = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    image = torch.zeros(1, 2, 8, 8)
    image[0, 0] = torch.tensor([[10.0, 20], [30, 40]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    mask = torch.zeros(1, 8, 8).bool()
    mask[0, :4, :4] = mask[0, :2, 4:6] = True
    data = [(image, None, mask)]
    expected = {"auto": [10, 35], "pure": [10, 35], "coverage": [15 / 1.25, (15 + 30 + 40) / 2.75]}
    for cells, means in expected.items():
        assert collect(model, data, cells=cells)[model[2]][:-1, 0].tolist() == pytest.approx(means)
    mask[0, 0, 0] = False  # no pure object cell is left: auto falls back to coverage for the object, and only for it
    assert collect(model, data)[model[2]][:-1, 0].tolist() == pytest.approx([(9.375 + 5) / 1.1875, 35])


def test_an_image_without_object_still_counts_in_the_background():
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.Conv2d(1, 1, 1))
    model[0].weight.data = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, :4] = 1
    image = torch.cat([torch.full((1, 2, 8, 8), 1.0), torch.full((1, 2, 8, 8), 4.0)])
    means = collect(model, [(image, target)])[model[1]]
    assert means[:, 0].tolist() == pytest.approx([1, (32 * 1 + 64 * 4) / 96, (64 * 1 + 64 * 4) / 128])


def test_layers_that_torch_pruning_has_not_followed_are_named():
    """It calls the network with the rows of a tensor first, and this one takes an image for a batch."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(True), nn.Conv2d(4, 4, 3), nn.ReLU(True), nn.Conv2d(4, 1, 1))
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, 2, 8, 8))
    assert [layer for layer in model if layer in graph.module2node] == [model[4]]
    with pytest.raises(ValueError, match=r"has no prunable layer: 2 layers .* not in .* graph.*example_inputs=\(x,\)"):
        collect_statistics(graph, CalibrationData(calibration(), 0.5), [RegionMeans()])
