"""Residual additions with branches pruned apart: on random networks, the recipe's U-Net and torchvision's ResNets."""

import copy
import functools
import io
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.residuals.channel_scatter import (
    CUSTOMIZED_PRUNERS,
    ChannelScatter,
    dead_channel_groups,
    remove_dead_channels,
)
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from ..networks import BLOCKS, ProgramNet, calibration

PRUNER = CUSTOMIZED_PRUNERS[ChannelScatter]


def build(name):
    """A network with lively norms, in eval mode, and an input for it."""
    torch.manual_seed(0)
    return copy.deepcopy(built(name))


@functools.cache
def built(name):
    if name == "unet":
        return ResUNet(4).eval(), torch.rand(2, 1, 16, 16)
    model, image = getattr(torchvision.models, name)(num_classes=5), torch.randn(2, 3, 48, 48)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = None
    model(torch.randn(4, 3, 48, 48))
    return model.eval(), image


def scatters(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, ChannelScatter)}


def make_pruner(model, image, importance, **options):
    options.setdefault("pruning_ratio", 0.6)
    return tp.pruner.BasePruner(model, image, importance, customized_pruners=CUSTOMIZED_PRUNERS, **options)


class Tally:
    """Prunes groups and keeps count of the filters and norm channels of the original that are left."""

    PRODUCERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)

    def __init__(self, pruner):
        self.graph = pruner.DG
        self.kept, self.names = {}, {}
        for name, module in pruner.model.named_modules():
            if isinstance(module, self.PRODUCERS):
                self.names[module], self.kept[name] = name, list(range(channels_of(module)))

    def prune(self, groups):
        for group in groups:
            for dep, idxs in group:
                if dep.target.module in self.names and self.graph.is_out_channel_pruning_fn(dep.handler):
                    name = self.names[dep.target.module]
                    self.kept[name] = [c for i, c in enumerate(self.kept[name]) if i not in idxs]
            group.prune()

    def masked(self, original):
        """The original with the other filters and norm channels at zero."""
        masked = copy.deepcopy(original)
        for name, kept in self.kept.items():
            module = masked.get_submodule(name)
            removed = [c for c in range(channels_of(module)) if c not in kept]
            with torch.no_grad():
                weight = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
                weight[removed] = 0
                if module.bias is not None:
                    module.bias[removed] = 0
        return masked


def channels_of(module):
    return module.num_features if isinstance(module, nn.BatchNorm2d) else module.out_channels


def step(pruner, tally):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(outputs of the network|reads these channels).*")
        tally.prune(pruner.step(interactive=True))


# --- the layer ---


def mixed_add_in_loops(a, kept_a, b, kept_b):
    """The mixed addition of two branches whose channels are numbered by ``kept_a`` and ``kept_b``, cell by cell."""
    union = sorted({*kept_a, *kept_b})
    result = torch.zeros(a.shape[0], len(union), *a.shape[2:], dtype=a.dtype)
    for image in range(a.shape[0]):
        for place, channel in enumerate(union):
            for x, kept in ((a, kept_a), (b, kept_b)):
                if channel in kept:
                    result[image, place] += x[image, kept.index(channel)]
    return result


kept_channels = st.sets(st.integers(0, 6), min_size=1).map(sorted)


def pruned_scatter(kept, union, channels=7):
    scatter = ChannelScatter(channels)
    PRUNER(scatter, [c for c in range(channels) if c not in kept], to_output=False)
    PRUNER(scatter, [c for c in range(channels) if c not in union], to_output=True)
    return scatter


@given(
    kept_channels, kept_channels, st.sampled_from([(), (3,), (2, 3)]), st.sampled_from([torch.float, torch.bfloat16])
)
def test_addition_equals_the_one_in_loops(kept_a, kept_b, size, dtype):
    union = {*kept_a, *kept_b}
    a, b = torch.randn(2, len(kept_a), *size).to(dtype), torch.randn(2, len(kept_b), *size).to(dtype)
    result = pruned_scatter(kept_a, union)(a) + pruned_scatter(kept_b, union)(b)
    assert torch.equal(result, mixed_add_in_loops(a, kept_a, b, kept_b))


