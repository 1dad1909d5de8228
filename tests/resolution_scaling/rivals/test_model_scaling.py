import copy

import pytest
import timm
import torch
import torch.nn as nn
import torchvision
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer

from resolution_scaling.rivals.model_scaling import count_flops, scale_model
from resolution_scaling.vit.scaling import scale_vit


def torchvision_vit_s():
    return VisionTransformer(
        image_size=224, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536, dropout=0.1
    )


def timm_vit_s(**kwargs):
    return timm.create_model("vit_small_patch16_224", **kwargs)


def on_meta(build, *args, **kwargs):
    with torch.device("meta"):
        return build(*args, **kwargs)


def vit_flops(hidden, mlp, depth, patch=16, grid=14, classes=1000):
    """By hand: 2 x multiply-accumulates of all matrix products; the number of heads makes no difference."""
    tokens = grid * grid + 1
    embedding = grid * grid * 3 * patch * patch * hidden
    attention = 4 * tokens * hidden * hidden + 2 * tokens * tokens * hidden  # q, k, v, out; q k^T and a v
    return 2 * (embedding + depth * (attention + 2 * tokens * hidden * mlp) + hidden * classes)


def paper_flops(hidden, mlp, depth, heads=6, patch=16, grid=14, classes=1000):
    """As the paper's Table 1 counts: MLPs twice, softmax with three operations an entry."""
    patches, tokens = grid * grid, grid * grid + 1
    block = 8 * tokens * hidden**2 + 4 * tokens**2 * hidden + 3 * heads * tokens**2 + 8 * tokens * hidden * mlp
    return 2 * patches * 3 * patch**2 * hidden + depth * block + 2 * hidden * classes


TABLE_1 = [  # method, size, GFLOPs as printed, GFLOPs counted rightly
    ("hidden", 132, 4.5, 2.53),
    ("mlp", 144, 4.7, 4.14),
    ("depth", 4, 5.0, 3.14),
    ("hybrid", 216, 4.8, None),  # about 216: 210 would be printed as 4.6, 216 as 4.9
    ("hidden", 252, 9.1, None),
    ("mlp", 736, 9.0, 6.29),
    ("depth", 7, 8.7, None),
]


@pytest.mark.parametrize(
    ("build", "method", "size", "printed", "right"),
    [(torchvision_vit_s, *row) for row in TABLE_1] + [(timm_vit_s, *row) for row in TABLE_1[2:4]],
)
def test_the_rows_of_table_1(build, method, size, printed, right):
    scaled = scale_model(on_meta(build), method, size=size)
    expected = {"hidden": 384, "mlp": 1536, "depth": 12, "heads": 6} | {method: size}
    if method == "hybrid":
        expected = {"hidden": 216, "mlp": 864, "depth": 12, "heads": 6}
    assert scaled.configuration == expected
    sizes = (expected["hidden"], expected["mlp"], expected["depth"])
    assert scaled.flops == vit_flops(*sizes)
    assert paper_flops(*sizes) / 1e9 == pytest.approx(printed, abs=0.1 if method == "hybrid" else 0.06)
    if right is not None:
        assert scaled.flops / 1e9 == pytest.approx(right, abs=0.006)
    assert scaled.model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)


