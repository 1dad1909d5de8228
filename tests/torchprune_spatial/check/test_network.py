"""`check_network` names the layers that Torch-Pruning maps wrongly, and no others."""

import copy
import sys

import pytest
import torch
import torch_pruning as tp
import torchvision
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.check.network import check_network

from ..networks import calibration, networks, plain_net
from ..pruning import EXAMPLE, prune


class Middle(nn.Module):
    """A network whose middle brings the 16 channels of ``before`` to ``first`` and ``second``."""

    def __init__(self, middle, widths=(8, 8)):
        super().__init__()
        self.middle = middle
        self.start, self.before = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.first, self.second = (nn.Conv2d(width, 6, 1) for width in widths)
        self.norm, self.last = nn.GroupNorm(2, 16), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        y = self.before(torch.relu(self.start(x)))
        return self.last(torch.relu(self.middle(self, y)))


def swapped(net, y):
    p, q = y.split(8, 1)
    return net.second(q) + net.first(p)


def halves(net, y):
    p, q = y.chunk(2, 1)
    return net.first(p) + net.second(q)


def uneven(net, y):
    p, q = y.split([4, 12], 1)
    return net.first(p) + net.second(q)


def hard_coded_view(net, y):
    return net.first(y.flatten(2).view(len(y), 16, 8, 8))


WRONG = {
    "swapped": (swapped, (8, 8)),
    "halves": (halves, (8, 8)),
    "uneven": (uneven, (4, 12)),
    "slice": (lambda net, y: net.first(y[:, :8]) + net.second(y), (8, 16)),
    "pixel shuffle": (lambda net, y: net.first(F.pixel_shuffle(y, 2)), (4, 4)),
    "view": (hard_coded_view, (16, 16)),
}


def glu(net, y):
    p, q = y.chunk(2, 1)
    return net.first(p * torch.sigmoid(q))


RIGHT = {
    "gated linear unit": (glu, (8, 8)),
    "constant": (lambda net, y: net.first(torch.sigmoid(y) + 1), (16, 16)),
    "concatenated twice": (lambda net, y: net.first(torch.cat([y, y], 1)), (32, 32)),
    "group norm": (lambda net, y: net.first(torch.relu(net.norm(F.max_pool2d(y, 4)))), (16, 16)),
    "squeezed": (lambda net, y: net.first(y * torch.sigmoid(y.mean((2, 3), keepdim=True))), (16, 16)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_names_the_layer_whose_channels_are_mapped_wrongly(kind):
    model = Middle(*WRONG[kind])
    check = check_network(model, EXAMPLE, graph="torch-pruning")
    assert not check.ok
    assert [problem.layers for problem in check.problems] == [("before",)]
    assert check.outputs == ["last"]
    assert check.ignored_layers == [model.before, model.last]
    assert "'before': " in str(check)
    assert "ignored_layers" in str(check)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("ours", [True, False])
def test_a_network_with_the_named_layers_ignored_is_pruned(kind, ours):
    model = Middle(*WRONG[kind])
    importance = SpatialMaskImportance(calibration()) if ours else tp.importance.GroupMagnitudeImportance()
    prune(model, importance, ignored_layers=check_network(model, EXAMPLE, graph="torch-pruning").ignored_layers)
    assert (model.start.out_channels, model.before.out_channels, model.first.out_channels) == (4, 16, 3)
    assert model(EXAMPLE).shape == (1, 1, *model(EXAMPLE).shape[2:])


@pytest.mark.parametrize("kind", WRONG)
def test_layers_that_are_ignored_already_are_not_examined(kind):
    model = Middle(*WRONG[kind])
    assert check_network(model, EXAMPLE, ignored_layers=[model.before], graph="torch-pruning").ok


@pytest.mark.parametrize("kind", RIGHT)
def test_no_false_alarm_on_a_small_network(kind):
    check = check_network(Middle(*RIGHT[kind]), EXAMPLE, graph="torch-pruning")
    assert check.ok, check
    assert str(check) == "No problem found.\nOutputs of the network, to be ignored: 'last'."


class TwoPaths(nn.Module):
    """Two paths, weighted against each other by gates ``[batch, path, channel]`` that one layer produces."""

    def __init__(self):
        super().__init__()
        self.paths = nn.ModuleList(nn.Conv2d(2, 8, 3, padding=1) for _ in range(2))
        self.gates, self.last = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        x = torch.stack([path(x) for path in self.paths], 1)
        gates = self.gates(x.sum(1).mean((2, 3), keepdim=True)).view(len(x), 2, 8, 1, 1).softmax(1)
        return self.last((x * gates).sum(1))


def test_sees_that_a_gate_belongs_to_another_channel():
    """Torch-Pruning takes gates 2 c and 2 c + 1 for those of channel c; they are c and c + 8."""
    check = check_network(TwoPaths(), EXAMPLE, graph="torch-pruning")
    assert {name for problem in check.problems for name in problem.layers} == {"paths.0", "paths.1", "gates"}


class Positions(nn.Module):
    """Adds a learned image of which the channels are not the last dimension, as Torch-Pruning supposes."""

    def __init__(self):
        super().__init__()
        self.first, self.positions = nn.Conv2d(2, 16, 1), nn.Parameter(torch.randn(1, 16, 8, 8))
        self.last = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x) + self.positions))


