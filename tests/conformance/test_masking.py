"""What the comparison of pruned and masked networks stands on, by hand."""

from math import e as E

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from .masking import compare, marked, mask, relative
from .network import Network
from .norms import CountedNorms

TWO = torch.tensor([[1.0, 3.0]])
FOUR = torch.tensor([[1.0, 3.0, 0.0, 0.0]])  # mean 1, variance (0 + 4 + 1 + 1) / 4 = 1.5


def counted(norm):
    """A norm of ``[1, 3]`` that counts two more channels, which are zero, and whether it noticed."""
    counting = CountedNorms()
    with counting:
        whole = norm(FOUR)
    counting.compare()
    with counting:
        return norm(TWO), counting.changed, whole


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (lambda x: F.layer_norm(x, x.shape[1:], eps=0), [0, 2 / 1.5**0.5]),
        (lambda x: F.group_norm(x[..., None], 1, eps=0)[..., 0], [0, 2 / 1.5**0.5]),
        (lambda x: F.softmax(x, 1), [E / (E + E**3 + 2), E**3 / (E + E**3 + 2)]),
        (lambda x: x / x.mean(1), [1, 3]),
        (lambda x: x / x.var(1, correction=1), [0.5, 1.5]),  # 6 / 3
        (lambda x: x - x.std(1, correction=0), [1 - 1.5**0.5, 3 - 1.5**0.5]),
        (lambda x: (x - 4) - (x - 4).amax(1), [-3, -1]),  # of -3, -1, 0, 0
        (lambda x: x / F.rms_norm(x, x.shape[1:], eps=0)[:, :1], [2.5**0.5, 3 * 2.5**0.5]),  # 10 / 4
    ],
)
def test_norms_count_channels_that_are_gone(norm, expected):
    value, changed, _ = counted(norm)
    assert changed
    torch.testing.assert_close(value, torch.tensor([expected], dtype=torch.float32))


def test_norms_over_as_many_channels_as_before_are_left_alone():
    counting = CountedNorms()
    with counting:
        F.layer_norm(TWO, (2,))
    counting.compare()
    with counting:
        assert torch.equal(F.layer_norm(TWO, (2,)), F.layer_norm(TWO, (2,)))
    assert not counting.changed


def small(*layers):
    return Network("torch", "small", lambda: nn.Sequential(*(make() for make in layers)), (3, 8, 8))


CONVOLUTIONAL = small(
    lambda: nn.Conv2d(3, 8, 3),
    lambda: nn.BatchNorm2d(8),
    nn.ReLU,
    lambda: nn.Conv2d(8, 4, 3),
    lambda: nn.Conv2d(4, 2, 1),
)


def pruned(network, channels):
    model = marked(network)
    graph = tp.DependencyGraph().build_dependency(model, network.inputs().double())
    graph.get_pruning_group(model[0], tp.prune_conv_out_channels, idxs=channels).prune()
    return model


def test_what_was_removed_is_zero_and_nothing_else():
    model, original, before = pruned(CONVOLUTIONAL, [1, 5]), marked(CONVOLUTIONAL), marked(CONVOLUTIONAL)
    mask(original, model)
    for at, axis in ((0, 0), (1, 0), (3, 1)):
        weight, whole = original[at].weight.movedim(axis, 0), before[at].weight.movedim(axis, 0)
        assert (weight[[1, 5]] == 0).all()
        assert torch.equal(weight[[0, 2, 3, 4, 6, 7]], whole[[0, 2, 3, 4, 6, 7]])
    assert torch.equal(original[4].weight, before[4].weight)
    assert torch.equal(original[1].running_var, before[1].running_var)


def test_a_pruned_network_equals_the_masked_one():
    comparison = compare(CONVOLUTIONAL, pruned(CONVOLUTIONAL, [1, 5]))
    assert comparison.equal
    assert comparison.effect > 1e-3
    assert not comparison.norms


def test_wrong_channels_are_noticed():
    model = pruned(CONVOLUTIONAL, [1, 5])
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    model[3].weight = nn.Parameter(model[3].weight[:, order])
    assert not compare(CONVOLUTIONAL, model).equal


def test_a_group_norm_counts_what_is_gone():
    network = small(
        lambda: nn.Conv2d(3, 8, 3), lambda: nn.GroupNorm(1, 8), nn.ReLU, lambda: nn.Conv2d(8, 4, 3)
    )  # one group: its mean is over all channels
    comparison = compare(network, pruned(network, [1, 5]))
    assert comparison.norms
    assert not comparison.equal
    assert comparison.equal_but_for_norms


def test_outputs_of_other_shapes_are_as_far_apart_as_can_be():
    assert relative([torch.ones(2)], [torch.ones(3)]) == float("inf")
