"""The masked run is the unpruned network with averages over the channels that are left, and equals the pruned one."""

import math
import statistics

import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.graph.channel_graph import ChannelGraph
from torchprune_spatial.graph.labels.rules import RULES


class Between(nn.Module):
    """Two linear layers, and something between them."""

    def __init__(self, between, width=6):
        super().__init__()
        self.between = between
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def graph_of(model, inputs):
    return ChannelGraph().build_dependency(model, inputs)


def prune_at_random(graph, share=0.3):
    """Remove part of each group, in order of nothing."""
    for group in list(graph.get_all_groups()):
        root, handler = group[0].dep.target.module, group[0].dep.handler
        blocks = torch.arange(len(group[0].idxs)).chunk(graph.out_channel_groups.get(root, 1))
        idxs = [i for b in blocks for i in b[torch.randperm(len(b))[: max(1, int(len(b) * share))]].tolist()]
        part = graph.get_pruning_group(root, handler, sorted(idxs))
        if graph.check_pruning_group(part):
            part.prune()


def randomise(model):
    """Neither zeros nor ones as initial values."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1 or not parameter.any():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval().double()


def normed(row, mean, variance, eps=1e-5):
    return [(value - mean) / math.sqrt(variance + eps) for value in row]


def layer_norm(row):
    return normed(row, statistics.fmean(row), statistics.pvariance(row))


def softmax(row):
    return [math.exp(value) / sum(map(math.exp, row)) for value in row]


BETWEEN = {
    "layer norm": (lambda y: F.layer_norm(y, (y.shape[-1],)), layer_norm),
    "rms norm": (
        lambda y: F.rms_norm(y, (y.shape[-1],), eps=1e-5),
        lambda row: normed(row, 0, sum(value**2 for value in row) / len(row)),
    ),
    "instance norm": (
        lambda y: F.instance_norm(y.reshape(len(y), 2, -1)).flatten(1),
        lambda row: layer_norm(row[: len(row) // 2]) + layer_norm(row[len(row) // 2 :]),
    ),
    "softmax": (lambda y: y.softmax(-1), softmax),
    "log softmax": (lambda y: y.log_softmax(-1), lambda row: [math.log(value) for value in softmax(row)]),
    "logsumexp": (
        lambda y: y - y.logsumexp(-1, keepdim=True),
        lambda row: [math.log(value) for value in softmax(row)],
    ),
    "mean": (lambda y: y - y.mean(-1, keepdim=True), lambda row: [value - statistics.fmean(row) for value in row]),
    "sum": (lambda y: y.sigmoid() / y.sigmoid().sum(1)[:, None], lambda row: shares([sigmoid(v) for v in row])),
    "var": (lambda y: y * y.var(1, keepdim=True), lambda row: [value * statistics.variance(row) for value in row]),
    "std": (
        lambda y: y * y.std(1, keepdim=True, correction=0),
        lambda row: [value * statistics.pstdev(row) for value in row],
    ),
    "var_mean": (
        lambda y: y * torch.var_mean(y, 1, keepdim=True)[0] + torch.var_mean(y, 1, keepdim=True)[1],
        lambda row: [value * statistics.variance(row) + statistics.fmean(row) for value in row],
    ),
    "max": (lambda y: y - y.exp().max(1, keepdim=True)[0], lambda row: [v - max(map(math.exp, row)) for v in row]),
    "amax": (lambda y: y - y.exp().neg().amax(1, True), lambda row: [v + min(map(math.exp, row)) for v in row]),
    "amin": (lambda y: y - y.exp().amin(1, True), lambda row: [v - min(map(math.exp, row)) for v in row]),
    "prod": (lambda y: y * y.prod(1, keepdim=True), lambda row: [value * math.prod(row) for value in row]),
    "maximum": (lambda y: torch.max(y, y.tanh() + 1), lambda row: [max(v, math.tanh(v) + 1) for v in row]),
    "norm": (lambda y: F.normalize(y), lambda row: [value / math.hypot(*row) for value in row]),
}


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def shares(row):
    return [value / sum(row) for value in row]


@pytest.mark.parametrize("name", BETWEEN)
def test_averages_leave_the_removed_channels_out(name):
    between, by_hand = BETWEEN[name]
    torch.manual_seed(1)
    net, x = Between(between).double(), torch.randn(4, 3, dtype=torch.float64)
    first, second = [[w.clone() for w in layer.parameters()] for layer in (net.first, net.second)]
    graph = graph_of(net, x)
    before, kept = MaskedRun(graph), [0, 2, 4, 5]
    group = next(iter(graph.get_all_groups()))
    graph.get_pruning_group(group[0].dep.target.module, group[0].dep.handler, [1, 3]).prune()
    rows = [by_hand(row) for row in F.linear(x, *first)[:, kept].tolist()]
    expected = F.linear(torch.tensor(rows, dtype=torch.float64), second[0][:, kept], second[1])
    (found,) = before.outputs(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert before.difference(x) < 1e-12


def test_group_norm_by_hand():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 1, 1)).double()
    net[1].weight.data.normal_()
    net[1].bias.data.normal_()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    y, (weight, bias, last) = net[0](x), [p.clone() for p in (net[1].weight, net[1].bias, net[2].weight)]
    graph = graph_of(net, x)
    before, kept = MaskedRun(graph), [[0, 1, 3], [4, 6, 7]]
    group = next(iter(graph.get_all_groups()))
    graph.get_pruning_group(group[0].dep.target.module, group[0].dep.handler, [2, 5]).prune()
    expected = torch.zeros(2, 1, 4, 4, dtype=torch.float64) + net[2].bias
    for image in range(2):
        for channels in kept:
            values = y[image, channels].flatten().tolist()
            mean, scale = statistics.fmean(values), math.sqrt(statistics.pvariance(values) + 1e-5)
            for c in channels:
                expected[image, 0] += last[0, c, 0, 0] * ((y[image, c] - mean) / scale * weight[c] + bias[c])
    torch.testing.assert_close(before.outputs(x)[0], expected, rtol=1e-12, atol=1e-12)
    assert before.difference(x) < 1e-12


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`")
def test_weights_that_are_computed():
    torch.manual_seed(6)
    net = nn.Sequential(nn.Linear(3, 8), nn.utils.weight_norm(nn.Linear(8, 6)), nn.Linear(6, 2)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    prune_at_random(graph)
    assert net[1].weight_v.shape == (5, 6)
    assert before.difference(x) < 1e-12


def unet():
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    return model, lambda: (torch.rand(2, 3, 16, 16).double(), torch.tensor([3, 5]))


def swin():
    model = torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5)
    return model, lambda: torch.rand(2, 3, 32, 32).double()


def vit():
    timm = pytest.importorskip("timm")
    model = timm.models.VisionTransformer(32, 8, embed_dim=24, depth=2, num_heads=3, num_classes=5, qk_norm=True)
    return model, lambda: torch.rand(2, 3, 32, 32).double()


@pytest.mark.parametrize("make", [swin, vit, unet])
def test_equals_the_pruned_network(make):
    torch.manual_seed(3)
    model, inputs = make()
    model = randomise(model)
    graph = graph_of(model, inputs())
    before, parameters = MaskedRun(graph), sum(p.numel() for p in model.parameters())
    prune_at_random(graph)
    assert before.difference(inputs()) < 1e-9
    halfway = MaskedRun(graph)
    prune_at_random(graph)
    assert halfway.difference(inputs()) < 1e-9
    assert before.difference(inputs()) < 1e-9
    assert sum(p.numel() for p in model.parameters()) < 0.5 * parameters


class Attention(nn.Module):
    """Self-attention with a temperature as the subclass computes it."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.start, self.qkv, self.last = nn.Linear(4, 12), nn.Linear(12, 36), nn.Linear(12, 3)

    def forward(self, x):
        q, k, v = self.qkv(torch.relu(self.start(x))).chunk(3, -1)
        return self.last(self.attend(q, k) @ v)


