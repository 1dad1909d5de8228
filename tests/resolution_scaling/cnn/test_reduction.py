import copy
import io
import pickle

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torch_pruning as tp
import torchvision.models as tv
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resolution_scaling.cnn.folding import fold_first_batch_norm
from resolution_scaling.cnn.reduction import FirstConvReduction, reduce_after_first_conv, undo_first_conv_reduction
from resolution_scaling.cost.profiling import profile
from resolution_scaling.ground.shapes import shape_copy
from tests.unets import ResUNet


class Denoiser(nn.Module):
    """DnCNN: what the network gives is added to the image."""

    def __init__(self, channels=2):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1)),
        )

    def forward(self, image):
        return image + self.body(image)


class TwoMaps(nn.Module):
    """Outputs in a mapping: logits at full and half size, their labels, and a score of the image."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, image):
        logits = self.head(self.stem(image))
        small = F.avg_pool2d(logits, 2)
        return {"maps": [logits, small], "labels": logits.argmax(1, keepdim=True), "score": logits.mean((2, 3))}


def fcn():
    return tv.segmentation.fcn_resnet50(weights=None, weights_backbone=None)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def same_padded_net():
    """With timm's own classes of convolution and batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(timm.layers.Conv2dSame(3, 8, 3, stride=2, bias=False), timm.layers.BatchNormAct2d(8)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def flops(model, size, channels=3):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(2, channels, *size, device="meta"))
    return counter.get_total_flops()


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


NETWORKS = [  # network, full and low size, the convolutions that read the image
    (tv.resnet18, 224, 160, ["conv1"]),
    (tv.convnext_tiny, 224, 160, ["features.0.0"]),
    slow(tv.mobilenet_v2, 224, 128, ["features.0.0"]),
    slow(tv.efficientnet_b0, 224, 96, ["features.0.0"]),
    slow(lambda: tv.inception_v3(init_weights=False), 299, 150, ["Conv2d_1a_3x3.conv"]),
    (fcn, 128, 96, ["backbone.conv1"]),
    (lambda: ResUNet(8), 64, 40, ["encoder.0.0"]),
    (lambda: Denoiser(3), 32, 20, ["body.0"]),
    (lambda: timm.create_model("tf_efficientnet_lite0"), 224, 160, ["conv_stem"]),  # its own class of convolution
    slow(lambda: timm.create_model("nf_regnet_b0"), 192, 128, ["stem.conv"]),  # weights standardized in forward
    slow(lambda: timm.create_model("resnet26d"), 224, 130, ["conv1.0"]),
    (lambda: timm.create_model("repvgg_a0"), 224, 160, ["stem.conv_kxk.conv", "stem.conv_1x1.conv"]),
    slow(lambda: timm.create_model("tresnet_m"), 224, 160, ["body.conv1.conv"]),  # reads 4x4 cells as 48 channels
]


@pytest.mark.parametrize(("build", "full", "low", "first"), NETWORKS)
def test_costs_what_the_small_image_costs_except_in_the_first_convolution(build, full, low, first):
    with torch.device("meta"):
        model = build().eval()
    channels = 1 if isinstance(model, ResUNet) else 3
    at_low = flops(model, (low, low), channels)
    assert reduce_after_first_conv(model, low, full) is model
    reduced = {name: m for name, m in model.named_modules() if isinstance(m, FirstConvReduction)}
    assert list(reduced) == first
    moved = sum(  # 2 FLOPs per weight and output position, for a batch of 2
        2 * 2 * m.weight.numel() * (m.own_size[0] * m.own_size[1] - m.resized[0] * m.resized[1])
        for m in reduced.values()
    )
    assert flops(model, (full, full), channels) == at_low + moved
    assert moved > 0


