"""The step for NNI 3.0 beside NNI's real pruners and its real speed-up. Sizes and MACs are counted by hand."""
# ruff: noqa: E402

import copy
import gc
import logging
import pickle
import re

import pytest
import torch
from torch import nn

import resolution_scaling as rs
from tests.unets import ResUNet

pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

import nni
from nni.compression import TorchEvaluator
from nni.compression.pruning import L1NormPruner
from nni.compression.speedup import ModelSpeedup, replacement
from nni.compression.speedup.error_code import EmptyLayerError
from schema import SchemaError

from resolution_scaling.nni import ResolutionScaler
from torchprune_spatial.nni import SpatialMaskPruner

CONVOLUTIONS = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
MLPS = [{"op_names_re": [r".*mlp\.fc1", r".*mlp\.0"], "op_types": ["Linear"], "sparse_ratio": 0.5}]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def prune(model, x, config_list):
    """As a user of NNI 3.0 does, with the graph of torch.fx. The speed-up leaves what it replaces in training mode."""
    pruner = L1NormPruner(model, config_list)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    ModelSpeedup(model, x, masks, graph_module=torch.fx.symbolic_trace(model)).speedup_model()
    model.eval()


def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    ).eval()


def small_macs(low, channels=8, full=32):
    """The first convolution works on the full image."""
    return 9 * 3 * channels * full**2 + 9 * channels * 16 * low**2 + 16 * 4


def vit():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # torchvision makes it zero
    return model.eval()


def resnet_macs_by_hand(model, size, low):
    """Kernel x channels x positions; only the first convolution works on the full image of ``size``."""
    sides = {"conv1": size // 2} | {f"layer{i}": low // 2 ** (i + 1) for i in range(1, 5)}
    macs = model.fc.in_features * model.fc.out_features
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            side = sides[name.split(".")[0]]
            macs += layer.weight.numel() * side**2
    return macs


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def assert_same(model, before, x):
    """Bit by bit: keys, weights, outputs, classes."""
    state, expected = model.state_dict(), before.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    with torch.no_grad():
        assert torch.equal(model(x), before(x))


def test_resnet_in_both_orders():
    """L1 0.5, speed-up, 64 px for 96 px: the same network, whichever comes first."""
    x, macs = torch.rand(1, 3, 96, 96), {}
    pruned_first = resnet18()
    full = rs.profile(pruned_first, x).macs
    prune(pruned_first, x, CONVOLUTIONS)
    pruned = copy.deepcopy(pruned_first)
    assert rs.profile(pruned, x).macs == resnet_macs_by_hand(pruned, 96, 96)
    assert 0.4 < rs.profile(pruned, x).macs / full < 0.55  # half the inner channels, most of the residual ones
    scaler = ResolutionScaler(pruned_first, [{"size": 64}], dummy_input=x)
    model, plan = scaler.compress()
    assert model is pruned_first
    macs["pruned first"] = rs.profile(model, x).macs
    assert macs["pruned first"] == resnet_macs_by_hand(model, 96, 64)
    assert plan.after.flops == 2 * macs["pruned first"]
    assert plan.before.flops == 2 * rs.profile(pruned, x).macs
    assert model(x).shape == (1, 10)
    torch.export.export(model, (x,))

    scaled_first = resnet18()
    ResolutionScaler(scaled_first, [{"size": 64}], dummy_input=x).compress()
    prune(scaled_first, x, CONVOLUTIONS)
    assert "96x96" not in repr(scaled_first)
    assert "48x48 -> 32x32" in repr(scaled_first.conv1)  # the reduction outlived NNI's replacement of the convolution
    assert scaled_first.conv1.out_channels == scaled_first.bn1.num_features
    assert rs.profile(scaled_first, x).macs == resnet_macs_by_hand(scaled_first, 96, 64)
    torch.export.export(scaled_first, (x,))

    scaler.undo_scaling()
    assert_same(pruned_first, pruned, x)


def test_the_same_channels_go_whichever_comes_first():
    x, models = torch.rand(1, 3, 32, 32), []
    for first in ("prune", "scale"):
        model = small_net()
        scaler = ResolutionScaler(model, [{"size": 16, "input_size": 32}])
        steps = [lambda model=model: prune(model, x, CONVOLUTIONS), scaler.compress]
        for step in steps if first == "prune" else reversed(steps):
            step()
        assert rs.profile(model, x).macs == 9 * (3 * 4 * 32**2 + 4 * 8 * 16**2) + 8 * 4
        models.append(model)
    assert shapes(models[0]) == shapes(models[1])
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], tensor)
    assert torch.equal(models[0](x), models[1](x))


