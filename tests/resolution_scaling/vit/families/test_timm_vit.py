import pytest

from resolution_scaling.vit.registry import token_sizes
from resolution_scaling.vit.scaling import scale_vit, undo_vit_scaling

from ..vits import MODELS, logits, timm_vit


def test_swin_of_timm_shrinks_its_windows_with_the_grid():
    model = MODELS["Swin"]()
    table = model.layers[0].blocks[0].attn.relative_position_bias_table
    assert table.shape == (13 * 13, 1)  # windows of 7 in a grid of 56
    scale_vit(model, image_size=128)
    assert token_sizes(model) == ((128, 128), (32, 32), (4, 4))
    attention = model.layers[0].blocks[0].attn
    assert tuple(attention.window_size) == (4, 4)  # 32 / 56 x 7
    assert attention.relative_position_bias_table.shape == (7 * 7, 1)
    assert [info["reduction"] for info in model.feature_info] == [4, 8]
    scale_vit(model, patch_size=2)
    assert [info["reduction"] for info in model.feature_info] == [2, 4]
    undo_vit_scaling(model)
    assert model.layers[0].blocks[0].attn.relative_position_bias_table is table
    assert [info["reduction"] for info in model.feature_info] == [4, 8]


def test_patches_that_cannot_change():
    hybrid = timm_vit("vit_tiny_r_s16_p8_224")  # a CNN, then patches of its maps: a token is 32 px wide
    assert token_sizes(hybrid) == ((224, 224), (7, 7), (32, 32))
    with pytest.raises(ValueError, match="a token stays 32 px wide"):
        scale_vit(hybrid, patch_size=16)
    scale_vit(hybrid, grid=5)
    assert logits(hybrid).shape == (2, 5)