def scaled_by_integer(q, k):
    return (q @ k.mT * int(q.shape[-1]) ** -0.5).softmax(-1)


def scaled_twice(q, k):
    scale = q.shape[-1] ** -0.5
    return ((q * scale) @ k.mT).softmax(-1) - ((k * scale) @ q.mT).softmax(-1)


def scaled_and_not(q, k):
    return (q * q.shape[-1] ** -0.5 @ k.mT + q.sum(-1, keepdim=True)).softmax(-2)


def scaled_where_no_weight_can_make_up(q, k):
    scale = int(q.shape[-1]) ** -0.5
    return (torch.tanh(q @ k.mT) * scale).softmax(-1)


ATTENDING = [scaled_by_integer, scaled_twice, scaled_and_not, scaled_where_no_weight_can_make_up]


@pytest.mark.parametrize("attend", ATTENDING)
def test_attention_keeps_its_temperature(attend):
    torch.manual_seed(4)
    net, x = Attention(attend).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    prune_at_random(graph)
    assert net.qkv.in_features < 12
    assert before.difference(x) < 1e-12


class Twice(nn.Module):
    """The same attention twice, without weights for its outputs, and a projection whose bias has another name."""

    def __init__(self):
        super().__init__()
        self.start, self.q, self.k, self.v = (nn.Linear(size, 12, bias=False) for size in (4, 12, 12, 12))
        self.q_bias, self.out, self.last = nn.Parameter(torch.randn(12)), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = self.start(x)
        for _ in range(2):
            q = F.linear(x.mT.contiguous().mT, self.q.weight, self.q_bias)  # PyTorch multiplies first, then adds
            x = x + self.out(F.scaled_dot_product_attention(q, self.k(x), self.v(x)))
        return self.last(x)