def test_memory_as_the_docstring_says():
    full = profile(tv.resnet50(), (1, 3, 224, 224))
    low = profile(tv.resnet50(), (1, 3, 160, 160))
    reduced = profile(reduce_after_first_conv(tv.resnet50(), 160), (1, 3, 224, 224))
    # 64 channels of 4 bytes: the first batch norm reads and writes 112 x 112 at full size, 80 x 80 at the low one;
    # after the reduction the resize reads 112 x 112 and writes 80 x 80
    assert full.largest_operator_bytes == 64 * 4 * 2 * 112**2
    assert low.largest_operator_bytes == 64 * 4 * 2 * 80**2
    assert reduced.largest_operator_bytes == 64 * 4 * (112**2 + 80**2)
    assert low.peak_bytes < reduced.peak_bytes < 1.1 * low.peak_bytes < 0.6 * full.peak_bytes


def test_is_the_plain_function():
    model = tv.resnet18().eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        x = F.interpolate(model.conv1(images), (32, 32), mode="nearest")
        x = model.maxpool(model.relu(model.bn1(x)))
        x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        expected = model.fc(x.mean((2, 3)))
        reduce_after_first_conv(model, 64, 96, interpolation="nearest")
        assert torch.allclose(model(images), expected, atol=1e-5)


def test_bilinear_is_antialiased():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    reduce_after_first_conv(model, (1, 4), (1, 8), restore_outputs=False)
    row = torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    # Triangles of half-width 2 around 1, 3, 5, 7; pixel 2 lies at 2.5. The first is cut at the edge: its weights are
    # 0.75, 0.75, 0.25 at 0.5, 1.5, 2.5 of sum 1.75; the second has 0.25, 0.75, 0.75, 0.25 of sum 2.
    expected = torch.tensor([8 * 0.25 / 1.75, 8 * 0.75 / 2, 0.0, 0.0])
    assert torch.allclose(model(row.view(1, 1, 1, 8)).flatten(), expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "nearest"])
def test_a_constant_stays(interpolation):
    model = reduce_after_first_conv(nn.Sequential(nn.Conv2d(1, 2, 1)), 10, 16, interpolation=interpolation)
    maps = model[0](torch.ones(1, 1, 16, 16))
    assert maps.shape == (1, 2, 10, 10)
    assert torch.allclose(maps, maps[:, :, :1, :1].expand_as(maps), atol=1e-6)


def test_all_maps_behind_are_those_of_the_small_image():
    def shapes(model, size):
        seen = {}
        handles = [
            m.register_forward_hook(lambda _m, _a, out, n=n: seen.update({n: out.shape}))
            for n, m in model.named_modules()
            if isinstance(m, (nn.BatchNorm2d, nn.Conv2d))
        ]
        with torch.no_grad():
            model(torch.rand(1, 3, *size))
        for handle in handles:
            handle.remove()
        return seen

    model = tv.mobilenet_v2().eval()
    low = shapes(model, (72, 100))
    assert shapes(reduce_after_first_conv(model, (72, 100), (96, 128)), (96, 128)) == low


def test_the_sizes_of_timm_and_224_are_the_defaults():
    model = reduce_after_first_conv(timm.create_model("tf_efficientnet_lite1"), 120)  # made for 240 px, stride 2
    assert (model.conv_stem.own_size, model.conv_stem.resized) == ((120, 120), (60, 60))
    model = reduce_after_first_conv(tv.resnet18(), 160)
    assert (model.conv1.own_size, model.conv1.resized) == ((112, 112), (80, 80))
    assert "112x112 -> 80x80 bilinear" in repr(model)


def test_dense_outputs_keep_their_size():
    model = reduce_after_first_conv(ResUNet(4), 48, 64).eval()
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 1, 64, 64)
    assert model(torch.rand(2, 1, 128, 192)).shape == (2, 1, 128, 192)  # in proportion: works at 96 x 144
    assert model.encoder[0][0](torch.rand(2, 1, 128, 192)).shape == (2, 4, 96, 144)
    model = reduce_after_first_conv(ResUNet(4), 48, 64, restore_outputs=False)
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 1, 48, 48)
    assert reduce_after_first_conv(fcn(), 64, 96).eval()(torch.rand(1, 3, 96, 96))["out"].shape == (1, 21, 96, 96)


