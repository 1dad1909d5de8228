import numpy as np
import pytest
import torch
from PIL import Image

from resolution_scaling.adapting.transforms import evaluation_transform, matching_K, train_transform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def picture(height=60, width=90):
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("K_train", [64, 128, 160, 176])
def test_training_crops_have_the_size_of_the_paper(K_train):
    crop = train_transform(K_train)(picture())
    assert crop.shape == (3, K_train, K_train)
    assert crop.dtype == torch.float32
    assert type(crop) is torch.Tensor


def test_training_is_repeatable_under_a_seed_and_random_otherwise():
    transform = train_transform(32)
    torch.manual_seed(1)
    first, second = transform(picture()), transform(picture())
    torch.manual_seed(1)
    assert torch.equal(transform(picture()), first)
    assert not torch.equal(first, second)


def test_crops_take_the_share_of_the_area_that_is_asked_for():
    """Of an image whose rows count upwards, a crop of all of it holds nearly all the values."""
    rows = torch.arange(64, dtype=torch.uint8)[None, :, None].expand(3, 64, 64)
    plain = {"flip": 0, "trivial_augment": False, "random_erasing": 0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    torch.manual_seed(0)
    whole = [255 * train_transform(64, scale=(0.9, 1.0), **plain)(rows)[0] for _ in range(20)]
    parts = [255 * train_transform(64, scale=(0.05, 0.1), **plain)(rows)[0] for _ in range(20)]
    assert min(float(crop.max() - crop.min()) for crop in whole) > 48
    assert max(float(crop.max() - crop.min()) for crop in parts) < 64 * (0.1 * 4 / 3) ** 0.5


def test_evaluation_is_pillow_resize_then_the_central_crop():
    image = picture(60, 90)
    # shorter side 60 -> 40, so 90 -> 60; a crop of 32 begins at (40 - 32) / 2 = 4 and (60 - 32) / 2 = 14
    expected = np.asarray(image.resize((60, 40), Image.Resampling.BILINEAR))[4:36, 14:46] / 255
    crop = evaluation_transform(32, 40, **PLAIN)(image)
    np.testing.assert_allclose(crop.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_normalizes_with_the_constants_of_imagenet():
    grey = Image.fromarray(np.full((50, 50, 3), 51, dtype=np.uint8))  # 0.2
    crop = evaluation_transform(32)(grey)
    expected = [(0.2 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert crop[:, 5, 7].tolist() == pytest.approx(expected, abs=1e-5)


def test_tensors_are_images_too():
    batch = torch.randint(0, 256, (2, 3, 60, 90), dtype=torch.uint8)
    assert evaluation_transform(32)(batch).shape == (2, 3, 32, 32)
    assert train_transform(24)(batch).shape == (2, 3, 24, 24)


def test_grey_training_without_augmentation():
    transform = train_transform(24, mean=[0], std=[1], flip=0, trivial_augment=False, random_erasing=0)
    assert transform(torch.full((1, 40, 40), 255, dtype=torch.uint8)).eq(1).all()


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_images_of_any_number_of_channels(channels):
    image = torch.full((channels, 40, 40), 51, dtype=torch.uint8)  # 0.2
    mean, std = [0.1 * channel for channel in range(channels)], [0.5] * channels
    expected = [(0.2 - 0.1 * channel) / 0.5 for channel in range(channels)]
    plain = {"trivial_augment": False, "random_erasing": 0}
    for transform in (evaluation_transform(32, mean=mean, std=std), train_transform(32, mean=mean, std=std, **plain)):
        assert transform(image)[:, 5, 7].tolist() == pytest.approx(expected, abs=1e-5)


def test_K_keeps_the_proportion_of_the_paper():
    assert matching_K(224) == 232
    assert [matching_K(K) for K in (112, 160, 176)] == [116, 166, 182]  # 116.0, 165.7, 182.3
    assert matching_K(1) >= 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: evaluation_transform(224, 200), ValueError, "K_eval is 224 px, but .* K=200 px"),
        (lambda: evaluation_transform(0), ValueError, "K_eval is 0"),
        (lambda: evaluation_transform(224.0), TypeError, "K_eval is 224.0; expected a whole number"),
        (lambda: train_transform("64"), TypeError, "K_train is '64'"),
        (lambda: train_transform((64, 32)), ValueError, "crops are square"),
        (lambda: train_transform(64, interpolation="cubic"), ValueError, "interpolation is 'cubic'"),
    ],
)
def test_bad_sizes(make, error, text):
    with pytest.raises(error, match=text):
        make()
