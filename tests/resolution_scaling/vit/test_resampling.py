"""Resampling, against second implementations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from resolution_scaling.vit.resampling import resample_patch_embedding, resample_position_embedding


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