def test_outputs_that_are_fed_cannot_be_removed():
    scatter = pruned_scatter([1, 4], {0, 1, 4})  # places 1 and 2 of 3
    with pytest.raises(ValueError, match=re.escape("idxs holds [2], which input channels feed")):
        PRUNER.prune_out_channels(scatter, [0, 2])
    assert (scatter.index.tolist(), scatter.in_channels, scatter.out_channels) == ([1, 2], 2, 3)


def test_identity_is_known_after_loading():
    """Two inputs in two places are the identity, in three they need not be: the same shape of state_dict."""
    saved, restored = pruned_scatter([0, 2], {0, 1, 2}), pruned_scatter([0, 1], {0, 1})
    with pytest.raises(
        RuntimeError, match=re.escape("index is [0, 2]; expected ascending numbers below out_channels=2")
    ):
        restored.load_state_dict(saved.state_dict())
    restored.out_channels = saved.out_channels
    restored.load_state_dict(saved.state_dict())
    x = torch.randn(2, 2, 4)
    assert torch.equal(restored(x), torch.stack([x[:, 0], torch.zeros(2, 4), x[:, 1]], 1))


def test_channels_last_and_autocast():
    x = torch.randn(2, 2, 4, 4).to(memory_format=torch.channels_last)
    scatter = pruned_scatter([1, 4], {1, 3, 4})
    with torch.autocast("cpu", torch.bfloat16):
        y = scatter(nn.Conv2d(2, 2, 1)(x))
    assert y.shape == (2, 3, 4, 4)
    assert y.dtype == torch.bfloat16


# --- whole networks ---


@pytest.mark.parametrize(("name", "adds"), [("unet", 3), ("resnet18", 8), ("resnet50", 16), ("mobilenet_v2", 10)])
def test_nothing_changes_before_pruning(name, adds):
    model, image = build(name)
    model.train()
    for module in list(model.modules())[::3]:
        module.training = False
    state = copy.deepcopy(model.state_dict())
    decoupled = decouple_residuals(model, image)
    assert len(scatters(decoupled)) == 2 * adds
    modules = dict(decoupled.named_modules())
    for path, module in model.named_modules():
        assert modules[path].training == module.training
        assert not path or type(modules[path]) is type(module)
    for other in (model.state_dict(), decoupled.state_dict()):
        assert all(torch.equal(other[key], value) for key, value in state.items())
    assert all("scatter" in key for key in decoupled.state_dict().keys() - state.keys())
    model.eval(), decoupled.eval()
    with torch.no_grad():
        assert torch.equal(decoupled(image), model(image))


IMPORTANCES = {
    "random": lambda image: tp.importance.RandomImportance(),
    "magnitude": lambda image: tp.importance.GroupMagnitudeImportance(),
    "spatial": lambda image: SpatialMaskImportance([(image, (image[:, :1] > image.mean()).float())]),
}

SCOPES = {"local": {}, "global": {"global_pruning": True, "max_pruning_ratio": 0.9}}


