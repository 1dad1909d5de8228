"""One call for CNNs and vision transformers."""

import copy

import pytest
import timm
import torch
import torchvision

import resolution_scaling as rs


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def cnn():
    return torchvision.models.resnet18(num_classes=4).eval()


@pytest.fixture
def vit():
    return timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=4).eval()


def test_a_cnn_reads_full_images_and_works_at_the_lower_size(cnn):
    small = rs.scale_resolution(cnn, 160)
    maps = []
    small.layer1.register_forward_pre_hook(lambda layer, args: maps.append(args[0].shape[-1]))
    small(torch.rand(1, 3, 224, 224))
    assert maps == [40]  # 160 / 4


def test_a_vit_reads_smaller_images(vit):
    small = rs.scale_resolution(vit, grid=11)
    assert small(torch.rand(1, 3, 176, 176)).shape == (1, 4)
    assert rs.scale_resolution(vit, 160).patch_embed.num_patches == 100


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_the_original_stays_and_scaling_can_be_undone(kind, request):
    model = request.getfixturevalue(kind)
    before = copy.deepcopy(model)
    small = rs.scale_resolution(model, 160)
    assert small is not model
    assert equal(model, before)
    image = torch.rand(1, 3, 224, 224)
    assert torch.equal(rs.undo_scaling(small)(image), model(image))
    assert rs.scale_resolution(model, 160, inplace=True) is model
    assert torch.equal(rs.undo_scaling(model)(image), before(image))


def test_bad_arguments(cnn, vit):
    with pytest.raises(ValueError, match=r"method is 'rc' \(it changes the images.*transforms"):
        rs.scale_resolution(cnn, 160, method="rc")
    with pytest.raises(ValueError, match="method is 'half'; expected one of 'auto', 'fcr', 'tokens'"):
        rs.scale_resolution(cnn, 160, method="half")
    with pytest.raises(TypeError, match="ResNet is reduced by FCR: size is None, grid 11 and patch_size None"):
        rs.scale_resolution(cnn, grid=11)
    with pytest.raises(TypeError, match="interpolation cannot be used for a vision transformer"):
        rs.scale_resolution(vit, grid=11, interpolation="area")
