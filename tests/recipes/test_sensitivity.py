import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from recipes.sensitivity import SMALL, SensitivityImportance
from recipes.unet import ResUNet
from torchprune_spatial import SpatialMaskImportance, prune_to


class Chain(nn.Module):
    """Eight channels, of which each adds less to the output than the one before, and a pointwise reader."""

    def __init__(self):
        super().__init__()
        self.first, self.output = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.output.weight.data = 0.3 * 0.5 ** torch.arange(8.0).view(1, 8, 1, 1)

    def forward(self, x):
        return self.output(F.relu(self.first(x)))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    masks = torch.zeros(5, 1, 8, 8)
    masks[:, :, 2:5, 1:4] = 1
    inputs = torch.randn(5, 1, 8, 8)
    return [(inputs[:3], inputs[:3], masks[:3]), (inputs[3:], inputs[3:], masks[3:])]


def first_best(group):
    return torch.arange(len(group[0].idxs), 0, -1).double()


def group_of(network, channels):
    graph = tp.DependencyGraph().build_dependency(network, torch.randn(1, 1, 8, 8))
    return graph.get_pruning_group(network.first, tp.prune_conv_out_channels, channels)


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_the_best_have_the_share_that_their_error_says(kept, batches):
    """The error as of a network that is really pruned, region by region."""
    network = Chain().eval()
    pruned = copy.deepcopy(network)
    group_of(pruned, list(range(kept, 8))).prune()
    inputs, _, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    squares = (pruned(inputs).sigmoid() - network(inputs).sigmoid()).square().detach()
    error = squares[masks.bool()].mean() + squares[~masks.bool()].mean()
    scores = SensitivityImportance(network, batches, first_best, [network.output])(group_of(network, list(range(8))))
    assert scores.sum().item() == pytest.approx(1)
    assert 1 / scores[:kept].sum().item() - 1 == pytest.approx(SMALL * error.item(), rel=1e-4)
    assert (scores.diff() <= 0).all()


def test_what_folding_makes_up_for_is_no_error(batches):
    """Channels 4 to 7 are copies of 0 to 3: nothing is lost with them if they are folded, and much if not."""
    network = Chain().eval()
    with torch.no_grad():
        network.output.weight.fill_(0.2)
        for parameter in network.first.parameters():
            parameter[4:] = parameter[:4]
    folding = SpatialMaskImportance(batches, selection="interpolative")

    def order(group):
        folding(group)
        return first_best(group)

    plain = SensitivityImportance(network, batches, first_best, [network.output])(group_of(network, list(range(8))))
    folded = SensitivityImportance(network, batches, order, [network.output], folding.fold)
    folded = folded(group_of(network, list(range(8))))
    assert folded[4:].sum() < 0.05 * plain[4:].sum()


@pytest.mark.parametrize("folds", [False, True])
def test_the_network_is_left_as_it_was_and_the_budget_is_met(folds):
    torch.manual_seed(0)
    network, inputs = ResUNet(4).eval(), torch.randn(2, 1, 16, 16)
    batches = [(inputs, inputs, (torch.rand(2, 1, 16, 16) > 0.5).float())]
    before = copy.deepcopy(network.state_dict())
    ranking = SpatialMaskImportance(batches, selection="interpolative")
    fold = ranking.fold if folds else None
    importance = SensitivityImportance(network, batches, ranking, [network.output], fold)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())
    record = prune_to(
        network,
        (inputs[:1],),
        importance,
        compression=4,
        allocation="cost",
        ignored_layers=[network.output],
        before_removal=fold,
    )
    assert record.compression == pytest.approx(4, rel=0.1)
    assert network(inputs).shape == inputs.shape
