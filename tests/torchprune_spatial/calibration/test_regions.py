import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from torchprune_spatial.calibration.regions import RegionMasks, otsu_threshold, regions_from_mask, regions_from_target


@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9), gap=st.floats(0.0, 3.0))
def test_otsu_agrees_with_scikit_image_to_half_a_bin(seed, share, gap):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(16, 16)) + gap * (rng.random((16, 16)) < share)
    half_a_bin = (image.max() - image.min()) / 256 / 2
    ours = otsu_threshold(torch.from_numpy(image)[None]).item()
    assert ours - half_a_bin == pytest.approx(threshold_otsu(image), abs=1e-9)


def test_otsu_is_taken_image_by_image():
    bright, dark = torch.tensor([[0.0, 0.1], [0.9, 1.0]]), torch.tensor([[0.0, 0.01], [0.09, 0.1]])
    regions = regions_from_target(torch.stack([bright, dark]), "otsu")
    assert regions[:, 0].tolist() == [[[0, 0], [1, 1]]] * 2


def test_a_constant_image_has_no_object_under_otsu():
    regions = regions_from_target(torch.full((1, 4, 4), 0.7), "otsu")
    assert regions[:, 0].sum() == 0
    assert regions[:, 1].sum() == 16


def test_channels_of_a_target_are_averaged():
    target = torch.tensor([0.9, 0.0, 0.0]).view(1, 3, 1, 1)  # mean 0.3
    assert regions_from_target(target, 0.25)[0, :, 0, 0].tolist() == [1, 0]
    assert regions_from_target(target, 0.35)[0, :, 0, 0].tolist() == [0, 1]


def object_and_background(target, threshold=0.5):
    return regions_from_target(target, threshold)[0, :, 0].tolist()


def test_forms_of_a_target():
    overlapping = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0]]).view(1, 2, 1, 4)
    one_hot = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]).view(1, 3, 1, 4)
    object_but_first = [[0, 1, 1, 1], [1, 0, 0, 0]]
    for target in (overlapping, overlapping.bool(), overlapping.double(), one_hot, one_hot.float(), one_hot.bool()):
        assert object_and_background(target) == object_but_first
    assert object_and_background(0.8 * one_hot + 0.2 / 3) == object_but_first  # as probabilities
    assert object_and_background(torch.tensor([[[-0.5, 3.0, 1.0, 1.0]]])) == object_but_first
    assert object_and_background(torch.tensor([[[0, 7, 1, 2]]])) == object_but_first  # labels
    assert object_and_background(torch.tensor([[[0, 7, 1, 2]]], dtype=torch.uint8)) == object_but_first


def test_void_of_a_target_is_neither_object_nor_background():
    neither_in_the_middle = [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert object_and_background(torch.tensor([[[3, 255, -1, 0]]])) == neither_in_the_middle
    image = torch.tensor([[[0.9, torch.nan, torch.inf, 0.1]]])
    assert object_and_background(image) == object_and_background(image, "otsu") == neither_in_the_middle
    assert object_and_background(image.expand(1, 3, 1, 4)) == neither_in_the_middle
    assert regions_from_target(image * torch.nan, "otsu").sum() == 0


def test_images_of_255_have_a_threshold_in_their_units():
    grey = torch.tensor([[[0, 255, 200, 128]]], dtype=torch.uint8)
    assert object_and_background(grey, 127) == object_and_background(grey.float(), 127) == [[0, 1, 1, 1], [1, 0, 0, 0]]
    for target in (grey, grey.float()):
        with pytest.raises(ValueError, match="holds 255, with threshold"):
            regions_from_target(target, 0.5)


def test_forms_of_a_mask():
    binary = torch.tensor([[[True, False]]])
    both = [[[[1.0, 0.0]], [[0.0, 1.0]]]]
    assert regions_from_mask(binary).tolist() == both
    assert regions_from_mask(binary.unsqueeze(1)).tolist() == both
    assert regions_from_mask(binary.float()).tolist() == both
    assert regions_from_mask(torch.cat([binary, ~binary], 0).unsqueeze(0)).tolist() == both
    assert regions_from_mask(torch.tensor([[[0.25, 1.0]]])).tolist() == [[[[0.25, 1.0]], [[0.75, 0.0]]]]


def test_labels_are_regions_and_void_is_none():
    labels = torch.tensor([[[0, 2, 255, -1]]])
    assert regions_from_mask(labels)[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_volumes_have_three_spatial_dimensions():
    assert regions_from_mask(torch.ones(2, 4, 4, 4).bool(), spatial_dims=3).shape == (2, 2, 4, 4, 4)
    assert regions_from_target(torch.rand(2, 1, 4, 4, 4), 0.5, spatial_dims=3).shape == (2, 2, 4, 4, 4)


def test_coverage_and_pure_cells_by_hand():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    pure, coverage = RegionMasks(regions_from_mask(mask[None])).weights(1, (2, 2))[0]
    assert coverage.tolist() == [[1, 0.25, 0, 0], [0, 0.75, 1, 1]]
    assert pure.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("grid", [(3, 5), (7, 2), (16, 16)])
def test_regions_share_each_cell_on_any_grid(grid):
    masks = RegionMasks(regions_from_mask(torch.rand(2, 8, 8) > 0.5))
    coverage = masks.weights(2, grid)[:, 1]
    torch.testing.assert_close(coverage.sum(1), torch.ones(2, grid[0] * grid[1]))


@pytest.mark.parametrize(("tokens", "prefix"), [(16, 0), (17, 1), (18, 2), (21, 5)])
def test_tokens_are_a_grid_after_the_class_token(tokens, prefix):
    masks = RegionMasks(regions_from_mask(torch.rand(1, 8, 8) > 0.5))
    weights = masks.weights(1, (tokens,))
    assert weights[..., :prefix].sum() == 0
    torch.testing.assert_close(weights[..., prefix:], masks.weights(1, (4, 4)))


def test_tokens_of_a_wide_image():
    masks = RegionMasks(regions_from_mask(torch.rand(1, 8, 16) > 0.5))
    torch.testing.assert_close(masks.weights(1, (1 + 2 * 4,))[..., 1:], masks.weights(1, (2, 4)))


def test_unknown_positions():
    masks = RegionMasks(regions_from_mask(torch.rand(2, 8, 8) > 0.5))
    assert masks.weights(2, (1, 1)) is None  # global pooling
    assert masks.weights(2, ()) is None  # flattened
    assert masks.weights(8, (4, 4)) is None  # windows in the batch dimension
    assert masks.weights(2, (15,)) is None  # no square grid has 15 tokens, nor 10 to 14


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(8, 8), r"mask has shape \[8, 8\]"),
        (torch.full((1, 8, 8), 2.0), "from 2 to 2; a float mask must lie in 0..1"),
        (torch.full((1, 8, 8), float("nan")), "must lie in 0..1"),
        (torch.zeros(1, 3, 8, 8).int(), "integer label map with 3 channels"),
        (torch.full((1, 8, 8), 1000), "label 1000"),
        (torch.tensor([[[0, 31, 250]]], dtype=torch.uint8), "up to 250, which could be grey levels as well as labels"),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        regions_from_mask(mask)