@pytest.mark.parametrize(
    ("name", "importance", "scope"),
    [
        *(("unet", importance, scope) for importance in IMPORTANCES for scope in SCOPES),
        *(("resnet18", "spatial", "local"), ("resnet18", "random", "global"), ("resnet18", "magnitude", "global")),
        *(("resnet50", "random", "local"), ("resnet50", "spatial", "global")),
    ],
)
def test_pruned_equals_masked(name, importance, scope):
    model, image = build(name)
    model = decouple_residuals(model, image)
    output = model.output if name == "unet" else model.fc
    options = {"iterative_steps": 2, "ignored_layers": [output], **SCOPES[scope]}
    original, pruner = copy.deepcopy(model), make_pruner(model, image, IMPORTANCES[importance](image), **options)
    tally = Tally(pruner)
    for _ in range(2):
        step(pruner, tally)
        tally.prune(dead_channel_groups(pruner.DG))
        with torch.no_grad():
            result, expected = model(image), tally.masked(original)(image)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    layers = dict(model.named_modules())
    if name == "unet":
        for i, (up, skip) in enumerate([("decoder.0.0", "encoder.2.2"), ("decoder.1.0", "encoder.1.2")]):
            assert tally.kept[up] != tally.kept[skip]
            assert layers[f"decoder.{i}.1"].in_channels == len({*tally.kept[up], *tally.kept[skip]})
    else:
        stem, last = ("bn1", "bn2") if name == "resnet18" else ("layer1.0.downsample.1", "bn3")
        union = {*tally.kept[stem]}
        for i, block in enumerate(layers["layer1"]):  # the sums of a stage add up what any of them has
            union |= {*tally.kept[f"layer1.{i}.{last}"]}
            assert block.add_scatter[0].out_channels == block.add_scatter[1].out_channels == len(union)
        assert layers["layer2.0.conv1"].in_channels == layers["layer2.0.downsample.0"].in_channels == len(union)


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), max_size=3),
    options=st.fixed_dictionaries({"norm": st.booleans(), "module_activations": st.booleans()}),
    ratio=st.sampled_from([0.3, 0.6]),
    spatial=st.booleans(),
)
def test_random_networks(blocks, options, ratio, spatial):
    model = ProgramNet([*blocks, "residual"], width=6, **options).eval()
    image = torch.randn(2, 2, 8, 8)
    decoupled = decouple_residuals(model, image)
    with torch.no_grad():
        assert torch.equal(decoupled(image), model(image))
    importance = SpatialMaskImportance(calibration()) if spatial else tp.importance.RandomImportance()
    output = [decoupled.layers.output]
    pruner = make_pruner(decoupled, image, importance, pruning_ratio=ratio, ignored_layers=output)
    original, tally = copy.deepcopy(decoupled), Tally(pruner)
    step(pruner, tally)
    tally.prune(dead_channel_groups(pruner.DG))
    with torch.no_grad():
        torch.testing.assert_close(decoupled(image), tally.masked(original)(image), rtol=1e-5, atol=1e-5)
    assert list(dead_channel_groups(pruner.DG)) == []


def test_only_the_outputs_of_the_network_are_protected():
    model, image = build("resnet18")
    model = decouple_residuals(model, image)
    importance = IMPORTANCES["spatial"](image)
    pruner = make_pruner(model, image, importance)
    with pytest.warns(UserWarning, match="^'fc': these channels are outputs of the network") as caught:
        pruner.step()
    assert len(caught) == 1
    assert importance.statistics(pruner.DG).output_layers == {model.fc}


# --- hand-made networks ---


