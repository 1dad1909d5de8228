import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resolution_scaling.adapting.evaluation_size import SizeScore, SizeSearch, search_evaluation_size, top1_accuracy
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


def test_K_keeps_the_proportion_of_the_paper():
    assert matching_K(224) == 232
    assert [matching_K(K) for K in (112, 160, 176)] == [116, 166, 182]  # 116.0, 165.7, 182.3
    assert matching_K(1) >= 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: evaluation_transform(224, 200), ValueError, "K_eval is 224 px, but .* K=200"),
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


class Pretender(nn.Module):
    """Right about the first images of a batch only: as many as the size is near 20 px."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        right = max(0, len(images) - abs(images.shape[-1] - 20))
        logits = torch.zeros(len(images), 3)
        logits[:right, 1] = 1
        return logits + self.bias


def loader(size, images=8):
    return [(torch.zeros(images, 3, size, size), torch.ones(images, dtype=torch.long))]


def test_search_finds_the_best_size():
    model = Pretender()
    model.dropout.eval()
    search = search_evaluation_size(model, loader, [24, 16, 20, 18])
    assert search.scores == ((16, 4 / 8), (18, 6 / 8), (20, 1.0), (24, 4 / 8))
    assert search.best == SizeScore(20, 1.0)
    assert search.smallest_within(0.25).K_eval == 18
    assert search.smallest_within(0.5).K_eval == 16
    assert search.smallest_within(0).K_eval == 20
    assert model.training
    assert not model.dropout.training


def test_of_equal_sizes_the_smallest_is_best():
    assert search_evaluation_size(Pretender(), loader, [22, 18]).best.K_eval == 18


def test_any_measure(tmp_path):
    search = search_evaluation_size(Pretender(), lambda size: size, range(10, 40, 10), lambda _, size: -abs(size - 30))
    assert search.best == (30, 0.0)
    search.to_csv(tmp_path / "sizes.csv")
    lines = (tmp_path / "sizes.csv").read_text().splitlines()
    assert lines == ["K_eval,score", "10,-20.0", "20,-10.0", "30,0.0"]
    assert str(search).splitlines()[-1].split() == ["30", "px", "0.0000", "best"]


def test_the_network_is_as_it_was_after_an_error():
    model = Pretender()
    for sizes, error, text in (
        ([], ValueError, "sizes is empty"),
        ([16.5], TypeError, "16.5"),
        ([16], ValueError, "yields no image"),
    ):
        with pytest.raises(error, match=text):
            search_evaluation_size(model, lambda size: [], sizes)
        assert model.training


def test_a_size_that_is_too_small_names_the_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(8), nn.Flatten())
    with pytest.raises(ValueError, match=r"cannot run at 16x16 px: 1 \(MaxPool2d\) fails on its 7x7 map"):
        search_evaluation_size(model, loader, [24, 16])
    with pytest.raises(ZeroDivisionError):  # not a matter of size
        search_evaluation_size(model, loader, [24], lambda *_: 1 / 0)
    assert model.training


def test_accuracy_counts_images_not_batches():
    model = nn.Flatten()  # the images are their own logits
    batches = [
        (torch.eye(2).view(2, 2, 1, 1), torch.tensor([0, 0])),
        (torch.eye(2)[:1].view(1, 2, 1, 1), torch.ones(1)),
    ]
    assert top1_accuracy(model, batches) == pytest.approx(1 / 3)


def test_results_compare():
    assert SizeSearch((SizeScore(1, 0.5),)) == SizeSearch((SizeScore(1, 0.5),))
