import copy
import io
import pickle

import numpy as np
import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torchvision.models import VisionTransformer

from resolution_scaling.vit.registry import token_sizes
from resolution_scaling.vit.resampling import resample_position_embedding
from resolution_scaling.vit.scaling import scale_vit, undo_vit_scaling

from .vits import MODELS, TIMM_SWIN, assert_same, attributes, logits, tensors, timm_vit, torchvision_vit


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_original_sizes_change_nothing(model):
    before, output, held = tensors(model), logits(model), dict(model.named_parameters())
    sizes = token_sizes(model)
    scale_vit(model, grid=sizes.grid[0])
    scale_vit(model, image_size=sizes.image_size[0], patch_size=sizes.patch_size[0])
    assert_same(model, before)
    assert all(held[name] is parameter for name, parameter in model.named_parameters())
    assert torch.equal(logits(model), output)


def test_scaling_twice_is_scaling_once_and_undone_to_the_bit(model):
    before, output, plain = tensors(model), logits(model), attributes(model)
    sizes = token_sizes(model)
    once = copy.deepcopy(model)
    scale_vit(once, grid=10, patch_size=12)
    assert token_sizes(once) == ((120, 120), (10, 10), (12, 12))
    assert logits(once).shape == (2, 5)

    scale_vit(model, grid=6)
    scale_vit(model, patch_size=24)
    scale_vit(model, image_size=120, patch_size=12)
    assert_same(model, tensors(once))
    assert torch.equal(logits(model), logits(once))

    duplicate = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    undo_vit_scaling(duplicate)
    assert_same(duplicate, before)
    scale_vit(model, grid=sizes.grid[0], patch_size=sizes.patch_size[0])
    assert_same(model, before)
    assert attributes(model) == plain
    assert torch.equal(logits(model), output)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"grid": 11}, (176, 11, 16)),
        ({"patch_size": 12}, (168, 14, 12)),
        ({"image_size": 128}, (128, 8, 16)),
        ({"grid": 11, "patch_size": 12}, (132, 11, 12)),
        ({"image_size": 224, "patch_size": 32}, (224, 7, 32)),
        ({"image_size": 132, "grid": 11}, (132, 11, 12)),
        ({"image_size": 132, "grid": 11, "patch_size": 12}, (132, 11, 12)),
        ({"grid": np.int64(8)}, (128, 8, 16)),
    ],
)
@pytest.mark.parametrize("build", [torchvision_vit, timm_vit])
def test_any_two_sizes_give_the_third(build, given, expected):
    model = build()
    assert scale_vit(model, **given) is model
    assert token_sizes(model) == tuple((side, side) for side in expected)
    assert logits(model).shape == (2, 5)


def test_weights_are_those_that_the_library_takes():
    """A model built by its library at the scaled sizes takes the weights, and gives the same."""
    scaled = scale_vit(torchvision_vit(), grid=11, patch_size=12)
    built = torchvision_vit(image_size=132, patch_size=12)
    built.load_state_dict(scaled.state_dict())
    assert torch.equal(logits(built), logits(scaled))
    assert built.seq_length == scaled.seq_length == 11 * 11 + 1

    scaled = scale_vit(timm_vit(), grid=11, patch_size=12)
    built = timm_vit(img_size=132, patch_size=12)
    built.load_state_dict(scaled.state_dict())
    assert torch.equal(logits(built), logits(scaled))

    swin = MODELS["Swin"]()
    scale_vit(swin, image_size=128)
    built = timm.create_model("swin_tiny_patch4_window7_224", img_size=128, window_size=4, **TIMM_SWIN).eval()
    built.load_state_dict(swin.state_dict())
    assert torch.equal(logits(built), logits(swin))


def test_both_libraries_are_scaled_alike():
    ours, theirs = torchvision_vit(), timm_vit()
    with torch.no_grad():
        theirs.pos_embed.copy_(ours.encoder.pos_embedding)
        theirs.patch_embed.proj.weight.copy_(ours.conv_proj.weight)
    for model in (ours, theirs):
        scale_vit(model, grid=8, patch_size=12)
    torch.testing.assert_close(ours.encoder.pos_embedding, theirs.pos_embed)
    torch.testing.assert_close(ours.conv_proj.weight, theirs.patch_embed.proj.weight, atol=1e-5, rtol=1e-4)


def smooth_image(side):
    """One and the same scene at any number of pixels, sampled at their centres: [1, 3, side, side]."""
    x = (torch.arange(side) + 0.5) / side
    rows, columns = torch.meshgrid(x, x, indexing="ij")
    waves = [torch.sin(2 * torch.pi * (rows + k * columns)) + k * torch.cos(3 * rows - columns) for k in range(3)]
    return torch.stack(waves)[None]


def smooth_vit(build):
    """A ViT as training makes them: position embeddings and patch filters that vary slowly."""
    model = build()
    position, filters = (
        (model.encoder.pos_embedding, model.conv_proj.weight)
        if isinstance(model, VisionTransformer)
        else (model.pos_embed, model.patch_embed.proj.weight)
    )
    with torch.no_grad():
        grid = F.interpolate(torch.randn(1, 24, 3, 3), size=(14, 14), mode="bicubic", align_corners=True)
        position[:, 1:] = 3 * grid.flatten(2).transpose(1, 2)
        filters.copy_(F.interpolate(torch.randn(24, 3, 3, 3), size=(16, 16), mode="bicubic", align_corners=True) / 16)
    return model