@pytest.mark.parametrize("first", ["prune", "scale"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "unet", "torchvision vit", "timm vit"])
def test_other_networks(name, first):
    torch.manual_seed(0)
    config_list, full, low = CONVOLUTIONS, torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    scaling = {"size": 32, "input_size": 64}
    if name == "mobilenet_v2":
        model = torchvision.models.mobilenet_v2(num_classes=10)
    elif name == "unet":
        model, full, low = ResUNet(4), torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64)
        config_list = [{**CONVOLUTIONS[0], "exclude_op_names": ["output"]}]
    else:
        config_list, scaling, low = MLPS, {"grid": 2}, torch.rand(1, 3, 32, 32)
        model = vit() if name == "torchvision vit" else trained_timm_vit()
    model.eval()
    before, outputs = rs.profile(model, full).macs, model(full).shape
    scaler = ResolutionScaler(model, [scaling], dummy_input=full)
    if first == "scale":
        scaler.compress()
        prune(model, low, config_list)
    else:
        prune(model, full, config_list)
        scaler.compress()
    assert model(low).shape == outputs
    assert rs.profile(model, low).macs < 0.55 * before
    torch.export.export(model, (low,))
    scaler.undo_scaling()
    assert model(full).shape == outputs
    assert 0.3 * before < rs.profile(model, full).macs < before


def trained_timm_vit(**options):
    """Small, and no parameter is a constant vector, as in a trained network."""
    model = timm.models.VisionTransformer(64, 16, embed_dim=48, depth=2, num_heads=3, num_classes=10, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


def test_vit_by_hand():
    """Tokens: 16 + class token at 64 px, 9 + 1 at 48 px; width 48, MLPs of 96."""

    def macs(tokens):
        block = tokens * 48 * (3 * 48) + 2 * tokens * tokens * 48 + tokens * 48 * 48 + 2 * tokens * 48 * 96
        return (tokens - 1) * 48 * 3 * 16**2 + 2 * block + 48 * 10

    model, x = vit(), torch.rand(2, 3, 64, 64)
    before = copy.deepcopy(model)
    scaler = ResolutionScaler(model, [{"size": 48.0}])
    _, plan = scaler.compress()
    assert (plan.before.flops, plan.after.flops) == (2 * macs(17), 2 * macs(10))
    (network,) = plan.networks
    assert (network.method, network.before.grid, network.after.grid) == ("tokens", (4, 4), (3, 3))
    assert network.modules == ("encoder",)
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 10)
    assert scaler.undo_scaling() is model
    assert_same(model, before, x)


def test_the_plan_can_be_printed_and_kept():
    model = small_net()
    _, plan = ResolutionScaler(model, [{"size": 16, "input_size": 32}]).compress()
    text, kept = str(plan), plan.to_dict()
    assert re.search(r"working_size\s+32x32\s+16x16", text)
    assert re.search(r"changed\s+0\b", text)
    assert kept["networks"][0]["modules"] == ("0",)
    assert kept["before"]["flops"] == 2 * small_macs(32)
    assert kept["after"]["flops"] == 2 * small_macs(16)
    assert plan.before.peak_bytes > 0