def test_parameters_whose_dimension_torch_pruning_guesses_wrongly():
    model = Positions()
    check = check_network(model, EXAMPLE, graph="torch-pruning")
    assert [problem.layers for problem in check.problems] == [("first",)]
    assert "unwrapped_parameters" in str(check)
    assert check_network(model, EXAMPLE, unwrapped_parameters=[(model.positions, 1)], graph="torch-pruning").ok


@settings(max_examples=25)
@given(model=networks)
def test_no_false_alarm_on_random_networks(model):
    check = check_network(model, EXAMPLE, graph="torch-pruning")
    assert check.ok, check
    assert check.outputs == ["layers.output"]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_no_false_alarm_on_torchvision(name):
    check = check_network(
        torchvision.models.get_model(name, weights=None), torch.randn(1, 3, 64, 64), channels=1, graph="torch-pruning"
    )
    assert check.ok, check


@pytest.mark.parametrize("activation", [nn.PReLU(16), nn.PReLU()], ids=["a slope a channel", "one slope"])
def test_activations_that_have_channels(activation):
    """Those of ``nn.PReLU`` are the second dimension, of 16, and not the last, of 8."""
    model = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), activation, nn.Conv2d(16, 1, 1))
    assert check_network(model, EXAMPLE, graph="torch-pruning").ok


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_runs_over_the_groups_where_stderr_is_a_terminal(monkeypatch, capsys, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    check_network(plain_net(), EXAMPLE, progress=shown, graph="torch-pruning")
    assert ("checking groups of layers" in capsys.readouterr().err) == shown


def test_there_is_no_bar_where_stderr_is_no_terminal(capsys):
    check_network(plain_net(), EXAMPLE, graph="torch-pruning")
    assert capsys.readouterr().err == ""


def test_what_torch_pruning_cannot_follow_is_told_in_its_words(monkeypatch):
    def fail(*arguments):
        raise IndexError("list index out of range")

    monkeypatch.setattr(tp.dependency.index_mapping, "update_concat_index_mapping", fail)
    model = Middle(lambda net, y: net.first(torch.cat([y, y], 1)), (32, 32))
    check = check_network(model, EXAMPLE, graph="torch-pruning")
    assert not check.ok
    assert "IndexError: list index out of range" in str(check)
    assert check.problems[0].layers == ("before",)


def test_a_network_that_cannot_be_copied_is_refused_with_a_sentence():
    model = plain_net()
    model.last_output = model(EXAMPLE)  # with its graph, which cannot be copied
    with pytest.raises(ValueError, match=r"Sequential cannot be copied .* check it before it first runs"):
        check_network(model, EXAMPLE, graph="torch-pruning")


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails):
    model = plain_net().train()
    model[0].weight.requires_grad_(False)
    model[3].eval()
    before = copy.deepcopy(model)
    random = torch.random.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            check_network(model, EXAMPLE, forward_fn=Fails(), graph="torch-pruning")
    else:
        check_network(model, EXAMPLE, graph="torch-pruning")
    assert torch.equal(torch.random.get_rng_state(), random)
    for (name, module), old in zip(model.named_modules(), before.modules(), strict=True):
        assert module.training == old.training, name
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for parameter, old in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, old)
        assert parameter.requires_grad == old.requires_grad
        assert parameter.grad is None


class Fails:
    """Runs the network twice, for Torch-Pruning and for the outputs, and then no more."""

    calls = 0

    def __call__(self, model, inputs):
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError("no more")
        return model(inputs)
