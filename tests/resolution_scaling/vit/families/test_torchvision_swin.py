import pytest
import torch
from timm.layers import resample_patch_embed

from resolution_scaling.vit.registry import token_sizes
from resolution_scaling.vit.scaling import scale_vit, undo_vit_scaling

from ..vits import assert_same, tensors, torchvision_swin


@torch.no_grad()
def test_swin_of_torchvision_takes_any_size_but_not_any_patch():
    model = torchvision_swin()
    before = tensors(model)
    scale_vit(model, image_size=128)
    assert_same(model, before)
    assert model(torch.randn(1, 3, 128, 128)).shape == (1, 5)
    with pytest.raises(ValueError, match=r"128 px \(grid 32\) and 132 px \(grid 33\)"):
        scale_vit(model, image_size=130)

    weight = model.features[0][0].weight.clone()
    scale_vit(model, patch_size=3)
    assert token_sizes(model) == (None, None, (3, 3))
    torch.testing.assert_close(model.features[0][0].weight, resample_patch_embed(weight, (3, 3)), atol=1e-5, rtol=1e-4)
    assert model(torch.randn(1, 3, 96, 96)).shape == (1, 5)
    assert_same(undo_vit_scaling(model), before)