def test_undo_is_exact_and_compress_repeats():
    model, x = small_net(), torch.rand(1, 3, 32, 32)
    before = copy.deepcopy(model)
    scaler = ResolutionScaler(model, [{"size": 16, "input_size": 32}])
    for _ in range(2):
        scaler.compress()
        assert rs.profile(model, x).macs == small_macs(16)
        scaler.undo_scaling()
        assert_same(model, before, x)
    assert scaler.plan is None


def test_outputs_that_are_maps_keep_their_size_and_undo_takes_the_hook_away():
    torch.manual_seed(0)
    model, x = ResUNet(4).eval(), torch.rand(1, 1, 64, 64)
    before = copy.deepcopy(model)
    scaler = ResolutionScaler(model, [{"size": 32, "input_size": 64}])
    _, plan = scaler.compress()
    assert plan.networks[0].modules == ("", "encoder.0.0")
    assert model(x).shape == (1, 1, 64, 64)
    scaler.undo_scaling()
    assert not model._forward_hooks
    assert_same(model, before, x)


def test_a_scaled_network_can_be_copied_and_pickled():
    model, x = small_net(), torch.rand(1, 3, 32, 32)
    ResolutionScaler(model, [{"size": 16, "input_size": 32}]).compress()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), model(x))
        assert type(copied[0]).__name__ == "Conv2d"
        prune(copied, x, CONVOLUTIONS)
        assert rs.profile(copied, x).macs == 9 * (3 * 4 * 32**2 + 4 * 8 * 16**2) + 8 * 4


def test_nni_is_as_it_was_when_no_reduced_convolution_is_left():
    gc.collect()  # the networks of other tests
    own = replacement.replace_module["Conv2d"]
    config_list = [{"size": 16, "input_size": 32}]
    undone, deleted = (ResolutionScaler(small_net(), config_list) for _ in range(2))
    assert replacement.replace_module["Conv2d"] is own
    for scaler in (undone, deleted):
        scaler.compress()
    copied = copy.deepcopy(undone.bound_model)
    undone.undo_scaling()
    assert replacement.replace_module["Conv2d"] is not own
    del scaler, deleted
    gc.collect()
    assert replacement.replace_module["Conv2d"] is not own
    rs.undo_scaling(copied)
    del copied
    gc.collect()
    assert replacement.replace_module["Conv2d"] is own


def test_nni_is_as_it_was_after_a_scaling_that_failed():
    gc.collect()
    own = replacement.replace_module["Conv2d"]
    model = nn.ModuleDict({"first": small_net(), "second": vit()})
    configs = [{"op_names": ["first"], "size": 16, "input_size": 32}, {"op_names": ["second"], "grid": 3}]
    scaler = ResolutionScaler(model, configs)
    model["second"].encoder.pos_embedding = None  # broken since
    with pytest.raises(AttributeError):
        scaler.compress()
    assert replacement.replace_module["Conv2d"] is own


def test_a_network_that_a_pruner_has_wrapped():
    """The wrappers would hide the change: they are off while the network is scaled, and on again with their masks."""
    model, x = small_net(), torch.rand(1, 3, 32, 32)
    pruner = L1NormPruner(model, CONVOLUTIONS)
    _, masks = pruner.compress()
    before = model(x)
    scaler = ResolutionScaler.from_compressor(pruner, [{"size": 16, "input_size": 32}])
    scaler.compress()
    assert rs.profile(model, x).macs == small_macs(16)
    off = masks["3"]["weight"].flatten(1).amax(1) == 0
    assert off.sum() == 8
    maps = []
    handle = model[3].register_forward_hook(lambda module, args, output: maps.append(output))
    model(x)
    handle.remove()
    assert maps[0].shape == (1, 16, 16, 16)
    assert torch.equal(maps[0].amax((0, 2, 3)) == 0, off)  # the masks still work
    scaler.undo_scaling()
    assert torch.equal(model(x), before)
    scaler.compress()
    scaler.unwrap_model()
    assert rs.profile(model, x).macs == small_macs(16)
    ModelSpeedup(model, x, masks, graph_module=torch.fx.symbolic_trace(model)).speedup_model()
    assert rs.profile(model, x).macs == 9 * (3 * 4 * 32**2 + 4 * 8 * 16**2) + 8 * 4