def test_attention_that_is_called_twice_keeps_its_temperature():
    torch.manual_seed(5)
    net, x = Twice().double(), torch.randn(2, 5, 4, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    prune_at_random(graph)
    assert net.q.out_features < 12
    assert before.difference(x) < 1e-12


def test_shows_what_is_wrong_with_a_pruned_network():
    net, x = Between(lambda y: torch.relu(y)).double(), torch.randn(4, 3, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    graph.get_pruning_group(net.first, tp.prune_linear_out_channels, [1]).prune()
    assert before.difference(x) == 0
    net.first.weight.data = net.first.weight[[1, 0, 2, 3, 4]]
    assert before.difference(x) > 0.01
    net.second = nn.Linear(5, 3).double()
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 2\)"):
        before.difference(x)


def test_shows_a_wrong_rule(monkeypatch):
    def stay(following, call):
        following.set(call.output, following.get(call.inputs[0]))

    monkeypatch.setitem(RULES, "flip", stay)
    net, x = Between(lambda y: y.flip(1)).double(), torch.randn(4, 3, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    graph.get_pruning_group(net.first, tp.prune_linear_out_channels, [1]).prune()
    assert before.difference(x) > 0.01


def test_frozen_channels_cannot_have_been_removed():
    net, x = Between(lambda y: torch.relu(y)).double(), torch.randn(4, 3, dtype=torch.float64)
    graph = graph_of(net, x)
    before = MaskedRun(graph)
    graph.channels.removed[graph.channels.axes["second.weight", 0]] = True
    with pytest.raises(ValueError, match="made before pruning"):
        before.outputs(x)


def test_leaves_networks_and_inputs_as_they_are():
    net, x = Between(lambda y: y.relu_()).double(), torch.randn(4, 3, dtype=torch.float64)
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].mul_(2),))
    graph = graph_of(net, x)
    before, values, given = MaskedRun(graph), [p.clone() for p in net.parameters()], x.clone()
    before.outputs(x)
    torch.testing.assert_close(x, given, rtol=0, atol=0)
    assert all(torch.equal(p, value) for p, value in zip(net.parameters(), values, strict=True))
    graph.get_pruning_group(net.first, tp.prune_linear_out_channels, [1]).prune()
    assert before.difference(x) == 0
    torch.testing.assert_close(x, given, rtol=0, atol=0)


class Keeping(nn.Module):
    """Keeps what it has computed."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.kept = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1), {}

    def forward(self, x):
        y = self.first(x)
        self.kept["list"] = [y]
        return self.second(y)


def masked_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1))
    prune.random_unstructured(model[0], "weight", 0.3)
    prune.l1_unstructured(model[2], "bias", 0.3)
    return model


def weight_normed():
    norm = nn.utils.weight_norm
    return nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 6, 3)), nn.ReLU(), nn.Conv2d(6, 3, 1))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("make", [Keeping, masked_network, weight_normed])
def test_networks_that_hold_tensors_computed_from_others(make):
    model, images = make().double(), torch.rand(2, 3, 12, 12, dtype=torch.float64)
    model(images)
    graph = graph_of(model, images)
    before = MaskedRun(graph)
    prune_at_random(graph)
    assert sum(parameter.numel() for parameter in model.parameters()) < sum(p.numel() for p in make().parameters())
    assert before.difference(images) < 1e-12