def test_the_image_added_to_the_output():
    model = Denoiser().eval()
    image = torch.rand(1, 2, 32, 48)
    with torch.no_grad():
        x = F.interpolate(model.body[0](image), (16, 24), mode="bilinear", antialias=True)
        expected = image + F.interpolate(model.body[1:](x), (32, 48), mode="bilinear")
        reduce_after_first_conv(model, (16, 24), (32, 48))
        assert torch.allclose(model(image), expected, atol=1e-6)
    undo_first_conv_reduction(model)
    assert [type(m) for m in model.body] == [type(m) for m in Denoiser().body]


def test_outputs_of_any_structure():
    model = TwoMaps()
    before = {key: value for key, value in model(torch.rand(2, 3, 16, 16)).items()}
    after = reduce_after_first_conv(model, 8, 16)(torch.rand(2, 3, 16, 16))
    assert [m.shape for m in after["maps"]] == [m.shape for m in before["maps"]]
    assert after["labels"].shape == before["labels"].shape
    assert after["labels"].dtype == torch.int64
    assert after["score"].shape == before["score"].shape


def test_the_full_size_changes_nothing():
    model, image = small_net().eval(), torch.rand(1, 3, 32, 32)
    expected = model(image)
    assert torch.equal(reduce_after_first_conv(model, 32, 32)(image), expected)
    assert type(model[0]) is nn.Conv2d


def test_reducing_again_starts_from_the_original():
    once, twice = small_net().eval(), small_net().eval()
    reduce_after_first_conv(reduce_after_first_conv(twice, 24, 32), 16, 32)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(reduce_after_first_conv(once, 16, 32)(image), twice(image))
    unet = reduce_after_first_conv(reduce_after_first_conv(ResUNet(4), 48, 64), 32, 64)
    assert len(unet._forward_hooks) == 1


BUILDERS = [
    (small_net, (2, 3, 32, 32)),
    (lambda: ResUNet(4), (2, 1, 32, 32)),
    (Denoiser, (2, 2, 32, 32)),
    (same_padded_net, (2, 3, 32, 32)),
]


@pytest.mark.parametrize(("build", "shape"), BUILDERS)
def test_undo_is_exact(build, shape):
    model, image = build().eval(), torch.rand(shape)
    expected, before = model(image), _state(model)
    reduce_after_first_conv(model, 16, 32)
    assert not torch.equal(model(image), expected)
    assert undo_first_conv_reduction(model) is model
    assert torch.equal(model(image), expected)
    assert _state(model) == before


def test_undo_inside_another_network():
    outer = nn.Sequential(reduce_after_first_conv(ResUNet(4), 48, 64), nn.Sigmoid())
    undo_first_conv_reduction(outer)
    assert _state(outer[0]) == _state(undo_first_conv_reduction(outer[0]))
    assert not outer[0]._forward_hooks
    assert type(outer[0].encoder[0][0]) is nn.Conv2d


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