def evaluator(model, x, sizes):
    def training(model, optimizers, training_step, lr_schedulers=None, max_steps=None, max_epochs=None):
        for _ in range(max_steps):
            optimizers.zero_grad()
            training_step(x, model).backward()
            optimizers.step()

    def step(batch, model):
        maps = []
        handle = model[3].register_forward_hook(lambda module, args, output: maps.append(output.shape[-1]))
        loss = model(batch).square().sum()
        handle.remove()
        sizes.append(maps[0])
        return loss

    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.01)
    return TorchEvaluator(training, optimizer, step, dummy_input=x)


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed before", "compressed in the training"])
def test_a_pruner_made_from_the_scaler_trains_at_the_low_resolution(compressed):
    model, x, sizes = small_net(), torch.rand(2, 3, 32, 32), []
    weight = model[3].weight.detach().clone()
    scaler = ResolutionScaler(model, [{"size": 16, "input_size": 32}])
    if compressed:
        scaler.compress()
    pruner = L1NormPruner.from_compressor(scaler, CONVOLUTIONS, evaluator=evaluator(model, x, sizes))
    pruner.interval_steps = 1  # NNI's default, -1, prunes nothing here and does not say so
    _, masks = pruner.compress(max_steps=2, max_epochs=None)
    assert sizes == [16, 16]
    assert (masks["3"]["weight"].flatten(1).amax(1) == 0).sum() == 8
    pruner.unwrap_model()
    assert not torch.equal(model[3].weight, weight)
    assert rs.profile(model, x[:1]).macs == small_macs(16)
    scaler.undo_scaling()
    assert rs.profile(model, x[:1]).macs == small_macs(32)


def test_a_fused_pruner_of_nni_is_silent_without_interval_steps():
    model, x = small_net(), torch.rand(2, 3, 32, 32)
    scaler = ResolutionScaler(model, [{"size": 16, "input_size": 32}])
    scaler.compress()
    pruner = L1NormPruner.from_compressor(scaler, CONVOLUTIONS, evaluator=evaluator(model, x, []))
    _, masks = pruner.compress(max_steps=2, max_epochs=None)
    assert masks["3"]["weight"] is None or bool(masks["3"]["weight"].all())


def test_the_scaler_made_from_a_pruner_trains_it_too():
    model, x, sizes = small_net(), torch.rand(2, 3, 32, 32), []
    pruner = L1NormPruner(model, CONVOLUTIONS, evaluator(model, x, sizes))
    pruner.interval_steps = 1
    scaler = ResolutionScaler.from_compressor(pruner, [{"size": 16, "input_size": 32}])
    _, plan = scaler.compress(max_steps=2)
    assert sizes == [16, 16]
    assert (pruner.get_masks()["3"]["weight"].flatten(1).amax(1) == 0).sum() == 8
    assert plan.after.flops == 2 * 2 * small_macs(16)  # the evaluator's dummy input is a batch of two


def test_a_network_inside_another():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = vit()

        def forward(self, x):
            return self.backbone(x).softmax(1)

    model, x = Wrapped().eval(), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"config_list\[0\] selects the layer 'backbone.conv_proj' \(Conv2d\)"):
        ResolutionScaler(model, [{"op_types": ["Conv2d"], "grid": 3}])
    scaler = ResolutionScaler(model, [{"op_types": ["VisionTransformer"], "grid": 3}], dummy_input=x)
    _, plan = scaler.compress()
    assert plan.networks[0].name == "backbone"
    assert plan.after.flops < 0.65 * plan.before.flops
    assert model(torch.rand(1, 3, 48, 48)).shape == (1, 10)
    _, plan = ResolutionScaler(model, [{"op_names": ["backbone"], "grid": 3}]).compress()
    assert plan.before is plan.after is None


