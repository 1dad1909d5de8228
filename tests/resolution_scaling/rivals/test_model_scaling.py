import copy

import pytest
import timm
import torch
import torch.nn as nn
import torchvision
from torchvision.models import VisionTransformer

from resolution_scaling.rivals.model_scaling import flops_at, scale_model
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
    low = flops_at(scale_vit(copy.deepcopy(vit), grid=11), (1, 3, 176, 176))
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


@pytest.mark.parametrize("in_channels", [1, 2, 13])
def test_images_of_other_than_three_channels(in_channels):
    """As `vit_flops`, with other channels in the patch embedding: 14 x 14 patches of 16 x 16 px, hidden size 384."""
    from_timm = on_meta(timm_vit_s, depth=2, in_chans=in_channels)
    from_torchvision = on_meta(torchvision_vit_s)
    from_torchvision.conv_proj = nn.Conv2d(in_channels, 384, 16, 16, device="meta")
    patches = 2 * 14 * 14 * (in_channels - 3) * 16 * 16 * 384
    for vit in (from_timm, from_torchvision):
        low = scale_model(vit, "mlp", flops=vit_flops(384, 700, 2 if vit is from_timm else 12) + patches)
        assert low.configuration["mlp"] == 700
        assert low.deviation == 0
        assert low.model(torch.empty(1, in_channels, 224, 224, device="meta")).shape == (1, 1000)


def test_a_patch_embedding_of_one_channel_starts_as_torchvision_starts_it():
    base = VisionTransformer(image_size=32, patch_size=16, num_layers=1, num_heads=6, hidden_dim=384, mlp_dim=8)
    base.conv_proj = nn.Conv2d(1, 384, 16, 16)
    patches = scale_model(base, "depth", size=1).model.conv_proj
    assert patches.weight.shape == (384, 1, 16, 16)
    assert patches.weight.std().item() == pytest.approx(1 / 16, rel=0.02)  # of 16 x 16 inputs
    assert not patches.bias.any()


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


@pytest.mark.parametrize(
    ("method", "kwargs", "error", "text"),
    [
        ("hidden", {"flops": 1e9, "size": 132}, ValueError, "flops and size: both given; expected one"),
        ("hidden", {}, ValueError, "flops and size: neither given"),
        ("height", {"size": 132}, ValueError, "expected one of 'width', 'hidden', 'mlp', 'depth', 'hybrid'"),
        (
            "hidden",
            {"size": 130},
            ValueError,
            "a multiple of the 6 heads: the nearest are 126 and 132",
        ),
        ("hybrid", {"size": 4}, ValueError, "the nearest are 6"),
        ("depth", {"size": 3.5}, TypeError, "expected a whole number above 0, such as 2, the depth of the base"),
        ("mlp", {"size": 0}, ValueError, "expected a whole number above 0, such as 1536, the mlp of the base"),
        ("depth", {"flops": -1.0}, ValueError, "expected a number above 0, such as flops=1e9"),
        ("depth", {"flops": float("nan")}, ValueError, "expected a number above 0, such as flops=1e9"),
        ("mlp", {"flops": 0.5e9}, ValueError, r"mlp scaling cannot reach 0.5 GFLOPs: .* with mlp 1, has"),
        ("width", {"size": 0.5}, TypeError, "is neither a convolution nor"),
    ],
)
def test_what_cannot_be_is_refused(method, kwargs, error, text):
    with pytest.raises(error, match=text):
        scale_model(on_meta(timm_vit_s, depth=2), method, **kwargs)


def test_networks_that_cannot_be_scaled_are_named():
    with pytest.raises(TypeError, match="ResNet cannot be built with other dimensions"):
        scale_model(on_meta(torchvision.models.resnet18), "hidden", size=12)
    with pytest.raises(TypeError, match="SwinTransformer cannot be built"):
        scale_model(on_meta(torchvision.models.swin_t), "depth", size=12)
    with pytest.raises(TypeError, match="does not begin with a convolution"):
        scale_model(nn.Linear(3, 3), "width", size=0.5)
    with pytest.raises(TypeError, match=r"DenseNet with width .* cannot run on a"):
        scale_model(on_meta(torchvision.models.densenet121), "width", flops=1e9)
    changed = timm_vit_s(depth=2)
    changed.head = nn.Sequential(nn.Linear(384, 10), nn.Linear(10, 1000))
    with pytest.raises(TypeError, match=r"was changed since it was built.*head"):
        scale_model(changed, "depth", size=1)