def _state(model):
    """All that can be seen of a network: classes, attributes, flags, hooks, tensors."""
    return [
        (name, type(m), m.extra_repr(), m.training, sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ] + [(name, id(t), t._version) for name, t in [*model.named_parameters(), *model.named_buffers()]]


class Patches(nn.Module):
    """Position embeddings of a fixed number."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        self.position = nn.Parameter(torch.zeros(1, 4, 8, 8))

    def forward(self, image):
        return (self.patches(image) + self.position).mean((2, 3))


def skipped():
    """The image is concatenated before the last convolution."""

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 3, 3, padding=1)

        def forward(self, image):
            return self.last(torch.cat([self.first(image), image], 1))

    return Skip()


class Flatten2(nn.Sequential):
    """Tokens of the map."""

    def forward(self, image):
        return super().forward(image).flatten(2)


@pytest.mark.parametrize(
    ("build", "arguments", "text"),
    [
        (tv.alexnet, (40,), r"AlexNet cannot run at 40x40 px: features\.12 \(MaxPool2d\) fails on its 1x1 map"),
        (
            lambda: tv.inception_v3(init_weights=False),
            (60, 299),
            r"Mixed_7a(\.branch3x3_2\.conv \(Conv2d\)| \(InceptionD\)).* 2x2 map",
        ),
        (lambda: ResUNet(4), (36, 64), "ResUNet cannot run at 36x36 px: the forward of ResUNet fails"),
        (Patches, (24, 32), r"Patches cannot run at 24x24"),
        (skipped, (16, 32), "a later layer also reads the image"),
        (small_net, (48, 32), "size is 48, larger than input_size"),
        (small_net, (0, 32), "size is 0; expected a whole number of px above 0"),
        (small_net, (-3, 32), "size is -3; expected"),
        (small_net, ((16, 0), 32), "size is 0; expected"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (1, 2), "Sequential has no Conv2d"),
        (lambda: Flatten2(nn.Conv2d(3, 4, 1)), (16, 32), "restore_outputs=False"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(build, arguments, text):
    model = build()
    before = _state(model)
    with pytest.raises(ValueError, match=text):
        reduce_after_first_conv(model, *arguments)
    assert _state(model) == before


@pytest.mark.parametrize("size", [16.0, "16", True, None, (16, 16, 16), (16.0, 16), (16,)])
def test_sizes_that_are_none(size):
    model = small_net()
    before = _state(model)
    with pytest.raises(TypeError, match=r"size is .*expected a whole number of px, or a pair"):
        reduce_after_first_conv(model, size, 32)
    assert _state(model) == before


def test_a_failure_leaves_an_earlier_reduction():
    model = reduce_after_first_conv(ResUNet(4), 48, 64)
    before = _state(model)
    with pytest.raises(ValueError, match="cannot run"):
        reduce_after_first_conv(model, 36, 64)
    with pytest.raises(ValueError, match="interpolation is 'cubic'; expected one of bilinear"):
        reduce_after_first_conv(model, 32, 64, interpolation="cubic")
    assert _state(model) == before


def test_looking_at_shapes_leaves_no_trace():
    class Caching(nn.Conv2d):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen

    model = nn.Sequential(Caching(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    reduce_after_first_conv(model, 16, 32)
    assert not hasattr(model[0], "seen")
    draft = shape_copy(model)
    assert draft[0].weight.is_meta
    assert not model[0].weight.is_meta
    assert model.training
    assert not draft.training


def unlike_new(model):
    """Batch norms with other statistics than those of a new network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize(
    ("build", "folded"),
    [
        (small_net, {"1": nn.Identity}),
        slow(tv.resnet18, {"bn1": nn.Identity}),
        (same_padded_net, {"1": nn.Sequential}),  # the activation stays
        slow(
            lambda: timm.create_model("repvgg_a0"),
            {"stem.conv_kxk.bn": nn.Sequential, "stem.conv_1x1.bn": nn.Sequential},
        ),
    ],
)
@pytest.mark.parametrize("first", ["fold", "reduce"])
def test_folding_is_the_same_function(build, folded, first):
    model, image = unlike_new(build()), torch.rand(2, 3, 64, 64)
    plain = reduce_after_first_conv(copy.deepcopy(model), 40, 64)
    if first == "fold":
        reduce_after_first_conv(fold_first_batch_norm(model, 64), 40, 64)
    else:
        fold_first_batch_norm(reduce_after_first_conv(model, 40, 64), 64)
    torch.testing.assert_close(model(image), plain(image), rtol=1e-3, atol=1e-4)
    assert {name: type(model.get_submodule(name)) for name in folded} == folded


def test_what_cannot_fold_stays():
    class Shared(nn.Module):
        """The convolution is read by a norm and by the sum."""

        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, image):
            x = self.first(image)
            return x + self.norm(x)

    for model, text in (
        (small_net(), "training mode"),
        (tv.convnext_tiny().eval(), "no batch norm that reads"),
        (unlike_new(Shared()), "first of Shared is read by more than norm"),
    ):
        before = _state(model)
        with pytest.raises(ValueError, match=text):
            fold_first_batch_norm(model, 64)
        assert _state(model) == before
