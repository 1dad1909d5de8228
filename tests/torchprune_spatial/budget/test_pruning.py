"""Pruning to a target of compression or speed-up."""

import copy
import inspect
import io
import sys
import warnings

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.unets import ResUNet
from torchprune_spatial import InterpolativeImportance, SpatialMaskImportance
from torchprune_spatial.budget.pruning import prune_to
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from ..networks import ProgramNet, calibration, networks, plain_net
from ..pruning import EXAMPLE

HOLOGRAM = torch.rand(1, 1, 32, 32)
PHOTO = torch.rand(1, 3, 64, 64)
MAGNITUDE = tp.importance.GroupMagnitudeImportance()


def costs(model, inputs):
    """Parameters and FLOPs of the network itself, not of a copy."""
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # fused, PyTorch 2.6 misses it on CPUs
        model.eval()(inputs)
    return {"compression": sum(p.numel() for p in model.parameters()), "speedup": counter.get_total_flops()}


def reach(model, inputs, importance=MAGNITUDE, **options):
    """Prune and measure independently: how many times less than before."""
    before = costs(copy.deepcopy(model), inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = prune_to(model, inputs, importance, **options)
    after = costs(model, inputs)
    reached = {name: before[name] / after[name] for name in before}
    assert {"compression": record.compression, "speedup": record.speedup} == pytest.approx(reached)
    return reached


def unet(width=16):
    model = ResUNet(width)
    return model, [model.output]


def assert_unchanged(model, before):
    assert model.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for module, original in zip(model.modules(), before.modules(), strict=True):
        numbers = {key: value for key, value in vars(original).items() if isinstance(value, (int, float))}
        assert {key: vars(module)[key] for key in numbers} == numbers


@pytest.mark.parametrize(
    ("limit", "everywhere"),
    [("compression", False), ("compression", True), ("speedup", False)],
    ids=["compression", "compression global", "speedup"],
)
@pytest.mark.parametrize("target", [2, 4, 10, 20])
def test_unet_comes_within_two_percent(limit, target, everywhere):
    model, ignored = unet()
    reached = reach(model, HOLOGRAM, ignored_layers=ignored, global_pruning=everywhere, **{limit: target})
    assert reached[limit] == pytest.approx(target, rel=0.02)
    assert model(HOLOGRAM).shape == HOLOGRAM.shape


@pytest.mark.parametrize(("compression", "speedup"), [(3, 6), (8, 2)])
def test_both_are_limits(compression, speedup):
    model, ignored = unet()
    reached = reach(
        model, HOLOGRAM, ignored_layers=ignored, global_pruning=True, compression=compression, speedup=speedup
    )
    closeness = min(reached["compression"] / compression, reached["speedup"] / speedup)
    assert closeness == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("target", [{"compression": 4}, {"speedup": 4}, {"compression": 3, "speedup": 3}])
@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_resnets(name, target):
    model = getattr(pytest.importorskip("torchvision").models, name)(num_classes=10)
    reached = reach(model, PHOTO, ignored_layers=[model.fc], **target)
    assert min(reached[limit] / value for limit, value in target.items()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("target", [1.2, 1.7, 2.5, 4])
def test_the_mildest_pruning_by_hand(target):
    """Widths (a, b) of 6 and 8 have 19 a + 9 a b + b + 9 b + 1 parameters, 627 at first."""

    def parameters(a, b):
        return 19 * a + 9 * a * b + 10 * b + 1

    model = plain_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prune_to(model, EXAMPLE, MAGNITUDE, compression=target, ignored_layers=[model[5]], tolerance=1e-6)
    a, b = model[0].out_channels, model[3].out_channels
    assert 627 / parameters(a, b) >= target
    assert min(627 / parameters(a + 1, b), 627 / parameters(a, b + 1)) < target
    assert abs(a / 6 - b / 8) < 1 / 6 + 1 / 8


def test_keeps_the_best_by_the_scores_of_the_unpruned_network():
    model = plain_net()
    scores = {"0": [5.0, 0, 4, 1, 2, 3], "3": [0.0, 9, 1, 8, 2, 7, 3, 6]}
    asked = []

    def importance(group):
        name = group._DG._module2name[group[0].dep.target.module]
        asked.append(name)
        return torch.tensor(scores[name])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = prune_to(model, EXAMPLE, importance, compression=3)
    assert sorted(asked) == ["0", "3"]  # once each, though many prunings were tried
    for name, values in scores.items():
        best = sorted(range(len(values)), key=lambda i: -values[i])[: len(record.kept_out[name])]
        assert record.kept_out[name].tolist() == sorted(best)


@pytest.mark.parametrize(
    "importance",
    [tp.importance.RandomImportance(), tp.importance.LAMPImportance(), SpatialMaskImportance(calibration())],
    ids=lambda importance: type(importance).__name__,
)
def test_any_importance(importance):
    model = ProgramNet(["residual", "concatenation", "depthwise", "down_up", "transposed"], width=16, norm=True)
    reached = reach(model, EXAMPLE, importance, compression=3, ignored_layers=[model.layers["output"]], tolerance=0.05)
    assert reached["compression"] == pytest.approx(3, rel=0.05)


@settings(max_examples=10)
@given(
    model=networks, everywhere=st.booleans(), importance=st.sampled_from([MAGNITUDE, tp.importance.RandomImportance()])
)
def test_more_steps_prune_more_and_never_all_of_a_layer(model, everywhere, importance):
    """In steps, so that a layer that Torch-Pruning would leave whole shows as a step back."""
    reached = []
    for target in (1.5, 3, 1e6):
        pruned = copy.deepcopy(model)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"ignored_layers": [pruned.layers["output"]], "global_pruning": everywhere}
            record = prune_to(pruned, EXAMPLE, importance, compression=target, **options)
        reached.append(record.compression)
        assert pruned(EXAMPLE).shape == (1, 3, 8, 8)
    assert reached == sorted(reached)
    strongest = [len(kept) for name, kept in record.kept_out.items() if "layer" in name.split(".")[1]]
    assert min(strongest) == 1


def test_global_pruning_empties_no_layer():
    """Torch-Pruning leaves a layer whole if all its scores are below the threshold; here one channel stays."""
    model = plain_net()
    scores = {6: torch.arange(6.0), 8: 100 + torch.arange(8.0), 1: None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prune_to(model, EXAMPLE, lambda g: scores[len(g[0].idxs)], compression=5, global_pruning=True)
    assert model[0].out_channels == 1


def test_out_of_reach_does_the_strongest_and_says_so():
    model, ignored = unet(4)
    with pytest.warns(UserWarning, match=r"compression=1e\+06 is out of reach: the strongest .* gives compression \d+"):
        record = prune_to(model, HOLOGRAM, MAGNITUDE, compression=1e6, ignored_layers=ignored)
    assert {len(kept) for kept in record.kept_out.values()} == {1}


def test_coarse_steps_are_told():
    model = ProgramNet(["convolution", "convolution"], width=16)
    with pytest.warns(
        UserWarning,
        match=r"compression=1.9 cannot be met more closely than by compression (\S+), .*"
        r"weaker pruning gives compression (\S+)",
    ) as caught:
        record = prune_to(
            model, EXAMPLE, MAGNITUDE, compression=1.9, round_to=8, ignored_layers=[model.layers["output"]]
        )
    numbers = [float(word.rstrip(".,")) for word in str(caught[0].message).split() if word[:1].isdigit()]
    assert numbers[0] == pytest.approx(record.compression, rel=1e-3)
    assert numbers[1] < 1.9 < numbers[0]
    assert {len(kept) for name, kept in record.kept_out.items() if "output" not in name} <= {8, 16}


def test_one_step_less_if_it_is_within_the_tolerance():
    """One filter of two goes, or none: 3 * 2 + 1 + 2 * 1 ... parameters 2 (9 * 2 + 1) + 9 * 2 + 1 = 57, then 29."""
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = prune_to(
            model, EXAMPLE, MAGNITUDE, compression=57 / 29 * 1.01, ignored_layers=[model[2]], tolerance=0.5
        )
        assert record.compression == 57 / 29


@pytest.mark.parametrize("everywhere", [False, True])
def test_options_of_the_pruner(everywhere):
    model = ProgramNet(["convolution", "residual", "convolution"], width=24)
    first, second = model.layers["layer0"], model.layers["layer1"]
    options = {"ignored_layers": [model.layers["output"]], "pruning_ratio_dict": {second: 0.25}}
    given = copy.copy(options)
    reach(
        model,
        EXAMPLE,
        compression=2,
        global_pruning=everywhere,
        max_pruning_ratio=0.75,
        round_to=2,
        tolerance=0.2,
        **options,
    )
    assert second.out_channels == 18
    widths = [layer.out_channels for name, layer in model.layers.items() if name.startswith("layer")]
    assert all(6 <= width <= 24 and width % 2 == 0 for width in widths)
    assert first.out_channels < 24
    assert options == given


def test_isomorphic():
    model, ignored = unet(8)
    reach(model, HOLOGRAM, ignored_layers=ignored, global_pruning=True, isomorphic=True, compression=4)


def test_mixed_connectivity():
    model = decouple_residuals(ResUNet(16), HOLOGRAM)
    reached = reach(model, HOLOGRAM, compression=8, ignored_layers=[model.output])
    assert reached["compression"] == pytest.approx(8, rel=0.02)


class Joined(nn.Module):
    """A depthwise convolution makes one group of both halves, in Torch-Pruning's graph."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.depthwise, self.output = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return self.output(self.depthwise(torch.cat([self.first(x), self.second(x)], 1)))


def test_each_layer_of_a_group_keeps_its_best_channel():
    """The best two of the group are 6 and 7, both of the second layer; then the first layer keeps its own best, 3."""
    model = Joined()
    with pytest.warns(UserWarning, match="out of reach"):
        record = prune_to(
            model,
            EXAMPLE,
            lambda group: torch.arange(8.0),
            compression=1e6,
            ignored_layers=[model.output],
            graph="torch-pruning",
        )
    assert record.kept_out["depthwise"].tolist() == [3, 7]
    assert (record.kept_out["first"].tolist(), record.kept_out["second"].tolist()) == ([3], [3])


class Gated(nn.Module):
    """Channel i of the first half is multiplied by channel i of the second: Torch-Pruning removes both, or none."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.last, self.output = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 1, 1)

    def forward(self, x):
        first, second = self.gate(self.first(x).relu()).chunk(2, 1)
        return self.output(self.last(first * second.sigmoid()).relu())


@pytest.mark.parametrize("target", [2, 6])
def test_gates(target):
    model = Gated()
    reach(model, EXAMPLE, compression=target, ignored_layers=[model.output], tolerance=0.1)
    assert model.gate.out_channels == 2 * model.last.in_channels < 32


def test_grouped_convolutions_and_norms():
    model = nn.Sequential(
        *(nn.Conv2d(2, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(32, 1, 1)),
    )
    defaults = inspect.signature(tp.pruner.BasePruner).parameters["out_channel_groups"].default
    before = dict(defaults)
    reach(model, EXAMPLE, compression=3, ignored_layers=[model[5]], tolerance=0.3)
    assert defaults == before  # all pruners share them
    assert model[0].out_channels % 4 == model[3].out_channels % 4 == 0


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
def test_transformer():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64, num_classes=10)
    before = copy.deepcopy(model)
    record = prune_to(model, PHOTO, MAGNITUDE, speedup=4, ignored_layers=[model.head])
    speedup = costs(before, PHOTO)["speedup"] / costs(model, PHOTO)["speedup"]
    assert record.speedup == speedup == pytest.approx(4, rel=0.05)  # a channel of the residual stream is in all layers
    for block in model.blocks:
        assert block.attn.num_heads == 3
        assert block.attn.qkv.out_features == 9 * block.attn.head_dim


def test_modes_are_kept():
    model, ignored = unet()
    model.encoder[0].eval()
    modes = [m.training for m in model.modules()]
    prune_to(model, HOLOGRAM, MAGNITUDE, compression=2, ignored_layers=ignored)
    assert [m.training for m in model.modules()] == modes


def test_inputs_by_name_and_forward_fn_under_no_grad():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain_net()

        def forward(self, image, scale):
            return self.net(image) * scale

    for options in ({}, {"forward_fn": lambda model, inputs: model(inputs["image"], scale=3)}):
        model = Doubled()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = prune_to(
                model, {"image": EXAMPLE, "scale": 2}, MAGNITUDE, speedup=2, ignored_layers=[model.net[5]], **options
            )
        assert record.speedup >= 2


def test_a_failure_leaves_the_network_alone():
    """Warnings as errors stop it at the last moment: after the whole search, before the pruning."""
    model, ignored = unet(4)
    model.bottom.eval()
    model.bottom.weight.requires_grad_(False)
    before, versions = copy.deepcopy(model), [p._version for p in model.parameters()]
    warnings.simplefilter("error")  # pytest puts the filters back
    with pytest.raises(UserWarning, match="out of reach"):
        prune_to(model, HOLOGRAM, MAGNITUDE, compression=1e6, ignored_layers=ignored)
    assert_unchanged(model, before)
    assert [p._version for p in model.parameters()] == versions


class Looking(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if x.max() < 2 else x


@pytest.mark.parametrize(
    ("make", "importance", "options", "error", "message"),
    [
        (plain_net, MAGNITUDE, {}, ValueError, "needs a target"),
        (plain_net, MAGNITUDE, {"compression": 0.5}, ValueError, "compression is 0.5; expected a number above 1"),
        (plain_net, MAGNITUDE, {"speedup": "4"}, TypeError, "speedup is '4'"),
        (plain_net, MAGNITUDE, {"speedup": float("nan")}, ValueError, "speedup is nan"),
        (plain_net, MAGNITUDE, {"compression": 2, "pruning_ratio": 0.5}, TypeError, "pruning_ratio cannot be given"),
        (plain_net, MAGNITUDE, {"compression": 2, "iterative_steps": 3}, TypeError, "iterative_steps cannot be given"),
        (plain_net, MAGNITUDE, {"compression": 2, "rounding": 3}, TypeError, "rounding"),
        (
            plain_net,
            lambda group: torch.ones(3) if len(group[0].idxs) == 8 else None,
            {"compression": 2},
            ValueError,
            r"shape \[3\] for the group of '3.out'",
        ),
        (plain_net, lambda group: [1.0], {"compression": 2}, ValueError, "scores as list"),
        (plain_net, lambda group: torch.full((len(group[0].idxs),), torch.nan), {"compression": 2}, ValueError, "NaN"),
        (plain_net, lambda group: None, {"compression": 2}, ValueError, "no channel to remove"),
        (lambda: Looking(*plain_net()), MAGNITUDE, {"speedup": 2}, ValueError, "cannot run on the meta device"),
        (lambda: Looking(*plain_net()), MAGNITUDE, {"compression": 2}, ValueError, "cannot run on the meta device"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_network_left_alone(make, importance, options, error, message):
    model = make()
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        prune_to(model, EXAMPLE, importance, **options)
    assert_unchanged(model, before)


@pytest.mark.parametrize("budget", ["compression", "speedup"])
def test_what_cannot_be_rehearsed_is_said_before_anything_is_measured(budget):
    with pytest.raises(ValueError, match="cannot run on the meta device"):
        prune_to(Looking(*plain_net()), EXAMPLE, lambda group: pytest.fail("scored"), **{budget: 2})


def test_bars_are_shown_on_a_terminal_alone_and_not_if_asked(monkeypatch, capfd):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    inputs = torch.rand(4, 1, 16, 16)
    loader = [(inputs, inputs)]
    for terminal, progress, shown in ((True, True, True), (True, False, False), (False, True, False)):
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        model = ResUNet(4)
        importance = InterpolativeImportance(loader)
        prune_to(model, inputs[:1], importance, compression=2, ignored_layers=[model.output], progress=progress)
        assert ("calibration" in stream.getvalue()) == ("sensitivity" in stream.getvalue()) == shown
    assert capfd.readouterr().out == ""


def test_a_fold_that_fails_at_the_end_leaves_the_network_as_it_was():
    """The second group fails, when the first is pruned already and its readers are folded."""
    model = plain_net()
    before, calls = copy.deepcopy(model), []

    def fold(group):
        calls.append(group)
        with torch.no_grad():
            model[3].weight.mul_(2)
        if len(calls) == 2:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        prune_to(model, EXAMPLE, MAGNITUDE, compression=2, ignored_layers=[model[5]], fold=fold, tolerance=0.3)
    assert_unchanged(model, before)
    assert model(EXAMPLE).shape == before(EXAMPLE).shape


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"round_to": 0}, ValueError, "round_to is 0; expected a whole number above 0"),
        ({"max_pruning_ratio": 1.5}, ValueError, "max_pruning_ratio is 1.5; expected a number from 0 to 1"),
        ({"tolerance": -1}, ValueError, "tolerance is -1; expected a number of at least 0"),
        ({"tolerance": "a"}, TypeError, "tolerance is 'a'"),
        ({"loss": "mse"}, TypeError, "loss is 'mse' with allocation='uniform'; expected a callable"),
        ({"loss": torch.nn.functional.mse_loss}, TypeError, "with an allocation that measures"),
        ({"calibration": [1]}, TypeError, "allocation is 'uniform': pass allocation='sensitivity' too"),
        ({"calibration": "x", "allocation": "sensitivity"}, TypeError, "loader is a str"),
        ({"calibration": EXAMPLE, "allocation": "sensitivity"}, TypeError, "loader is a Tensor"),
        ({"fold": "yes"}, TypeError, "fold is 'yes'"),
    ],
)
def test_arguments_are_checked_first(options, error, message):
    model = plain_net()
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        prune_to(model, EXAMPLE, MAGNITUDE, compression=2, **options)
    assert_unchanged(model, before)