def without_resampling(original, scaled):
    """The scaled model with what fits of the original weights: a corner of the grid, a corner of the filters."""
    cropped, whole = copy.deepcopy(scaled), dict(original.named_parameters())
    for name, parameter in cropped.named_parameters():
        if whole[name].shape != parameter.shape:
            parameter.zero_()
            corner = tuple(slice(min(sides)) for sides in zip(whole[name].shape, parameter.shape, strict=True))
            parameter[corner] = whole[name][corner]
    return cropped


@pytest.mark.parametrize("build", [torchvision_vit, timm_vit])
@pytest.mark.parametrize(
    ("sizes", "within"),
    [
        ({"patch_size": 24}, 2e-4),  # nothing is lost
        ({"patch_size": 12}, 2e-3),
        ({"grid": 12, "patch_size": 14}, 0.02),  # patches that show more of the scene
        ({"grid": 11}, 0.04),
    ],
)
@torch.no_grad()
def test_a_smooth_scene_gives_nearly_the_same_outputs(build, sizes, within):
    original = smooth_vit(build)
    scaled = scale_vit(copy.deepcopy(original), **sizes)
    full, image = original(smooth_image(224)), smooth_image(token_sizes(scaled).image_size[0])
    difference = (scaled(image) - full).norm() / full.norm()
    naive = (without_resampling(original, scaled)(image) - full).norm() / full.norm()
    assert difference < within
    assert difference < naive / 5


def test_training_goes_on_from_the_trained_weights():
    model = scale_vit(timm_vit(), grid=8)
    with torch.no_grad():
        model.pos_embed.add_(1.0)  # a step of training
    trained = model.pos_embed.detach().clone()
    with pytest.raises(ValueError, match="trained, or loaded"):
        undo_vit_scaling(model)
    assert torch.equal(model.pos_embed, trained)
    scale_vit(model, grid=6)
    torch.testing.assert_close(model.pos_embed, resample_abs_pos_embed(trained, (6, 6)))
    undo_vit_scaling(model)
    assert torch.equal(model.pos_embed, trained)


def test_loaded_weights_are_the_new_originals():
    checkpoint = scale_vit(torchvision_vit(), grid=8).state_dict()
    model = scale_vit(torchvision_vit(), grid=8)
    model.load_state_dict(checkpoint)
    scale_vit(model, grid=4)
    expected = resample_position_embedding(checkpoint["encoder.pos_embedding"], (8, 8), (4, 4))
    assert torch.equal(model.encoder.pos_embedding, expected)


@pytest.mark.parametrize("build", [torchvision_vit, timm_vit])
def test_what_happened_to_a_scaled_model_stays_when_it_is_undone(build):
    model = build()
    patches = "conv_proj" if isinstance(model, VisionTransformer) else "patch_embed.proj"
    before = copy.deepcopy(model).half()
    scale_vit(model, grid=11, patch_size=12)
    model.half().train().requires_grad_(False)
    undo_vit_scaling(model)
    assert_same(model, tensors(before))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert model.get_submodule(patches).kernel_size == (16, 16)


@pytest.mark.parametrize("build", [torchvision_vit, timm_vit])
def test_frozen_weights_stay_frozen(build):
    model = build().requires_grad_(False)
    scale_vit(model, grid=11, patch_size=12)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_on_the_meta_device():
    for build in (torchvision_vit, timm_vit):
        model = build().to("meta")
        scale_vit(model, grid=11, patch_size=12)
        assert model(torch.empty(1, 3, 132, 132, device="meta")).shape == (1, 5)
        undo_vit_scaling(model)
        assert token_sizes(model).image_size == (224, 224)


@pytest.mark.parametrize("build", [torchvision_vit, timm_vit, MODELS["Swin"]])
def test_export(build):
    model = build()
    scale_vit(model, grid=token_sizes(model).grid[0] // 2)
    images = torch.randn(2, 3, 112, 112)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images))


def test_saved_and_loaded_as_a_whole():
    model = timm_vit()
    before = tensors(model)
    file = io.BytesIO()
    torch.save(scale_vit(model, grid=11, patch_size=12), file)
    file.seek(0)
    assert_same(undo_vit_scaling(torch.load(file, weights_only=False)), before)


def test_little_is_kept():
    model = timm.create_model("vit_small_patch16_224", depth=1)
    size = len(pickle.dumps(model))
    scale_vit(model, grid=11)
    # the embeddings of 197 and of 122 tokens and their copy replace one of 197: 2 x 122 x 384 floats more
    assert len(pickle.dumps(model)) - size == pytest.approx(2 * 122 * 384 * 4, rel=0.1)


def test_a_failure_halfway_leaves_the_model_as_it_was(monkeypatch):
    model = scale_vit(timm_vit(), grid=12)
    before, plain, held = tensors(model), attributes(model), dict(model.named_parameters())

    def fail(self, img_size, patch_size):
        self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, 24))
        self.left_over = 1
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TimmViT, "set_input_size", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        scale_vit(model, grid=8, patch_size=8)
    monkeypatch.undo()
    assert_same(model, before)
    assert attributes(model) == plain
    assert not hasattr(model, "left_over")
    assert all(held[name] is parameter for name, parameter in model.named_parameters())
    undo_vit_scaling(model)
    assert token_sizes(model).grid == (14, 14)


def test_undoing_what_was_not_scaled_does_nothing():
    model = timm_vit()
    before = tensors(model)
    assert_same(undo_vit_scaling(model), before)
