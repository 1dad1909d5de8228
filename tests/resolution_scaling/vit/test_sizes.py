import pytest

from resolution_scaling.vit.scaling import scale_vit

from .vits import assert_same, attributes, tensors, timm_vit, torchvision_vit


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ValueError, "all None; expected at least one of them"),
        ({"image_size": 130}, ValueError, r"128 px \(grid 8\) and 144 px \(grid 9\)"),
        # 130 = 2 x 5 x 13
        ({"image_size": 130}, ValueError, "the nearest patch sizes for 130 px are 13 px and 26 px"),
        ({"image_size": 130, "patch_size": 12}, ValueError, r"120 px \(grid 10\) and 132 px \(grid 11\)"),
        ({"image_size": 130, "patch_size": 12}, ValueError, "10 px and 13 px"),
        ({"image_size": 8}, ValueError, r"the nearest sizes are 16 px \(grid 1\)"),
        ({"image_size": 130, "grid": 11}, ValueError, "121 px and 132 px"),
        ({"image_size": 128, "grid": 11, "patch_size": 16}, ValueError, "here 176 px"),
        ({"image_size": (128, 128)}, TypeError, "whole number of px above 0, such as .* for a square of 16 x 16 px"),
        ({"image_size": 128.0}, TypeError, "a whole number of px"),
        ({"grid": "11"}, TypeError, "grid is '11'; expected a whole number of tokens"),
        ({"grid": True}, TypeError, "a whole number of tokens"),
        ({"patch_size": 0}, ValueError, "patch_size is 0; expected a whole number of px above 0"),
        ({"grid": -3}, ValueError, "a whole number of tokens above 0"),
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
