import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torchvision.models import SwinTransformer, VisionTransformer, resnet18

from resolution_scaling.vit.resampling import resample_patch_embedding, resample_position_embedding
from resolution_scaling.vit.scaling import is_vit, scale_vit, token_sizes, unscale_vit

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
TIMM_SWIN = {"embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 5}


def torchvision_vit(**kwargs):
    sizes = {"image_size": 224, "patch_size": 16, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
    model = VisionTransformer(**(sizes | kwargs), num_classes=5)
    nn.init.normal_(model.heads[0].weight)  # torchvision starts with zeros, which would hide every difference
    return model.eval()


def torchvision_swin():
    return SwinTransformer([4, 4], 12, [2, 2], [1, 2], [7, 7], num_classes=5).eval()


def timm_vit(name="vit_tiny_patch16_224", **kwargs):
    return timm.create_model(name, **(TINY | kwargs)).eval()


MODELS = {
    "torchvision ViT": torchvision_vit,
    "timm ViT": timm_vit,
    "no class token": lambda: timm_vit(class_token=False, global_pool="avg"),
    "register tokens": lambda: timm_vit(reg_tokens=4),
    "registers without position": lambda: timm_vit(reg_tokens=4, no_embed_class=True),
    "dynamic size": lambda: timm_vit(dynamic_img_size=True),
    "DeiT": lambda: timm_vit("deit_tiny_patch16_224"),
    "distilled DeiT": lambda: timm_vit("deit_tiny_distilled_patch16_224"),
    "rotary (EVA)": lambda: timm_vit("eva02_tiny_patch14_224"),
    "relative positions (BEiT)": lambda: timm_vit("beit_base_patch16_224"),
    "relative positions": lambda: timm_vit("vit_relpos_small_patch16_224"),
    "Swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", **TIMM_SWIN).eval(),
    "Swin V2": lambda: timm.create_model("swinv2_tiny_window8_256", **TIMM_SWIN).eval(),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def tensors(model):
    return {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def attributes(model):
    """Everything plain that the modules hold."""
    return {
        (path, name): repr(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, (int, float, str, tuple, list, type(None)))
    }


def assert_same(model, expected):
    assert expected.keys() == tensors(model).keys()
    for name, tensor in tensors(model).items():
        assert torch.equal(tensor, expected[name]), name


@torch.no_grad()
def logits(model):
    generator = torch.Generator().manual_seed(3)
    height, width = token_sizes(model).image_size
    return model(torch.randn(2, 3, height, width, generator=generator))


# Resampling, against second implementations


def cubic_matrix(old, new):
    """Antialiased bicubic resizing of one axis in plain loops: Keys' kernel with a = -1/2, centres at i + 1/2."""

    def kernel(x):
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    matrix = np.zeros((new, old))
    scale = old / new
    widening = max(scale, 1.0)  # the filter covers what one new cell covers
    for i in range(new):
        for j in range(old):
            matrix[i, j] = kernel((j + 0.5 - (i + 0.5) * scale) / widening)
        matrix[i] /= matrix[i].sum()
    return matrix


@pytest.mark.parametrize("new", [(12, 12), (8, 8), (24, 24), (12, 20)])
def test_patch_embedding_is_resized_by_the_pseudo_inverse_of_the_resize_matrix(new):
    weight = torch.randn(4, 3, 16, 16)
    resize = np.kron(cubic_matrix(16, new[0]), cubic_matrix(16, new[1]))  # of a patch as one vector, row by row
    expected = weight.numpy().reshape(12, 256) @ np.linalg.pinv(resize, rcond=1e-10)  # of 12 x 20 its rank is 192
    np.testing.assert_allclose(
        resample_patch_embedding(weight, new).numpy().reshape(12, -1), expected, atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("new", [8, 11, 14, 20])
def test_position_embedding_is_resized_as_an_image(new):
    embedding = torch.randn(1, 2 + 14 * 14, 4)
    matrix = cubic_matrix(14, new)
    image = embedding[0, 2:].numpy().reshape(14, 14, 4)
    expected = np.einsum("ih,jw,hwc->ijc", matrix, matrix, image).reshape(new * new, 4)
    resampled = resample_position_embedding(embedding, (14, 14), (new, new), prefix_tokens=2)
    torch.testing.assert_close(resampled[:, :2], embedding[:, :2], rtol=0, atol=0)
    np.testing.assert_allclose(resampled[0, 2:].numpy(), expected, atol=1e-5)


def test_one_token_of_a_grid_is_the_mean_of_all():
    embedding = torch.full((1, 5, 3), 7.0)
    torch.testing.assert_close(resample_position_embedding(embedding, (2, 2), (1, 1)), torch.full((1, 2, 3), 7.0))


def test_resampling_agrees_with_timm():
    weight, embedding = torch.randn(4, 3, 16, 16), torch.randn(1, 1 + 14 * 14, 4)
    for size in (8, 12, 24):
        torch.testing.assert_close(
            resample_patch_embedding(weight, (size, size)),
            resample_patch_embed(weight, (size, size)),
            atol=3e-5,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            resample_position_embedding(embedding, (14, 14), (size, size)),
            resample_abs_pos_embed(embedding, (size, size)),
        )


def test_an_enlarged_patch_gives_the_token_that_it_gave():
    patches, weight = torch.randn(6, 3, 8, 8), torch.randn(5, 3, 8, 8)
    enlarged = F.interpolate(patches, size=(20, 20), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        F.conv2d(enlarged, resample_patch_embedding(weight, (20, 20))), F.conv2d(patches, weight), atol=1e-4, rtol=1e-4
    )


# Scaled models


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
    unscale_vit(duplicate)
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
        unscale_vit(model)
    assert torch.equal(model.pos_embed, trained)
    scale_vit(model, grid=6)
    torch.testing.assert_close(model.pos_embed, resample_abs_pos_embed(trained, (6, 6)))
    unscale_vit(model)
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
    unscale_vit(model)
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
        unscale_vit(model)
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
    assert_same(unscale_vit(torch.load(file, weights_only=False)), before)


def test_little_is_kept():
    model = timm.create_model("vit_small_patch16_224", depth=1)
    size = len(pickle.dumps(model))
    scale_vit(model, grid=11)
    # the embeddings of 197 and of 122 tokens and their copy replace one of 197: 2 x 122 x 384 floats more
    assert len(pickle.dumps(model)) - size == pytest.approx(2 * 122 * 384 * 4, rel=0.1)


# Swin


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
    unscale_vit(model)
    assert model.layers[0].blocks[0].attn.relative_position_bias_table is table
    assert [info["reduction"] for info in model.feature_info] == [4, 8]


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
    assert_same(unscale_vit(model), before)


def test_hooks_on_the_patch_embedding_of_torchvision_stay():
    model, seen = torchvision_vit(), []
    model.conv_proj.register_forward_hook(lambda module, args, output: seen.append(output.shape[-2:]))
    logits(scale_vit(model, patch_size=12, grid=8))
    assert seen == [(8, 8)]


# Bad input


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ValueError, "at least one of image_size, grid and patch_size"),
        ({"image_size": 130}, ValueError, r"128 px \(grid 8\) and 144 px \(grid 9\)"),
        # 130 = 2 x 5 x 13
        ({"image_size": 130}, ValueError, "the nearest patch sizes for 130 px are 13 px and 26 px"),
        ({"image_size": 130, "patch_size": 12}, ValueError, r"120 px \(grid 10\) and 132 px \(grid 11\)"),
        ({"image_size": 130, "patch_size": 12}, ValueError, "10 px and 13 px"),
        ({"image_size": 8}, ValueError, r"the nearest sizes are 16 px \(grid 1\)"),
        ({"image_size": 130, "grid": 11}, ValueError, "121 px and 132 px"),
        ({"image_size": 128, "grid": 11, "patch_size": 16}, ValueError, "here 176 px"),
        ({"image_size": (128, 128)}, TypeError, "one whole number of px, the side of a square"),
        ({"image_size": 128.0}, TypeError, "one whole number of px"),
        ({"grid": "11"}, TypeError, "grid is '11'; expected one whole number of tokens"),
        ({"grid": True}, TypeError, "one whole number of tokens"),
        ({"patch_size": 0}, ValueError, "patch_size is 0; expected at least 1"),
        ({"grid": -3}, ValueError, "at least 1"),
    ],
)
@pytest.mark.parametrize("build", [torchvision_vit, timm_vit])
def test_sizes_that_do_not_fit_are_refused(build, given, error, text):
    model = build()
    before, plain = tensors(model), attributes(model)
    with pytest.raises(error, match=text):
        scale_vit(model, **given)
    assert_same(model, before)
    assert attributes(model) == plain


def test_patches_that_cannot_change():
    hybrid = timm_vit("vit_tiny_r_s16_p8_224")  # a CNN, then patches of its maps: a token is 32 px wide
    assert token_sizes(hybrid) == ((224, 224), (7, 7), (32, 32))
    with pytest.raises(ValueError, match="a token stays 32 px wide"):
        scale_vit(hybrid, patch_size=16)
    scale_vit(hybrid, grid=5)
    assert logits(hybrid).shape == (2, 5)


@pytest.mark.parametrize("build", [resnet18, lambda: nn.Sequential(timm_vit()), lambda: nn.Linear(2, 2)])
def test_other_models_are_refused(build):
    model = build()
    assert not is_vit(model)
    with pytest.raises(TypeError, match="Pass the transformer itself"):
        scale_vit(model, grid=8)


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
    unscale_vit(model)
    assert token_sizes(model).grid == (14, 14)


def test_undoing_what_was_not_scaled_does_nothing():
    model = timm_vit()
    before = tensors(model)
    assert_same(unscale_vit(model), before)


def test_neither_library_is_imported_until_it_is_used():
    code = "import sys, resolution_scaling.vit.scaling; sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
