"""What users bring: loaders, masks, models with several inputs, precisions, devices."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchprune_spatial
from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.calibration.measurements import RegionMeans

from ..networks import calibration, plain_net
from ..pruning import EXAMPLE, group_of, prune


def test_registered_on_torch_pruning():
    assert tp.importance.SpatialMaskImportance is torchprune_spatial.SpatialMaskImportance
    assert "SpatialMaskImportance" in tp.importance.__all__


def kept_channels(model, importance, example=EXAMPLE, layer=0):
    """Indices of the filters that survive in a layer."""
    tagged = model[layer].weight.detach().flatten(1).sum(1).tolist()
    prune(model, importance, example)
    return [tagged.index(value) for value in model[layer].weight.detach().flatten(1).sum(1).tolist()]


def test_masks_from_the_target_the_loader_and_a_callable_agree():
    data = calibration()
    sources = [
        SpatialMaskImportance(data, threshold=0.5),
        SpatialMaskImportance(data, threshold="otsu"),
        SpatialMaskImportance([(x, None, t > 0.5) for x, t in data]),
        SpatialMaskImportance([(x, t, (t > 0.5).squeeze(1)) for x, t in data]),
        SpatialMaskImportance(data, masks=lambda x, t: t > 0.5),
        SpatialMaskImportance(DataLoader(TensorDataset(*map(torch.cat, zip(*data, strict=True))), batch_size=3)),
    ]
    scores = [importance(group_of(plain_net(), "0")) for importance in sources]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0])


def test_masks_from_a_callable_without_targets():
    inputs = [x for x, _ in calibration()]
    importance = SpatialMaskImportance(inputs, masks=lambda x, target: x[:, :1] > 0 if target is None else 1 / 0)
    assert importance(group_of(plain_net(), "0")).shape == (6,)


def test_batches_that_have_to_be_taken_apart():
    data = calibration()
    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    dicts = [{"lq": x, "gt": t, "path": ["a.png"] * len(x)} for x, t in data]
    shared = torchprune_spatial.Calibration(dicts, batch=lambda batch: (batch["lq"], batch["gt"]))
    torch.testing.assert_close(SpatialMaskImportance(shared)(group_of(plain_net(), "0")), expected)
    with pytest.raises(ValueError, match=r"keys 'lq', 'gt', 'path'.*Calibration\(loader, batch="):
        SpatialMaskImportance(dicts)(group_of(plain_net(), "0"))
    with pytest.raises(ValueError, match=r"mask is a list.*batch=lambda batch: batch\[:2\]"):
        SpatialMaskImportance([(x, t, ["a.png"]) for x, t in data])(group_of(plain_net(), "0"))
    with pytest.raises(TypeError, match="batch is a str"):
        torchprune_spatial.Calibration(dicts, batch="lq")


def test_thresholds_are_numbers_of_any_kind():
    data = calibration()
    expected = SpatialMaskImportance(data, threshold=0.25)(group_of(plain_net(), "0"))
    for threshold in (np.float32(0.25), np.float64(0.25), Fraction(1, 4)):
        torch.testing.assert_close(SpatialMaskImportance(data, threshold)(group_of(plain_net(), "0")), expected)


def single_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 1))
    x = torch.rand(8, 1, 8, 8)
    return model, x, (x > 0.7).float()


@pytest.mark.parametrize("allocation", ["uniform", "sensitivity"])
def test_single_items_are_no_batches(allocation):
    model, x, y = single_channels()
    with pytest.raises(ValueError, match=r"yields single items: .* \[1, 8, 8\].*DataLoader\(dataset, batch_size"):
        torchprune_spatial.prune_to(
            model, x[:1], SpatialMaskImportance(list(zip(x, y, strict=True))), compression=2, allocation=allocation
        )
    assert model[0].out_channels == 8


def test_what_the_network_does_to_its_inputs_is_not_seen_outside():
    class InPlace(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.mul_(255))

    model, x, y = single_channels()
    kept = x.clone()
    importance = torchprune_spatial.InterpolativeImportance([(x, y)])
    record = torchprune_spatial.prune_to(InPlace(model), x[:1], importance, compression=2)
    assert torch.equal(x, kept)
    expected = torchprune_spatial.prune_to(
        single_channels()[0], x[:1], torchprune_spatial.InterpolativeImportance([(255 * x, y)]), compression=2
    )
    assert [[*kept] for kept in record.kept_out.values()] == [[*kept] for kept in expected.kept_out.values()]


def test_masks_from_the_model_itself_are_not_counted_as_its_activations():
    data, model = calibration(), plain_net()

    def segment(x, _):
        return nn.functional.interpolate(model(x), scale_factor=2.0) > 0

    with torch.no_grad():
        known = [(x, None, segment(x, None)) for x, _ in data]
    expected = SpatialMaskImportance(known)(group_of(model, "0"))
    scores = SpatialMaskImportance(data, masks=segment)(group_of(model, "0"))
    torch.testing.assert_close(scores, expected)


def test_three_regions_keep_the_best_of_each():
    model = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 1, 1))
    by_region = torch.tensor([[5.1, 0, 0], [0, 5.2, 0], [0, 0, 5.3], [4, 4, 0], [3, 3, 3], [0, 4, 4]])
    model[0].weight.data = by_region.view(6, 3, 1, 1)
    labels = torch.tensor([0, 1, 2, 255]).repeat(4, 1).unsqueeze(0)  # one region a column, the last column is void
    image = nn.functional.one_hot(labels.clamp(max=3), 4)[..., :3].movedim(-1, 1).float()
    data = [(image, None, labels)]
    assert sorted(kept_channels(model, SpatialMaskImportance(data), torch.zeros(1, 3, 4, 4))) == [0, 1, 2]


def test_labels_that_appear_in_a_later_batch_are_regions_too():
    images = torch.randn(3, 2, 8, 8)
    labels = torch.randint(0, 2, (3, 8, 8))
    labels[2, :4] = 2
    one_by_one = [(images[i : i + 1], None, labels[i : i + 1]) for i in range(3)]
    scores = [
        SpatialMaskImportance(data)(group_of(plain_net(), "0")) for data in (one_by_one, [(images, None, labels)])
    ]
    torch.testing.assert_close(*scores)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain_net()

    def forward(self, image, scale, extra=None):
        assert extra is not None
        return {"image": self.net(image * scale.view(-1, 1, 1, 1)), "scale": scale}


def test_models_with_several_inputs_and_dict_outputs():
    data = calibration()
    scale = torch.ones(2)
    example = {"image": EXAMPLE, "scale": torch.ones(1), "extra": torch.ones(1)}

    def first_group():
        graph = tp.DependencyGraph().build_dependency(Scaled(), example, output_transform=lambda out: out["image"])
        return graph.get_pruning_group(graph.model.net[0], tp.prune_conv_out_channels, list(range(6)))

    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    importances = [
        SpatialMaskImportance([({"image": x, "scale": scale, "extra": scale}, t) for x, t in data]),
        SpatialMaskImportance([((x, scale, scale), t) for x, t in data]),
        SpatialMaskImportance(data, forward=lambda model, x: model(x, torch.ones(len(x)), extra=x)),
    ]
    for importance in importances:
        torch.testing.assert_close(importance(first_group()), expected)


def test_super_resolution_masks_are_larger_than_the_input():
    upscaler = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 2, stride=2))
    data = [(x, nn.functional.interpolate(t, scale_factor=2.0)) for x, t in calibration()]
    assert SpatialMaskImportance(data)(group_of(upscaler, "0")).shape == (6,)


def test_channels_last_changes_nothing():
    data = calibration()
    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    last = plain_net().to(memory_format=torch.channels_last)
    data = [(x.contiguous(memory_format=torch.channels_last), t) for x, t in data]
    torch.testing.assert_close(SpatialMaskImportance(data)(group_of(last, "0")), expected)


@pytest.mark.parametrize("mode", ["autocast", "bfloat16", "float64"])
def test_other_precisions_give_nearly_the_same_means(mode):
    data, model = calibration(), plain_net()
    expected = SpatialMaskImportance(data).statistics(group_of(model, "0")._DG).values[RegionMeans()][model[3]]
    graph = group_of(model, "0")._DG
    if mode == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            means = SpatialMaskImportance(data).statistics(graph).values[RegionMeans()][model[3]]
    else:
        model.to(getattr(torch, mode))
        means = SpatialMaskImportance(data).statistics(graph).values[RegionMeans()][model[3]]
    torch.testing.assert_close(means, expected, rtol=0.02, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("autocast", [False, True])
def test_gpu_gives_the_same_order(autocast):
    data = calibration()
    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    group = group_of(plain_net().cuda(), "0", EXAMPLE.cuda())
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        scores = SpatialMaskImportance(data)(group)
    if not autocast:
        torch.testing.assert_close(scores.cpu(), expected)
    assert next(group._DG.model.parameters()).is_cuda