BAD_CONFIGS = {
    "unknown key": ([{"sise": 160}], SchemaError, "Wrong key 'sise'"),
    "sparse_ratio is for pruners": ([{"size": 16, "sparse_ratio": 0.5}], SchemaError, "Wrong key 'sparse_ratio'"),
    "no target": ([{"method": "fcr"}], SchemaError, "none of 'size', 'grid', 'patch_size'"),
    "half a pixel": ([{"size": 16.5}], SchemaError, "(?s)Key 'size' error.*16.5; expected a whole number"),
    "text": ([{"size": "small"}], SchemaError, "Key 'size' error"),
    "zero": ([{"size": 0}], SchemaError, "Key 'size' error"),
    "True": ([{"size": True}], SchemaError, "Key 'size' error"),
    "three sides": ([{"size": (16, 16, 16)}], SchemaError, "Key 'size' error"),
    "grid": ([{"grid": -1}], SchemaError, "Key 'grid' error"),
    "types as text": ([{"size": 16, "op_types": "Conv2d"}], SchemaError, "Key 'op_types' error"),
    "rc": (
        [{"size": 16, "method": "rc"}],
        SchemaError,
        "(?s)Key 'method' error.*resolution_scaling.adapting.transforms",
    ),
    "interpolation": ([{"size": 16, "interpolation": "cubic"}], SchemaError, "Key 'interpolation' error"),
    "a dict": ({"size": 16}, TypeError, "expected a list of dicts"),
    "empty": ([], TypeError, "expected a list of dicts"),
    "nothing selected": ([{"size": 16, "op_names": ["body"]}], ValueError, r"op_names=\['body'\].*selects nothing"),
    "twice": ([{"size": 16}, {"size": 24}], ValueError, "one is in the other"),
    "too large": ([{"size": 300}], ValueError, "larger than input_size"),
    "grid of a CNN": ([{"grid": 3}], TypeError, "neither grid nor patch_size"),
    "impossible": ([{"size": 1, "input_size": 32}], ValueError, "cannot run at 1x1 px"),
}


@pytest.mark.parametrize(("config_list", "error", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configurations_are_told_at_once(config_list, error, message):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)).eval()
    before, x = copy.deepcopy(model), torch.rand(1, 3, 32, 32)
    with pytest.raises(error, match=message):
        ResolutionScaler(model, config_list)
    assert_same(model, before, x)


def test_bad_arguments():
    with pytest.raises(TypeError, match="model is a str"):
        ResolutionScaler("resnet18", [{"size": 160}])
    with pytest.raises(TypeError, match="evaluator is a function"):
        ResolutionScaler(small_net(), [{"size": 160}], lambda model: 0.5)
    with pytest.raises(ValueError, match="max_steps and max_epochs are for the training of other compressors"):
        ResolutionScaler(small_net(), [{"size": 160}]).compress(max_steps=1)


def test_a_failure_halfway_leaves_everything_as_it_was():
    """Two networks in one: the first can be scaled, the second fails after it was checked."""
    model = nn.ModuleDict({"first": small_net(), "second": vit()})
    model["first"][0].register_forward_hook(lambda *_: None)
    scaler = ResolutionScaler(
        model, [{"op_names": ["first"], "size": 16, "input_size": 32}, {"op_names": ["second"], "grid": 3}]
    )
    before = copy.deepcopy(model)
    model["second"].encoder.pos_embedding = None  # broken since
    with pytest.raises(AttributeError):
        scaler.compress()
    assert type(model["first"][0]) is nn.Conv2d
    assert len(model["first"][0]._forward_hooks) == 1
    assert_same(model["first"], before["first"], torch.rand(1, 3, 32, 32))
    assert scaler.plan is None