class Chosen(tp.importance.Importance):
    """Keeps the given channels of each layer; other layers are not pruned."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, group):
        layer = group[0].dep.target.module
        if layer not in self.kept:
            return None
        return torch.tensor([float(c in self.kept[layer]) for c in range(layer.out_channels)])


class Chain(nn.Module):
    """``b(a(x)) + a(x)``, then ``c(·) + ·``, then the output: six channels everywhere."""

    def __init__(self, after=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.after, self.output = after(), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = F.relu(self.b(x)) + x
        x += F.relu(self.c(x))
        return self.output(F.relu(self.after(x)))


IMAGE = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def pruned_chain(**options):
    """a keeps {0, 1, 2}, b {1, 2, 4}, c {2, 4, 5}: the sums have {0, 1, 2, 4} and {0, 1, 2, 4, 5}."""
    model = decouple_residuals(Chain(**options), IMAGE).eval()
    kept = {model.a: {0, 1, 2}, model.b: {1, 2, 4}, model.c: {2, 4, 5}}
    pruner = make_pruner(model, IMAGE, Chosen(kept), pruning_ratio=0.5, ignored_layers=[model.output])
    original, tally = copy.deepcopy(model), Tally(pruner)
    step(pruner, tally)
    return model, pruner, original, tally


def layout(model):
    return [(s.index.tolist(), s.out_channels) for s in scatters(model).values()]


def test_branches_are_kept_apart_and_dead_channels_removed_along_the_chain():
    model, pruner, original, tally = pruned_chain()
    # operands in the order of the code: relu(b) + x, x + relu(c)
    assert layout(model) == [([1, 2, 4], 6), ([0, 1, 2], 6), ([0, 1, 2, 3, 4, 5], 6), ([2, 4, 5], 6)]
    assert (model.c.in_channels, model.output.in_channels) == (6, 6)
    groups = dead_channel_groups(pruner.DG)
    first = next(groups)
    removed = {
        dep.target.module: idxs for dep, idxs in first if isinstance(dep.target.module, (nn.Conv2d, ChannelScatter))
    }
    assert removed[model.c] == [3, 5]
    with pytest.raises(RuntimeError, match=r"group was not pruned: call group\.prune\(\)"):
        next(groups)
    tally.prune(dead_channel_groups(pruner.DG))
    # first sum {0, 1, 2, 4}: b at places 1 2 3, a at 0 1 2; second {0, 1, 2, 4, 5}: first sum at 0 1 2 3, c at 2 3 4
    assert layout(model) == [([1, 2, 3], 4), ([0, 1, 2], 4), ([0, 1, 2, 3], 5), ([2, 3, 4], 5)]
    assert (model.c.in_channels, model.output.in_channels) == (4, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_removing_dead_channels_leaves_the_function():
    model, pruner, *_ = pruned_chain()
    with torch.no_grad():
        before = model(IMAGE)
        remove_dead_channels(pruner.DG)
        torch.testing.assert_close(model(IMAGE), before, rtol=1e-5, atol=1e-5)


def norm():
    layer = nn.BatchNorm2d(6)
    nn.init.uniform_(layer.bias, 0.5, 1)
    return layer


def test_a_norm_behind_the_sum_is_held_at_zero_too():
    model, pruner, original, tally = pruned_chain(after=norm)
    tally.prune(dead_channel_groups(pruner.DG))
    assert tally.kept["after"] == [0, 1, 2, 4, 5]
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_dead_channels_stay_where_a_group_norm_reads_them():
    model, pruner, original, tally = pruned_chain(after=lambda: nn.GroupNorm(3, 6))
    tally.prune(dead_channel_groups(pruner.DG))
    assert (model.c.in_channels, model.output.in_channels) == (4, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_graphs_without_mixed_sums():
    graph = tp.DependencyGraph().build_dependency(Chain(), IMAGE)
    assert list(dead_channel_groups(graph)) == []
    graph = tp.DependencyGraph().build_dependency(decouple_residuals(Chain(), IMAGE), IMAGE)
    with pytest.raises(ValueError, match=r"customized_pruners=torchprune_spatial\.CUSTOMIZED_PRUNERS"):
        remove_dead_channels(graph)


def test_pruning_history_can_be_replayed():
    model, pruner, original, _ = pruned_chain()
    remove_dead_channels(pruner.DG)
    graph = tp.DependencyGraph().build_dependency(original, IMAGE, customized_pruners=CUSTOMIZED_PRUNERS)
    graph.load_pruning_history(pruner.pruning_history())
    assert layout(original) == layout(model)


class Net(nn.Module):
    """Convolutions a, b, c of 4 channels, a depthwise one, a gate and an output, put together by a function."""

    def __init__(self, program):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.depthwise, self.gate = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)
        self.output, self.linear = nn.Conv2d(4, 1, 1), nn.Linear(4, 4)
        self.parameter, self.unused = nn.Parameter(torch.randn(1, 4, 8, 8)), nn.Parameter(torch.ones(2))
        self.program = program

    def forward(self, x):
        return self.program(self, x)


def in_place_and_gated(n, x):
    y = n.a(x)
    y.add_(n.b(x))
    return n.output(y * n.c(y).sigmoid())


def in_place_method(n, x):
    y = n.a(x)
    y.add_(n.b(x), alpha=2)
    return n.output(n.c(y))


MIXED = {  # how many additions are made mixed
    "sum of three": (lambda n, x: n.output(n.a(x) + n.b(x) + n.c(x)), 2),
    "python's sum": (lambda n, x: n.output(sum([n.a(x), n.b(x)])), 1),
    "alpha": (lambda n, x: n.output(torch.add(n.a(x), n.b(x), alpha=-1)), 1),
    "in-place method": (in_place_method, 1),
    "map added to itself": (lambda n, x: n.output((lambda y: y + y)(n.a(x))), 1),
    "other additions": (lambda n, x: n.output(2 + n.a(x) + 1.0 + (n.b(x) + n.parameter)), 1),
    "through pooling": (lambda n, x: n.linear((F.relu(n.a(x)) + n.b(x)).mean((2, 3))).sum(1), 1),
    "concatenated": (lambda n, x: F.conv2d(torch.cat([n.a(x) + n.b(x), x], 1), torch.ones(1, 8, 1, 1)), 0),
    "concatenated, read": (lambda n, x: n.output(torch.cat([n.a(x) + n.b(x), n.c(x)], 1).split(4, 1)[0]), 1),
    "linear": (lambda n, x: n.linear(n.linear(x.mean((2, 3))) + n.a(x).mean((2, 3))), 1),
    "swish by hand": (lambda n, x: n.output((lambda y: y * y.sigmoid())(n.a(x) + n.b(x))), 1),
    "in place, gated": (in_place_and_gated, 0),
    "network's output": (lambda n, x: n.a(x) + n.b(x), 0),
    "also an output": (lambda n, x: (lambda y: (n.output(y), y.relu()))(n.a(x) + n.b(x)), 0),
    "flattened output": (lambda n, x: (n.a(x) + n.b(x)).flatten(1), 0),
    "image": (lambda n, x: n.output(n.a(x) + x), 0),
    "image in the next sum": (lambda n, x: n.output((n.a(x) + n.b(x)) + x), 0),
    "broadcast": (lambda n, x: n.output(n.a(x) + n.b(x).mean((2, 3), keepdim=True)), 0),
    "depthwise": (lambda n, x: n.output(n.depthwise(n.a(x) + n.b(x))), 0),
    "gated": (lambda n, x: n.output((n.a(x) + n.b(x)) * n.gate(x).sigmoid()), 0),
    "tokens": (lambda n, x: n.linear((lambda y: y + n.linear(y))(n.a(x).flatten(2).transpose(1, 2))), 0),
    "one channel": (lambda n, x: n.output(x) + n.output(x), 0),
}


@pytest.mark.parametrize(("program", "adds"), MIXED.values(), ids=MIXED)
def test_which_additions_are_mixed(program, adds):
    model, image = Net(program).eval(), torch.randn(1, 4, 8, 8)
    if not adds:
        with pytest.raises(
            ValueError, match=r"model Net has no residual addition to make mixed.*prune the model as it is"
        ):
            decouple_residuals(model, image)
        return
    decoupled = decouple_residuals(model, image)
    assert len(scatters(decoupled)) == 2 * adds
    assert "unused" in decoupled.state_dict()
    torch.testing.assert_close(decoupled(image), model(image), rtol=0, atol=0)


def test_traces_that_compute_something_else():
    def in_place_under_another_name(n, x):
        y = z = n.a(x)
        y += n.b(x)
        return n.output(z) + n.output(y)

    def functional_dropout(n, x):
        return n.output(F.dropout(n.a(x) + n.b(x), 0.5, n.training))

    image = torch.randn(1, 4, 8, 8)
    for program in (in_place_under_another_name, functional_dropout):
        with pytest.raises(ValueError, match=r"Net computes something else when it is traced.*call model\.eval\(\)"):
            decouple_residuals(Net(program), image)
    assert len(scatters(decouple_residuals(Net(functional_dropout).eval(), image))) == 2


def test_names_of_the_scatters():
    def program(n, x):
        return n.output(n.a(n.a(x) + n.b(x)) + n.c(x))

    model = Net(program)
    model.add_scatter = nn.Identity()
    assert list(scatters(decouple_residuals(model, torch.randn(1, 4, 8, 8)))) == [
        *("add_1_scatter.0", "add_1_scatter.1"),
        *("add_2_scatter.0", "add_2_scatter.1"),
    ]
    model, image = build("resnet18")
    assert list(scatters(decouple_residuals(model, image)))[:2] == ["layer1.0.add_scatter.0", "layer1.0.add_scatter.1"]


def test_decoupled_part_of_a_network():
    """A network that cannot be traced holds one that can; decoupling again finds nothing new."""
    model, image = nn.Sequential(Chain(), nn.Conv2d(1, 1, 1)).eval(), IMAGE
    expected = model(image)
    model[0] = decouple_residuals(model[0], (image,))
    torch.testing.assert_close(model(image), expected, rtol=0, atol=0)
    pruner = make_pruner(model, image, tp.importance.RandomImportance(), pruning_ratio=0.5)
    pruner.step()
    remove_dead_channels(pruner.DG)
    assert model(image).shape == (2, 1, 5, 5)
    assert all(s.in_channels <= s.out_channels for s in scatters(model).values())
    with pytest.raises(ValueError, match="no residual addition"):
        decouple_residuals(model[0], image)


def test_keyword_inputs_and_dropout():
    class Two(Chain):
        def __init__(self):
            super().__init__(after=lambda: nn.Dropout(0.5))

        def forward(self, first, scale=1.0, second=None):
            return super().forward(first * scale + second)

    model = Two().train()
    decoupled = decouple_residuals(model, {"second": IMAGE, "first": IMAGE})
    assert decoupled.after.training
    assert not torch.equal(decoupled(IMAGE, second=IMAGE), decoupled(IMAGE, second=IMAGE))
    model.eval(), decoupled.eval()
    assert torch.equal(decoupled(IMAGE, 3.0, second=IMAGE), model(IMAGE, 3.0, second=IMAGE))


# --- training, saving, exporting ---


def pruned_unet():
    torch.manual_seed(0)
    model, image = build("unet")
    model = decouple_residuals(model, image)
    pruner = make_pruner(model, image, tp.importance.RandomImportance())
    pruner.step()
    remove_dead_channels(pruner.DG)
    assert any(s.in_channels < s.out_channels for s in scatters(model).values())
    return model, image


def test_gradients_reach_every_parameter():
    model, image = pruned_unet()
    model.train()
    model(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.grad.abs().sum() > 0 for p in model.parameters()) > 30  # of 40


def test_deepcopy_is_independent():
    model, image = pruned_unet()
    expected = model(image)
    copied = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    for scatter in scatters(model).values():
        scatter.index.zero_()
    assert torch.equal(copied(image), expected)
    assert type(copied.decoder[0]) is nn.ModuleList


def test_state_dict_and_numbers_restore_a_pruned_network():
    """The tensors' shapes and contents, and the plain numbers of each module, are all there is to it."""
    model, image = pruned_unet()
    file = io.BytesIO()
    numbers = {
        name: {k: v for k, v in vars(module).items() if isinstance(v, int)} for name, module in model.named_modules()
    }
    torch.save({"state": model.state_dict(), "numbers": numbers}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    for numbers_first in (True, False):
        fresh = decouple_residuals(build("unet")[0], image)
        for name, module in fresh.named_modules():
            for key, tensor in (*module._parameters.items(), *module._buffers.items()):
                shape = saved["state"][f"{name}.{key}".lstrip(".")].shape
                kind = nn.Parameter if isinstance(tensor, nn.Parameter) else torch.Tensor.clone
                setattr(module, key, kind(tensor.detach().new_zeros(shape)))
            if numbers_first:
                vars(module).update(saved["numbers"][name])
        fresh.load_state_dict(saved["state"])
        for name, module in fresh.named_modules():
            vars(module).update(saved["numbers"][name])
        assert torch.equal(fresh.eval()(image), model(image))


def test_torch_export():
    model, image = pruned_unet()
    batch = {0: torch.export.Dim("batch", min=1, max=16)}
    exported = torch.export.export(model, (image,), dynamic_shapes=(batch,)).module()
    larger = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(exported(larger), model(larger))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.filterwarnings("ignore")
def test_onnx(dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, image = pruned_unet()
    torch.onnx.export(model, (image,), tmp_path / "model.onnx", dynamo=dynamo)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), model(image).detach(), rtol=1e-5, atol=1e-5)


# --- failures ---


def test_failure_leaves_the_model():
    class Branching(Chain):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    model = Branching().train()
    model.b.eval()
    state, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    with pytest.raises(ValueError, match=r"model Branching cannot be traced symbolically \(.*torch\.fx\.wrap"):
        decouple_residuals(model, IMAGE)
    with pytest.raises(RuntimeError):
        decouple_residuals(Chain(), torch.randn(1, 7, 5, 5))
    assert list(model.modules()) == modules
    assert [m.training for m in modules] == [m is not model.b for m in modules]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model is function; expected a torch\.nn\.Module"):
        decouple_residuals(lambda x: x + x, IMAGE)
