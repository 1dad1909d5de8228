"""The paper's Table 1, from its own convention."""

import json

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, vit_b_16

from resolution_scaling.cost.profiling import profile

VIT_S = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}
TABLE_1 = [  # what differs from ViT-S; as printed (Morlier et al., GRETSI 2025, Table 1): memory in MB, GFLOPs
    ({"hidden_dim": 132}, "25.9", "4.5"),
    ({"mlp_dim": 144}, "66.6", "4.7"),
    ({"num_layers": 4}, "65.3", "5.0"),
    ({"hidden_dim": 216, "mlp_dim": 848}, "39.4", "4.8"),
    ({"image_size": 8 * 8, "patch_size": 8}, "26.1", "4.7"),
    ({"image_size": 8 * 12, "patch_size": 12}, "32.0", "4.7"),
    ({"image_size": 8 * 16, "patch_size": 16}, "40.3", "4.7"),
    ({"image_size": 8 * 24, "patch_size": 24}, "63.9", "4.8"),
    ({"image_size": 8 * 32, "patch_size": 32}, "97.0", "4.8"),
    ({"hidden_dim": 252}, "50.7", "9.1"),
    ({"mlp_dim": 744}, "72.1", "9.0"),
    ({"num_layers": 7}, "70.6", "8.7"),
    ({"image_size": 11 * 8, "patch_size": 8}, "30.4", "8.9"),
    ({"image_size": 11 * 12, "patch_size": 12}, "41.6", "9.0"),
    ({"image_size": 11 * 16, "patch_size": 16}, "57.2", "9.0"),
    ({"image_size": 11 * 24, "patch_size": 24}, "101.8", "9.1"),
    ({"image_size": 11 * 32, "patch_size": 32}, "164.4", "9.2"),
]


def vit_s(**sizes):
    with torch.device("meta"):
        return VisionTransformer(**(VIT_S | sizes))


@pytest.mark.parametrize(("sizes", "memory_mb", "gflops"), TABLE_1)
def test_row(sizes, memory_mb, gflops):
    model = vit_s(**sizes)
    costs = profile(model, (1, 3, model.image_size, model.image_size), definition="gretsi2025")
    assert f"{costs.memory_bytes / 1e6:.1f}" == memory_mb
    assert f"{costs.flops / 1e9:.1f}" == gflops


def test_timm_and_torchvision_alike():
    """ViT-B/16, and the formula by hand: n = 196, S = 197, d = 768, m = 3072, h = 12, 12 blocks."""
    with torch.device("meta"):
        models = vit_b_16(), timm.create_model("vit_base_patch16_224")
    mine, theirs = (profile(model, (1, 3, 224, 224), definition="gretsi2025") for model in models)
    assert mine.flops == theirs.flops
    assert mine.memory_bytes == theirs.memory_bytes
    n, s, d, m = 196, 197, 768, 3072
    assert mine.flops == 2 * n * 768 * d + 12 * (8 * s * d**2 + 4 * s**2 * d + 36 * s**2 + 8 * s * d * m) + 2000 * d
    assert mine.memory_bytes == n * 768 * d + s * d + 12 * d * (4 * d + 2 * m) + s * (d + m)
    assert json.loads(mine.to_json())["flops"] == sum(mine.by_operator().values())
    assert "not the right cost" in str(mine)


def test_images_of_one_channel():
    """They change the patch embedding alone: 196 patches of 16 x 16 px, 384 channels of a token."""
    color, gray = (
        profile(timm.create_model("vit_small_patch16_224", in_chans=c), (1, c, 224, 224), definition="gretsi2025")
        for c in (3, 1)
    )
    weights = 196 * 16 * 16 * 384
    assert color.flops - gray.flops == 2 * 2 * weights
    assert color.weight_bytes - gray.weight_bytes == 2 * weights


@pytest.mark.parametrize(
    ("model", "shape", "text"),
    [
        (nn.Conv2d(3, 8, 3), (1, 3, 224, 224), "model is a Conv2d; definition='gretsi2025' is for vision transformers"),
        (vit_s(), (2, 3, 224, 224), "for one square image"),
        (vit_s(), (1, 3, 224, 192), "for one square image"),
        (vit_s(), (1, 1, 224, 224), "reads images of 3 channels: pass"),
    ],
)
def test_what_has_no_such_convention(model, shape, text):
    with pytest.raises(ValueError, match=text):
        profile(model, shape, definition="gretsi2025")
