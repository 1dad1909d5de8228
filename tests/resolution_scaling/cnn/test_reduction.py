import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resolution_scaling.cnn.reduction import FirstConvReduction, reduce_after_first_conv, undo_first_conv_reduction
from resolution_scaling.cost.profiling import profile
from tests.unets import ResUNet

from .networks import BUILDERS, Denoiser, TwoMaps, fcn, slow, small_net, state


def flops(model, size, channels=3):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(2, channels, *size, device="meta"))
    return counter.get_total_flops()


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


@pytest.mark.parametrize("in_channels", [1, 2, 13])
def test_images_of_any_number_of_channels(in_channels):
    model = timm.create_model("test_resnet", in_chans=in_channels).eval()  # timm says: 3 channels, 160 px
    reduce_after_first_conv(model, 80)
    seen = []
    model.layer1.register_forward_pre_hook(lambda layer, args: seen.append(args[0].shape[-1]))
    model(torch.rand(1, in_channels, 160, 160))
    plain = timm.create_model("test_resnet", in_chans=in_channels).eval()
    plain.layer1.register_forward_pre_hook(lambda layer, args: seen.append(args[0].shape[-1]))
    plain(torch.rand(1, in_channels, 80, 80))
    assert seen[0] == seen[1]


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


@pytest.mark.parametrize(("build", "shape"), BUILDERS)
def test_undo_is_exact(build, shape):
    model, image = build().eval(), torch.rand(shape)
    expected, before = model(image), state(model)
    reduce_after_first_conv(model, 16, 32)
    assert not torch.equal(model(image), expected)
    assert undo_first_conv_reduction(model) is model
    assert torch.equal(model(image), expected)
    assert state(model) == before


def test_undo_inside_another_network():
    outer = nn.Sequential(reduce_after_first_conv(ResUNet(4), 48, 64), nn.Sigmoid())
    undo_first_conv_reduction(outer)
    assert state(outer[0]) == state(undo_first_conv_reduction(outer[0]))
    assert not outer[0]._forward_hooks
    assert type(outer[0].encoder[0][0]) is nn.Conv2d


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
    before = state(model)
    with pytest.raises(ValueError, match=text):
        reduce_after_first_conv(model, *arguments)
    assert state(model) == before


@pytest.mark.parametrize("size", [16.0, "16", True, None, (16, 16, 16), (16.0, 16), (16,)])
def test_sizes_that_are_none(size):
    model = small_net()
    before = state(model)
    with pytest.raises(TypeError, match=r"size is .*expected a whole number of px, or a pair"):
        reduce_after_first_conv(model, size, 32)
    assert state(model) == before


def test_a_failure_leaves_an_earlier_reduction():
    model = reduce_after_first_conv(ResUNet(4), 48, 64)
    before = state(model)
    with pytest.raises(ValueError, match="cannot run"):
        reduce_after_first_conv(model, 36, 64)
    with pytest.raises(ValueError, match="interpolation is 'cubic'; expected one of bilinear"):
        reduce_after_first_conv(model, 32, 64, interpolation="cubic")
    assert state(model) == before
