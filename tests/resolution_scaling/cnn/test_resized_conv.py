"""Convolutions that resize their output: copies, files, exporters, Torch-Pruning."""

import copy
import io
import pickle

import numpy as np
import pytest
import timm
import torch
import torch_pruning as tp
import torchvision.models as tv
from torch import nn

from resolution_scaling.cnn.reduction import FirstConvReduction, reduce_after_first_conv, undo_first_conv_reduction

from .networks import BUILDERS, Denoiser, same_padded_net, slow, small_net


@pytest.mark.parametrize(("build", "shape"), BUILDERS)
def test_survives_copies_and_files(build, shape):
    model, image = build().eval(), torch.rand(shape)
    keys = list(model.state_dict())
    expected = reduce_after_first_conv(model, 16, 32)(image)
    assert list(model.state_dict()) == keys
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(other(image), expected)
        assert repr(other) == repr(model)
        assert repr(undo_first_conv_reduction(other)) == repr(build())
    fresh = reduce_after_first_conv(build().eval(), 16, 32)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(image), expected)


def test_a_convolution_of_another_class_stays_one():
    model = reduce_after_first_conv(same_padded_net(), 16, 32)
    assert isinstance(model[0], timm.layers.Conv2dSame)
    assert isinstance(model[0], FirstConvReduction)
    assert type(copy.deepcopy(model)[0]) is type(model[0])
    assert repr(model[0]).startswith("FirstConvReduction(3, 8, kernel_size=(3, 3)")


NEW_EXPORTERS = pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7), reason="older exporters")


@NEW_EXPORTERS
@pytest.mark.parametrize(("build", "shape"), BUILDERS)
def test_export(build, shape):
    model, image = reduce_after_first_conv(build().eval(), 16, 32), torch.rand(shape)
    exported = torch.export.export(model, (image,)).module()
    assert torch.allclose(exported(image), model(image), atol=1e-6)


def test_a_forward_left_on_the_layer_does_not_hide_the_reduction():
    """NNI leaves a bound method on each layer that it unwrapped."""
    model, image = small_net().eval(), torch.rand(1, 3, 32, 32)
    expected = reduce_after_first_conv(copy.deepcopy(model), 16, 32)(image)
    for module in model.modules():
        module.forward = module.forward
    assert torch.equal(reduce_after_first_conv(model, 16, 32)(image), expected)


@pytest.mark.parametrize(("build", "shape"), [BUILDERS[0], BUILDERS[2]])
def test_symbolic_trace(build, shape):
    model, image = reduce_after_first_conv(build().eval(), 16, 32), torch.rand(shape)
    assert torch.equal(torch.fx.symbolic_trace(model)(image), model(image))


@NEW_EXPORTERS
@pytest.mark.parametrize(
    ("build", "shape", "interpolation"),
    [(*BUILDERS[0], "bilinear"), slow(*BUILDERS[0], "nearest"), (*BUILDERS[1], "bilinear"), slow(*BUILDERS[2], "area")],
)
def test_onnx(build, shape, interpolation, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, image = reduce_after_first_conv(build().eval(), 24, 32, interpolation=interpolation), torch.rand(shape)
    program = torch.onnx.export(model, (image,), dynamo=True, opset_version=18, verbose=False)
    assert program.model.opset_imports[""] == 18
    program.save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    np.testing.assert_allclose(output, model(image).detach().numpy(), atol=1e-5)


def test_torch_pruning():
    model, image = reduce_after_first_conv(tv.resnet18(), 64, 96).eval(), torch.rand(1, 3, 96, 96)
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
    graph.get_pruning_group(model.conv1, tp.prune_conv_out_channels, idxs=[*range(16)]).prune()
    assert (model.conv1.out_channels, model.bn1.num_features) == (48, 48)
    assert model.conv1(image).shape == (1, 48, 32, 32)
    assert model(image).shape == (1, 1000)
    assert type(undo_first_conv_reduction(model).conv1) is nn.Conv2d


def test_trains():
    model = reduce_after_first_conv(small_net(), 16, 32)
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double])
def test_other_precisions(dtype):
    for model, channels in ((small_net(), 3), (Denoiser(), 2)):
        reduce_after_first_conv(model.to(dtype).eval(), 16, 32)
        image = torch.rand(1, channels, 32, 32)
        output = model(image.to(dtype))
        assert output.dtype == dtype
        assert torch.allclose(output.float(), model.float()(image), atol=0.05)


def test_autocast():
    model = reduce_after_first_conv(small_net(), 16, 32).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.rand(1, 3, 32, 32)).shape == (1, 5)
