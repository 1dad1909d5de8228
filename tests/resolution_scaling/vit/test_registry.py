"""The registry of families, and a family from outside the package."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn as nn
from torchvision.models import resnet18

import resolution_scaling as rs
from resolution_scaling.vit.family import Dimensions
from resolution_scaling.vit.registry import VIT_FAMILIES, is_vit
from resolution_scaling.vit.resampling import resample_position_embedding, resize_patch_convolution
from resolution_scaling.vit.scaling import scale_vit

from .test_resampling import cubic_matrix
from .vits import timm_vit


class ShortViT(nn.Module):
    """A vision transformer of its own: two position embeddings, added, one for rows and one for columns."""

    def __init__(self, grid=6, patch=4, width=8, mlp=16, blocks=2):
        super().__init__()
        self.grid = grid
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.rows, self.columns = (nn.Parameter(torch.randn(1, grid, width)) for _ in range(2))
        layers = (nn.TransformerEncoderLayer(width, 2, mlp, batch_first=True) for _ in range(blocks))
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(width, 3)

    def forward(self, image):
        position = (self.rows[:, :, None] + self.columns[:, None]).flatten(1, 2)
        tokens = self.patches(image).flatten(2).transpose(1, 2) + position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


class ShortViTFamily(rs.ViTFamily):
    name = "short ViT"

    def recognizes(self, model):
        return isinstance(model, ShortViT)

    def token_sizes(self, model):
        grid, patch = model.grid, model.patches.kernel_size[0]
        return rs.TokenSizes((grid * patch,) * 2, (grid, grid), (patch, patch))

    def resize(self, model, sizes):
        old, new = model.grid, sizes.grid[0]
        for name in ("rows", "columns"):
            embedding = getattr(model, name).detach()
            setattr(model, name, nn.Parameter(resample_position_embedding(embedding, (old, 1), (new, 1), 0)))
        model.grid = new
        if sizes.patch_size != model.patches.kernel_size:
            resize_patch_convolution(model.patches, sizes.patch_size)

    def dimensions(self, model):
        block = model.blocks[0]
        return Dimensions(block.linear1.in_features, block.linear1.out_features, len(model.blocks), 2)

    def rebuild(self, model, dimensions):
        patch = model.patches.kernel_size[0]
        return ShortViT(model.grid, patch, dimensions.hidden, dimensions.mlp, dimensions.depth)


@pytest.fixture
def registered():
    rs.register_vit_family(ShortViTFamily)
    yield
    rs.unregister_vit_family(ShortViTFamily.name)


@pytest.mark.usefixtures("registered")
def test_a_family_from_outside_is_scaled_and_undone():
    model = ShortViT().eval()
    before, image = copy.deepcopy(model), torch.rand(2, 1, 24, 24)
    small = rs.scale_resolution(model, grid=3, patch_size=6)
    assert rs.token_sizes(small) == ((18, 18), (3, 3), (6, 6))
    expected = cubic_matrix(6, 3) @ before.rows[0].detach().numpy()  # plain loops
    np.testing.assert_allclose(small.rows[0].detach().numpy(), expected, atol=1e-5)
    assert small(torch.rand(2, 1, 18, 18)).shape == (2, 3)
    assert torch.equal(rs.undo_scaling(small)(image), before(image))


@pytest.mark.usefixtures("registered")
def test_a_family_from_outside_is_profiled_compared_and_has_rivals():
    model = ShortViT()
    costs = rs.compare_resolutions(model, [12, 24], in_channels=1)
    # patches of 4 x 4 px and 8 channels; 2 blocks: projections 4 x 8 x 8, scores and their use, an MLP of 16; a head
    for side in (12, 24):
        tokens = (side // 4) ** 2
        macs = tokens * 16 * 8 + 2 * (4 * tokens * 64 + 2 * tokens**2 * 8 + 2 * tokens * 8 * 16) + 8 * 3
        assert costs.reports["tokens", f"{side} px"].macs == macs
    assert rs.scale_model(model, "depth", size=1).configuration == {"hidden": 8, "mlp": 16, "depth": 1, "heads": 2}


@pytest.mark.usefixtures("registered")
def test_names_are_unique():
    with pytest.raises(ValueError, match="name of ShortViTFamily is 'short ViT'; expected a name that no other"):
        rs.register_vit_family(ShortViTFamily)


def test_families_are_unregistered_by_their_names():
    rs.register_vit_family(ShortViTFamily)
    rs.unregister_vit_family("short ViT")
    assert "short ViT" not in VIT_FAMILIES
    assert not is_vit(ShortViT())
    with pytest.raises(ValueError, match="no family is named 'short ViT'; known are 'torchvision"):
        rs.unregister_vit_family("short ViT")


@pytest.mark.parametrize("family", [ShortViT, ShortViTFamily(), "timm"])
def test_only_families_are_registered(family):
    with pytest.raises(TypeError, match="expected a subclass of ViTFamily"):
        rs.register_vit_family(family)


def test_a_family_without_a_name():
    with pytest.raises(ValueError, match="name of Nameless is ''"):
        rs.register_vit_family(type("Nameless", (rs.ViTFamily,), {}))


def test_the_last_family_is_asked_first():
    """A family of one's own can take models from a general one."""

    class WideTimm(type(VIT_FAMILIES["timm"])):
        name = "wide timm"

        def recognizes(self, model):
            return super().recognizes(model) and model.embed_dim > 100

        def patch_can_change(self, model):
            return False

    rs.register_vit_family(WideTimm)
    try:
        with pytest.raises(ValueError, match="a token stays 16 px wide"):
            scale_vit(timm.create_model("vit_tiny_patch16_224", depth=1), patch_size=8)
        scale_vit(timm_vit(), patch_size=8)
    finally:
        rs.unregister_vit_family(WideTimm.name)


def test_a_family_without_rebuild_has_no_rivals():
    class NoRivals(ShortViTFamily):
        rebuild = rs.ViTFamily.rebuild

    rs.register_vit_family(NoRivals)
    try:
        with pytest.raises(TypeError, match=r"ShortViT cannot be built with other dimensions .*'short ViT'"):
            rs.scale_model(ShortViT(), "depth", size=1)
    finally:
        rs.unregister_vit_family(NoRivals.name)


@pytest.mark.parametrize("build", [resnet18, lambda: nn.Sequential(timm_vit()), lambda: nn.Linear(2, 2)])
def test_other_models_are_refused(build):
    model = build()
    assert not is_vit(model)
    with pytest.raises(TypeError, match="Pass the transformer itself"):
        scale_vit(model, grid=8)


def test_neither_library_is_imported_until_it_is_used():
    code = "import sys, resolution_scaling.vit.scaling; sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
