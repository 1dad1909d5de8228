"""Interpolative selection and folding, against scipy's pivoted QR, least squares on the rows, and by hand."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import qr
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial import InterpolativeImportance, prune_to
from torchprune_spatial.criteria.folding import fold_by_least_squares
from torchprune_spatial.criteria.interpolative import pivots

from ..networks import BLOCKS, ProgramNet, calibration, plain_net
from ..pruning import EXAMPLE, group_of, make_pruner
from .test_networks import NETWORKS, shapes


def prune_and_fold(model, importance, example=EXAMPLE, **options):
    pruner = make_pruner(model, importance, example, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        for group in pruner.step(interactive=True):
            importance.fold(group)
            group.prune()


@pytest.mark.parametrize("channels", [1, 2, 7, 20])
@pytest.mark.parametrize("seed", range(3))
def test_pivots_are_those_of_qr(channels, seed):
    rows = torch.randn(30, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert pivots(rows.T @ rows).tolist() == qr(rows.numpy(), mode="r", pivoting=True)[1].tolist()


def test_what_adds_nothing_comes_last_by_energy():
    rows = torch.randn(30, 6, dtype=torch.float64)
    rows[:, 1], rows[:, 4], rows[:, 5] = 0, rows[:, 0] / 2, rows[:, 3] / 4
    assert {*pivots(rows.T @ rows).tolist()[:3]} == {0, 2, 3}
    assert pivots(rows.T @ rows).tolist()[-1] == 1
    assert pivots(torch.zeros(3, 3, dtype=torch.float64)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("object_size", [1, 4])
def test_regions_count_alike_however_small(object_size):
    """Rows of each region divided by their norm, stacked, and decomposed by scipy."""
    model = plain_net()
    image, mask = torch.randn(4, 2, 8, 8), torch.zeros(4, 8, 8, dtype=torch.bool)
    mask[:, :object_size, 2 : 2 + object_size] = True
    importance = InterpolativeImportance([(image[:3], None, mask[:3]), (image[3:], None, mask[3:])])
    activation = model[1](model[0](image)).detach().double()
    pooled = F.max_pool2d(activation, 2).movedim(1, -1).flatten(0, 2)
    coverage = F.avg_pool2d(mask.double().unsqueeze(1), 2).flatten()
    regions = [pooled * share.sqrt().unsqueeze(1) for share in (coverage, 1 - coverage)]
    rows = torch.cat([region / region.norm() for region in regions])
    order = importance(group_of(model, "0")).argsort(descending=True).tolist()
    assert order == qr(rows.numpy(), mode="r", pivoting=True)[1].tolist()


def test_samples_stand_for_all_the_cells_of_a_region_and_no_others():
    torch.manual_seed(0)
    x, mask = torch.randn(3, 5, 40, 40).mul(torch.arange(1, 6).view(5, 1, 1)), torch.zeros(3, 1, 40, 40)
    mask[:, :, 3:20, 5:30] = 1
    x = torch.where(mask > 0, x, 100 + x)
    model = nn.Sequential(nn.Conv2d(5, 5, 1), nn.Conv2d(5, 1, 1))
    graph = group_of(model, "0", x)._DG
    found = {}
    for samples in (64, 400, 10**6):
        importance = InterpolativeImportance([(x, None, mask)], samples=samples)
        values = importance.statistics(graph).values[importance.measurement][model[0]]
        found[samples] = [gram.matrix() for gram in values]
    assert found[64][0].trace() < 17 * 25 * 3 * 5 * 30  # never a 100
    for region in range(2):
        exact = found[10**6][region]
        errors = [(found[samples][region] - exact).norm() / exact.norm() for samples in (64, 400)]
        assert errors[0] < 0.3
        assert errors[1] < 0.1


def make_copies(model):
    """Every second filter becomes a copy of the one before; an odd last one stays alone."""
    with torch.no_grad():
        for name, layer in model.layers.items():
            tensors = [*layer.parameters(), *layer.buffers()] if name != "output" else []
            for tensor in tensors:
                if tensor.ndim:
                    rows = tensor.transpose(0, 1) if getattr(layer, "transposed", False) and tensor.ndim > 1 else tensor
                    pairs = len(rows) // 2
                    rows[1 : 2 * pairs : 2] = rows[: 2 * pairs : 2].clone()


@settings(max_examples=40)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    width=st.sampled_from([2, 4, 6]),
    norm=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_half_of_a_network_of_copies_is_the_same_network(blocks, width, norm, seed):
    model = ProgramNet(blocks, width, norm, seed=seed).eval()
    make_copies(model)
    before, channels = model(EXAMPLE + 1), sum(p.numel() for p in model.parameters())
    prune_and_fold(model, InterpolativeImportance(calibration(), ridge=1e-10), pruning_ratio=0.33)
    torch.testing.assert_close(model(EXAMPLE + 1), before, rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in model.parameters()) < channels or width == 2


@pytest.mark.parametrize(
    "reader",
    [
        nn.Conv2d(6, 4, 3, stride=2),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 4)),
        nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ],
    ids=["strided", "grouped", "transposed", "flattened", "depthwise", "pooled"],
)
def test_whoever_reads_a_copy_reads_the_original(reader):
    """Channels 0 and 1 are alike, and 3 and 4; one of each pair is removed."""
    first = nn.Conv2d(2, 6, 3, padding=1)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter[1], parameter[4] = parameter[0], parameter[3]
        for parameter in reader[0].parameters() if isinstance(reader, nn.Sequential) else ():
            if parameter.shape[0] == 6:
                parameter[1], parameter[4] = parameter[0], parameter[3]
    model = nn.Sequential(first, nn.ReLU(), reader)
    image = torch.randn(2, 2, 8, 8)
    before = model(image)
    last = reader[-1] if isinstance(reader, nn.Sequential) else reader
    prune_and_fold(
        model, InterpolativeImportance(calibration(images=12), ridge=1e-10), pruning_ratio=0.3, ignored_layers=[last]
    )
    assert first.out_channels == 4
    torch.testing.assert_close(model(image), before, rtol=1e-3, atol=1e-4)


def test_grouped_transposed_layers_read_from_their_own_group():
    """Channels 0, 1 and 3 are alike; only 1 is read by the filters that read 0. Torch-Pruning cannot prune this."""
    layer, x = nn.ConvTranspose2d(6, 4, 2, groups=2), torch.randn(2, 6, 5, 5)
    x[:, 1] = x[:, 3] = x[:, 0]
    expected, rows = layer(x), x.double().transpose(0, 1).flatten(1)
    removed = torch.tensor([True, False, False, False, False, False])
    fold_by_least_squares(layer, torch.arange(6), rows @ rows.T, removed, ridge=1e-10)
    torch.testing.assert_close(layer(x * ~removed.view(6, 1, 1)), expected)


def test_folding_is_least_squares_with_a_little_ridge():
    """One layer of 1x1 kernels: its outputs after folding are those of the ridge regression on the rows."""
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1, bias=False))
    ((image, target),) = calibration(images=4, batch=4)
    weight = model[2].weight.detach().double().flatten(1)
    activation = model[1](model[0](image)).detach().double().movedim(1, -1).flatten(0, 2)
    inside = (target > 0.5).flatten()
    parts = [activation[inside], activation[~inside]]
    rows = torch.cat([part / part.norm() for part in parts])
    importance = InterpolativeImportance([(image, target)])
    kept = importance(group_of(model, "0")).argsort(descending=True)[:3].sort().values
    ridge = (0.01 * rows[:, kept].square().sum(0).mean()).sqrt() * torch.eye(3)
    gone = [c for c in range(6) if c not in kept]
    targets = torch.cat([rows[:, gone], torch.zeros(3, 3)])
    factors = torch.linalg.lstsq(torch.cat([rows[:, kept], ridge]), targets).solution
    prune_and_fold(model, importance, pruning_ratio=0.5, ignored_layers=[model[2]])
    expected = weight[:, kept] + weight[:, gone] @ factors.T
    torch.testing.assert_close(model[2].weight.detach().double().flatten(1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnext50", "mobilenet_v3_small", "densenet121", "vgg11", "convnext_tiny"])
def test_folds_networks_that_people_prune(name):
    example, model = torch.randn(1, 3, 64, 64), NETWORKS[name]().eval()
    before = model(example)
    loader = [(torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64))]
    prune_and_fold(model, InterpolativeImportance(loader), example)
    assert shapes(model(example)) == shapes(before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def error_after(model, data, fold, **options):
    pruned, images = copy.deepcopy(model), torch.cat([image for image, _ in data])
    importance = InterpolativeImportance(data)
    prune_to(pruned, images[:1], importance, fold=fold, **options)
    return (pruned(images) - model(images)).square().mean().item()


@pytest.mark.parametrize("allocation", ["uniform", "cost"])
def test_prune_to_folds(allocation):
    model, data = ResUNet(4).eval(), calibration(images=8, size=32, channels=1)
    options = {"compression": 2, "allocation": allocation}
    assert error_after(model, data, True, **options) < 0.7 * error_after(model, data, False, **options)


def test_iterative_pruning_takes_new_measurements():
    model = plain_net()
    importance = InterpolativeImportance(calibration())
    pruner = make_pruner(model, importance, ignored_layers=[model[5]], iterative_steps=2)
    for _ in range(2):
        for group in pruner.step(interactive=True):
            importance.fold(group)
            group.prune()
    assert (model[0].out_channels, model[3].out_channels) == (3, 4)
    assert model(EXAMPLE).shape == (1, 1, 4, 4)


def test_scores_are_places_and_global_pruning_removes_one_fraction():
    model = ProgramNet(["convolution", "down_up"], 8)
    scores = InterpolativeImportance(calibration())(group_of(model, "layers.layer0"))
    torch.testing.assert_close(scores.sort().values[:-1], torch.arange(1, 8) / 8, rtol=1e-6, atol=0, check_dtype=False)
    prune_and_fold(model, InterpolativeImportance(calibration()), global_pruning=True)
    widths = [layer.out_channels for layer in model.layers.values() if layer.out_channels != 3]
    assert all(abs(width - 4) <= 1 for width in widths)


def test_nothing_else_is_needed_to_fold_and_to_allocate():
    """What is recommended is the default, and ``fold=False`` and ``allocation="uniform"`` the bare form."""
    model, data = ResUNet(4).eval(), calibration(images=8, size=32, channels=1)
    data = [(inputs, target.mean(1, keepdim=True)) for inputs, target in data]
    kept, weights = [], []
    for options in ({}, {"fold": True, "allocation": "sensitivity"}, {"fold": False, "allocation": "uniform"}):
        pruned = copy.deepcopy(model)
        importance = InterpolativeImportance(data, forward=lambda model, x: model(x).sigmoid())
        prune_to(pruned, data[0][0][:1], importance, compression=2, ignored_layers=[pruned.output], **options)
        kept.append([layer.out_channels for layer in pruned.modules() if isinstance(layer, nn.Conv2d)])
        weights.append(pruned.output.weight)
    assert kept[0] == kept[1] != kept[2]
    assert torch.equal(weights[0], weights[1])


def test_an_importance_in_place_of_its_fold():
    """Importances are callable too, but calling one only scores."""
    model, data = ResUNet(4).eval(), calibration(images=8, size=32, channels=1)
    pruned, options = [], {"compression": 2, "allocation": "cost", "ignored_layers": None}
    for as_object in (True, False):
        network, importance = copy.deepcopy(model), InterpolativeImportance(data)
        options["ignored_layers"] = [network.output]
        prune_to(network, data[0][0][:1], importance, fold=importance if as_object else True, **options)
        pruned.append(network.state_dict())
    assert all(torch.equal(value, pruned[1][name]) for name, value in pruned[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "samples is 0; expected"), ({"ridge": -1}, "ridge is -1; expected a number of at least 0")],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        InterpolativeImportance(calibration(), **options)


def test_only_what_was_scored_is_folded():
    with pytest.raises(ValueError, match="group was not scored by this importance: call fold in the step"):
        InterpolativeImportance(calibration()).fold(group_of(plain_net(), "0"))