def sizes_of(model):
    """Hidden size, MLP, depth, of ViTs of both libraries, from their weights."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    depth = sum(name.endswith(("norm1.weight", "ln_1.weight")) for name in shapes)
    mlp = next(shape for name, shape in shapes.items() if name.endswith(("fc1.weight", "mlp.0.weight")))
    return mlp[1], mlp[0], depth


@pytest.mark.parametrize(
    ("method", "size", "printed", "right"),
    TABLE_1[:4] + [pytest.param(*row, marks=pytest.mark.slow) for row in TABLE_1[4:]],
)
def test_the_rows_are_found_from_their_cost_as_the_paper_counts_it(method, size, printed, right):
    base = on_meta(torchvision_vit_s)
    scaled = scale_model(base, method, flops=printed * 1e9, count=lambda model, shape: paper_flops(*sizes_of(model)))
    found = scaled.configuration["hidden" if method == "hybrid" else method]
    # a printed figure stands for an interval of 0.1 GFLOPs: next to the paper's size
    assert abs(found - size) <= {"hidden": 6, "hybrid": 6, "mlp": 8, "depth": 0}[method]


def test_equal_cost_to_a_lower_resolution():
    """The closest of all sizes, by exhaustive search over the hand count."""
    vit = on_meta(timm_vit_s, depth=2)
    low = count_flops(scale_vit(copy.deepcopy(vit), grid=11), (1, 3, 176, 176))
    assert low == vit_flops(384, 1536, 2, grid=11)
    for method, costs in {
        "hidden": {6 * k: vit_flops(6 * k, 1536, 2) for k in range(1, 100)},
        "mlp": {m: vit_flops(384, m, 2) for m in range(1, 2000)},
        "depth": {blocks: vit_flops(384, 1536, blocks) for blocks in range(1, 20)},
        "hybrid": {6 * k: vit_flops(6 * k, 24 * k, 2) for k in range(1, 100)},
    }.items():
        scaled = scale_model(vit, method, flops=low)
        closest = min(costs, key=lambda size: abs(costs[size] - low))
        assert scaled.configuration["hidden" if method == "hybrid" else method] == closest, method
        assert scaled.flops == costs[closest]
        assert scaled.deviation == pytest.approx(costs[closest] / low - 1)
        assert sizes_of(scaled.model)[0] == scaled.configuration["hidden"]


def test_what_is_not_within_one_percent_is_named():
    vit = on_meta(torchvision_vit_s)
    scaled = scale_model(vit, "depth", flops=2.88e9)
    # vit_flops: 3.1436 for 4 blocks (3.1436 / 2.88 = 1.0915), 2.3869 for 3
    assert str(scaled) == (
        "depth scaling (hidden 384, mlp 1536, depth 4, heads 6): 3.144 GFLOPs, +9.1% from 2.88, "
        "the closest there is (depth 3: 2.387)"
    )
    near = scale_model(vit, "mlp", flops=5.5e9)
    assert abs(near.deviation) < 0.001
    assert "closest" not in str(near)


@pytest.mark.parametrize("mlp", [61, 117, 239])
def test_an_mlp_is_as_wide_as_asked(mlp):
    """timm takes a ratio and rounds the product down: 117 / 216 x 216 is 116.99999999999999."""
    base = on_meta(timm_vit_s, embed_dim=216, depth=1)
    assert sizes_of(scale_model(base, "mlp", size=mlp).model) == (216, mlp, 1)


def test_larger_networks_too():
    vit = on_meta(torchvision_vit_s)
    scaled = scale_model(vit, "mlp", flops=vit_flops(384, 2000, 12))
    assert scaled.configuration["mlp"] == 2000
    assert scaled.deviation == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm_vit_s(depth=2, class_token=False, global_pool="avg", reg_tokens=4, num_classes=7, in_chans=3),
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=2),
        lambda: timm.create_model("deit3_small_patch16_224", depth=2, drop_path_rate=0.2),
        lambda: VisionTransformer(
            image_size=64, patch_size=16, num_layers=2, num_heads=6, hidden_dim=384, mlp_dim=96, representation_size=10
        ),
    ],
)
def test_the_family_stays(build):
    base = build().eval()
    rebuilt = scale_model(base, "depth", size=2).model
    shapes = {name: tensor.shape for name, tensor in base.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes
    assert type(rebuilt) is type(base)
    assert not rebuilt.training

    heads = scale_model(base, "hidden", size=36).configuration["heads"]
    small = scale_model(base, "hidden", size=12 * heads).model
    side = 64 if isinstance(base, VisionTransformer) else 224
    assert small(torch.randn(1, 3, side, side)).shape == base(torch.randn(1, 3, side, side)).shape


def test_a_scaled_resolution_is_the_base_of_a_scaled_model():
    for build in (timm_vit_s, torchvision_vit_s):
        vit = scale_vit(on_meta(build), grid=8, patch_size=12)
        scaled = scale_model(vit, "depth", size=3)
        assert scaled.flops == vit_flops(384, 1536, 3, patch=12, grid=8)


def test_new_weights_are_random_and_the_base_keeps_its_own():
    base = timm_vit_s(depth=2).half().eval()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    scaled = scale_model(base, "depth", size=2)
    assert scaled.model.head.weight.dtype == torch.float16
    assert not torch.equal(scaled.model.head.weight, base.head.weight)
    # as timm: normal, standard deviation 0.02
    assert scaled.model.blocks[0].attn.qkv.weight.float().std().item() == pytest.approx(0.02, rel=0.02)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


# Width


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


# Bad input


@pytest.mark.parametrize(
    ("method", "kwargs", "error", "text"),
    [
        ("hidden", {"flops": 1e9, "size": 132}, ValueError, "not both"),
        ("hidden", {}, ValueError, "give flops"),
        ("height", {"size": 132}, ValueError, "expected one of 'width', 'hidden', 'mlp', 'depth', 'hybrid'"),
        ("hidden", {"size": 130}, ValueError, "6 heads: the nearest are 126 and 132"),
        ("hybrid", {"size": 4}, ValueError, "the nearest are 6"),
        ("depth", {"size": 3.5}, ValueError, "positive whole number, the depth"),
        ("mlp", {"size": 0}, ValueError, "positive whole number, the mlp"),
        ("depth", {"flops": -1.0}, ValueError, "positive number of operations"),
        ("depth", {"flops": float("nan")}, ValueError, "positive number of operations"),
        ("mlp", {"flops": 0.5e9}, ValueError, r"mlp scaling cannot reach 0.5 GFLOPs: .* with mlp 1, has"),
        ("width", {"size": 0.5}, TypeError, "is neither a convolution nor"),
    ],
)
def test_what_cannot_be_is_refused(method, kwargs, error, text):
    with pytest.raises(error, match=text):
        scale_model(on_meta(timm_vit_s, depth=2), method, **kwargs)


@pytest.mark.parametrize("factor", [0, -0.5, True, "0.5", float("inf")])
def test_a_width_is_a_factor(factor):
    with pytest.raises(ValueError, match="expected the factor of the width"):
        scale_model(on_meta(torchvision.models.resnet18), "width", size=factor)


def test_networks_that_cannot_be_scaled_are_named():
    with pytest.raises(TypeError, match="ResNet cannot be built with other dimensions"):
        scale_model(on_meta(torchvision.models.resnet18), "hidden", size=12)
    with pytest.raises(TypeError, match="SwinTransformer cannot be built"):
        scale_model(on_meta(torchvision.models.swin_t), "depth", size=12)
    with pytest.raises(TypeError, match="does not begin with a convolution"):
        scale_model(nn.Linear(3, 3), "width", size=0.5)
    with pytest.raises(TypeError, match="DenseNet cannot be run with width"):
        scale_model(on_meta(torchvision.models.densenet121), "width", flops=1e9)
    changed = timm_vit_s(depth=2)
    changed.head = nn.Sequential(nn.Linear(384, 10), nn.Linear(10, 1000))
    with pytest.raises(TypeError, match=r"was changed since it was built.*head"):
        scale_model(changed, "depth", size=1)