def test_wrapped_weights_are_not_resampled():
    """A new patch size resamples the patch embedding, which a pruner has masked at its present size."""
    model, x = trained_timm_vit(), torch.rand(1, 3, 64, 64)
    pruner = L1NormPruner(model, [{"op_names": ["patch_embed.proj"], "sparse_ratio": 0.5}])
    pruner.compress()
    before = model(x)
    scaler = ResolutionScaler(model, [{"patch_size": 8}])
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight is to be resampled, but a pruner of NNI has"):
        scaler.compress()
    assert torch.equal(model(x), before)
    pruner.unwrap_model()
    scaler.compress()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_undo_refuses_what_was_trained():
    model = vit()
    scaler = ResolutionScaler(model, [{"grid": 3}])
    scaler.compress()
    with torch.no_grad():
        model.encoder.pos_embedding.add_(1)
    with pytest.raises(ValueError, match="were trained"):
        scaler.undo_scaling()


# Where NNI 3.0 fails with a current PyTorch, and the way round that docs/nni_step.md gives


def test_nni_own_tracer_fails_and_the_graph_of_fx_does_not():
    model, x = small_net(), torch.rand(1, 3, 32, 32)
    pruner = L1NormPruner(model, CONVOLUTIONS)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    with pytest.raises(AttributeError, match="startswith"):
        ModelSpeedup(model, x, masks)
    prune(small_net(), x, CONVOLUTIONS)


def test_nni_takes_constant_parameters_for_pruned_ones():
    """Where timm's norms are traced: their weights are all 1 before training."""
    torch.manual_seed(0)
    fresh = timm.models.VisionTransformer(64, 16, embed_dim=48, depth=2, num_heads=3, num_classes=10).eval()
    with pytest.raises(EmptyLayerError):
        prune(fresh, torch.rand(1, 3, 64, 64), MLPS)
    prune(trained_timm_vit(), torch.rand(1, 3, 64, 64), MLPS)


def test_nni_empties_layers_of_attention_that_is_not_fused():
    x, models = torch.rand(1, 3, 64, 64), [trained_timm_vit(), trained_timm_vit()]
    for model in models:
        for block in model.blocks:
            block.attn.fused_attn = False
    prune(models[0], x, MLPS)
    with pytest.raises(RuntimeError, match="0x0"):
        models[0](x)
    SpatialMaskPruner(models[1], MLPS, dummy_input=x, criterion="weight_sum").compress()
    assert [block.mlp.fc1.out_features for block in models[1].blocks] == [96, 96]
    assert models[1](x).shape == (1, 10)
    fused = trained_timm_vit()
    prune(fused, x, MLPS)
    assert [block.mlp.fc1.out_features for block in fused.blocks] == [96, 96]
    assert fused(x).shape == (1, 10)


def test_nni_leaves_replaced_modules_in_training_mode():
    model, x = small_net(), torch.rand(1, 3, 32, 32)
    pruner = L1NormPruner(model, CONVOLUTIONS)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    ModelSpeedup(model, x, masks, graph_module=torch.fx.symbolic_trace(model)).speedup_model()
    assert not model.training
    assert model[1].training  # a batch norm


def test_nni_cannot_trace_dynamic_sizes():
    model, x = trained_timm_vit(dynamic_img_size=True), torch.rand(1, 3, 64, 64)
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(model)
    SpatialMaskPruner(model, MLPS, dummy_input=x, criterion="weight_sum").compress()
    assert [block.mlp.fc1.out_features for block in model.blocks] == [96, 96]


def test_nni_cannot_prune_transposed_convolutions():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 1, 1)).eval()

    config_list = [{"op_types": ["ConvTranspose2d"], "sparse_ratio": 0.5}]
    with pytest.raises(RuntimeError, match="unsupported module type: ConvTranspose2d"):
        prune(network(), torch.rand(1, 1, 16, 16), config_list)
    model = network()
    SpatialMaskPruner(model, config_list, dummy_input=torch.rand(1, 1, 16, 16), criterion="weight_sum").compress()
    assert model[1].out_channels == 4
    assert model(torch.rand(1, 1, 16, 16)).shape == (1, 1, 16, 16)
