"""Mixed networks that were pruned: random ones, the recipe's U-Net and torchvision's ResNets."""

import copy
import io

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.residuals.channel_scatter import (
    dead_channel_groups,
    remove_dead_channels,
)
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from ..networks import BLOCKS, ProgramNet, calibration
from .mixed_networks import (
    Tally,
    build,
    make_pruner,
    scatters,
    step,
)

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
