import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from recipes.criterion_study.criteria import CANDIDATES, studied
from recipes.experiments.criteria import OF_TORCH_PRUNING
from recipes.networks.unet import ResUNet
from torchprune_spatial import prune_to


class Chain(nn.Module):
    """Two convolutions; the second reads what the criteria are about."""

    def __init__(self, channels=6):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


@pytest.fixture
def case():
    torch.manual_seed(0)
    network = Chain().eval()
    masks = torch.zeros(5, 1, 8, 8)
    masks[:, :, 2:5, 1:4] = 1
    inputs, targets = torch.randn(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    batches = [(inputs[:3], targets[:3], masks[:3]), (inputs[3:], targets[3:], masks[3:])]
    return network, batches


def scores_of(name, network, batches):
    graph = tp.DependencyGraph().build_dependency(network, batches[0][0][:1])
    group = graph.get_pruning_group(network.first, tp.prune_conv_out_channels, list(range(6)))
    return studied()[name](network, batches)(group)


def cells(network, batches):
    """Activations ``[images, channels, cells]`` and object masks ``[images, cells]``."""
    inputs, _, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return F.relu(network.first(inputs)).flatten(2).detach().double(), masks.flatten(1).bool()


def of_regions(network, batches, statistic):
    """``[2, channels]`` of a statistic of ``[values]``, by plain loops."""
    activations, masks = cells(network, batches)
    return torch.stack(
        [torch.stack([statistic(activations[:, c][region]) for c in range(6)]) for region in (masks, ~masks)]
    )


def union_order(values):
    """Channels by the larger of their ranks in the regions, then by the sum of their ranks, then by the object's."""
    ranks = [sorted(range(6), key=row.tolist().__getitem__) for row in values]
    places = [[r.index(c) for r in ranks] for c in range(6)]
    return sorted(range(6), key=lambda c: (max(places[c]), sum(places[c]), places[c][0]))


def test_contrast_and_spread(case):
    means = of_regions(*case, torch.mean)
    assert scores_of("contrast", *case).argsort().tolist() == (means[0] - means[1]).abs().argsort().tolist()
    deviations = of_regions(*case, lambda values: values.std(correction=0))
    assert scores_of("spread", *case).argsort().tolist() == union_order(deviations)


def test_image_ranks(case):
    activations, masks = cells(*case)
    total = torch.zeros(2, 6)
    for image, mask in zip(activations, masks, strict=True):
        for row, region in zip(total, (mask, ~mask), strict=True):
            means = [image[c][region].mean().item() for c in range(6)]
            row += torch.tensor([sorted(means).index(mean) for mean in means])
    scores, better = scores_of("image_ranks", *case), union_order(total)
    assert int(scores.argmax()) == better[-1]
    assert total[:, scores.argmin()].max() == total.amax(0).min()


def test_contribution_is_energy_times_that_of_the_kernels(case):
    kernels = case[0].second.weight.detach().double().square().sum((0, 2, 3))
    energies = of_regions(*case, lambda values: values.square().mean()) * kernels
    assert scores_of("contribution", *case).argsort().tolist() == union_order(energies)


def test_masked_thinet_explains_a_linear_reader(case):
    """With 1x1 kernels the products are exact: the first channel is that which best fits the balanced outputs."""
    network, batches = case
    network.second = nn.Conv2d(6, 1, 1)
    activations, masks = cells(network, batches)
    contributions = activations * network.second.weight.detach().double()[0].flatten(1)
    rows = []
    for region in (masks, ~masks):
        columns = contributions.movedim(1, 2)[region]
        rows.append(columns / columns.norm())
    x = torch.cat(rows)
    y = x.sum(1)
    gains = [(x[:, c] @ y).square() / x[:, c].square().sum().clamp_min(1e-30) for c in range(6)]
    assert int(scores_of("masked_thinet", network, batches).argmax()) == int(torch.stack(gains).argmax())


@pytest.mark.parametrize("split", [False, True])
def test_taylor_of_regions(case, split):
    network, batches = case
    total = torch.zeros(2, 6, dtype=torch.float64)
    for inputs, targets, masks in batches:
        for image, target, mask in zip(inputs, targets, masks, strict=True):
            for row, region in zip(total, (mask.bool(), ~mask.bool()), strict=True):
                activation = F.relu(network.first(image[None]))
                activation.retain_grad()
                losses = F.binary_cross_entropy_with_logits(network.second(activation)[0], target, reduction="none")
                (losses[region].mean() if split else losses.mean()).backward()
                terms = (activation * activation.grad)[0].detach()
                row += (terms if split else terms * region).sum((1, 2)).abs().double()
    scores = scores_of("split_taylor" if split else "region_taylor", network, batches)
    assert scores.argsort().tolist() == union_order(total)


def test_hessian_takes_every_image(case):
    network, batches = case
    importance = OF_TORCH_PRUNING["hessian"](network, batches)
    inputs, targets, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = torch.zeros_like(network.first.weight)
    for image, target in zip(inputs, targets, strict=True):
        loss = F.binary_cross_entropy_with_logits(network(image[None]), target[None])
        expected += torch.autograd.grad(loss, network.first.weight)[0].square()
    torch.testing.assert_close(network.first.weight.grad, expected)
    assert importance is not None


@pytest.mark.parametrize("name", ["hessian", "fpgm", "group_norm", "bn_scale", *CANDIDATES])
def test_prunes_a_network_with_skips(name):
    torch.manual_seed(0)
    network, inputs = ResUNet(4, norms=name == "bn_scale").eval(), torch.randn(2, 1, 16, 16)
    targets = (torch.rand(2, 1, 16, 16) > 0.5).float()
    importance = studied()[name](network, [(inputs, targets, targets)])
    record = prune_to(
        network, (inputs[:1],), importance, compression=4, allocation="cost", ignored_layers=[network.output]
    )
    assert record.compression == pytest.approx(4, rel=0.1)
    assert network(inputs).shape == inputs.shape
