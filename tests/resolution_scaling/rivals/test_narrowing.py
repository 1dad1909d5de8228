import pytest
import timm
import torch
import torch.nn as nn
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from resolution_scaling.rivals.model_scaling import scale_model


def on_meta(build):
    with torch.device("meta"):
        return build()


RESNETS = {
    "torchvision ResNet-50": torchvision.models.resnet50,
    "torchvision ResNet-18": torchvision.models.resnet18,
    "timm ResNet-26-D": lambda: timm.create_model("resnet26d"),
    "timm SE-ResNet-18": lambda: timm.create_model("legacy_seresnet18"),
}


def channels(model):
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("factor", [0.5, pytest.param(0.25, marks=pytest.mark.slow)])
def test_resnet_width(name, factor):
    base = RESNETS[name]().eval()
    scaled = scale_model(base, "width", size=factor)
    assert scaled.configuration == {"width": factor}
    for layer, shape in channels(base).items():
        kernel = shape[2:]
        out, *reading = (round(size * factor) for size in shape[:2])
        if layer.startswith(("fc.", "last_linear.")):
            out = 1000
        if len(shape) == 4 and shape[1] == 3:
            reading = [3]
        assert channels(scaled.model)[layer] == (out, *reading, *kernel), layer
    assert scaled.model(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_flops_of_a_resnet_of_half_width_by_hand():
    class Net(nn.Sequential):
        pass

    base = Net(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(16, 5))
    scaled = scale_model(base, "width", size=0.5, input_shape=(2, 3, 10, 10))
    # 2 images x 100 px x (4 x 3 x 9 + 8 x 4) + 2 x 8 x 5 multiply-accumulates
    assert scaled.flops == 2 * (2 * 100 * (108 + 32) + 80)


def test_width_for_a_target():
    base = torchvision.models.resnet18()
    scaled = scale_model(base, "width", flops=1e9)
    with FlopCounterMode(display=False) as counter:
        scaled.model(torch.randn(1, 3, 224, 224))
    assert counter.get_total_flops() == scaled.flops
    assert abs(scaled.flops / 1e9 - 1) < 0.01
    again = scale_model(base, "width", size=scaled.configuration["width"])
    assert channels(again.model) == channels(scaled.model)


def test_groups_stay_whole():
    scaled = scale_model(on_meta(torchvision.models.resnext50_32x4d), "width", size=0.3)
    # 128 x 0.3 = 38.4 channels in 32 groups: 32
    assert scaled.model.layer1[0].conv2.weight.shape == (32, 1, 3, 3)
    for module in scaled.model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels % module.groups == module.in_channels % module.groups == 0
            assert module.groups in (1, 32)
    assert scaled.model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_depthwise_convolutions_stay_depthwise():
    scaled = scale_model(torchvision.models.mobilenet_v2(), "width", size=0.37)
    depthwise = [module for module in scaled.model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert len(depthwise) == 17
    assert all(module.groups == module.in_channels == module.out_channels for module in depthwise)
    assert scaled.model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_timm_resnets_tell_their_new_channels():
    scaled = scale_model(timm.create_model("resnet18"), "width", size=0.5).model
    assert scaled.num_features == 256
    assert [info["num_chs"] for info in scaled.feature_info] == [32, 32, 64, 128, 256]
    scaled.reset_classifier(7)
    assert scaled.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)


def test_resnets_are_initialised_as_such():
    weight = scale_model(torchvision.models.resnet18(), "width", size=0.5).model.layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.02)  # He et al., fan out
    timm_model = scale_model(timm.create_model("resnet26"), "width", size=0.5).model
    assert timm_model.layer1[0].bn3.weight.abs().max() == 0  # each block starts as an identity


@pytest.mark.parametrize(
    ("factor", "error"),
    [(0, ValueError), (-0.5, ValueError), (float("inf"), ValueError), (True, TypeError), ("0.5", TypeError)],
)
def test_a_width_is_a_factor(factor, error):
    with pytest.raises(error, match=r"expected a number above 0, such as the factor 0\.5 of the width"):
        scale_model(on_meta(torchvision.models.resnet18), "width", size=factor)


@pytest.mark.parametrize("in_channels", [1, 2, 13])
def test_images_of_other_than_three_channels(in_channels):
    """The image's channels stay; by hand on 224 x 224 px, the default of networks that record no size."""
    base = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Flatten(2))
    scaled = scale_model(base, "width", size=0.5)
    assert scaled.model[0].weight.shape == (4, in_channels, 3, 3)
    assert scaled.flops == 2 * 224**2 * (4 * in_channels * 9 + 16 * 4)
    target = scale_model(base, "width", flops=scaled.flops)
    assert target.configuration == {"width": 0.5}
    timm_resnet = scale_model(timm.create_model("test_resnet", in_chans=in_channels), "width", size=0.5).model
    assert timm_resnet.conv1[0].in_channels == in_channels
    assert timm_resnet.eval()(torch.rand(1, in_channels, 64, 64)).shape == (1, 1000)
