import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from recipes.datasets import images as image_data
from recipes.datasets.fashion_mnist import load_fashion_mnist
from recipes.datasets.images import load_images
from resolution_scaling.adapting.transforms import evaluation_transform


def write_idx(folder, part, images, labels):
    """The idx format by its description: two zeros, type 8 (unsigned byte), dimensions, their sizes in big-endian."""
    for name, array in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
        with gzip.open(folder / name, "wb") as file:
            file.write(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.fixture
def fashion(tmp_path):
    """Ten training images, of which image i is full of 20 i and has the label i; four of test, full of 7."""
    labels = np.arange(10, dtype=np.uint8)
    write_idx(tmp_path, "train", np.broadcast_to(20 * labels[:, None, None], (10, 28, 28)).copy(), labels)
    write_idx(tmp_path, "t10k", np.full((4, 28, 28), 7, np.uint8), np.array([3, 1, 2, 0], np.uint8))
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """Images of two classes in ImageNet's layout: six of training and two of test each, cats dark and dogs bright."""
    for part, count in (("train", 6), ("val", 2)):
        for name, value in (("cat", 10), ("dog", 200)):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 32), (value, value, value + i)).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def values(dataset):
    return [(image.float().mean().item(), label) for image, label in dataset]


def test_idx_files_are_read(fashion):
    images, labels = load_fashion_mnist(fashion)
    assert (images.shape, images.dtype, labels.dtype) == ((10, 28, 28), torch.uint8, torch.int64)
    assert [images[i, 3, 4].item() for i in range(10)] == [20 * i for i in range(10)]
    images, labels = load_fashion_mnist(fashion, train=False)
    assert (images == 7).all()
    assert labels.tolist() == [3, 1, 2, 0]


def test_training_and_validation_share_no_image(fashion):
    data = load_images(fashion, 6, 4, 3)
    parts = [values(part(v2.Identity())) for part in (data.training, data.validation, data.test)]
    assert [len(part) for part in parts] == [6, 4, 3]
    assert sorted(parts[0] + parts[1]) == [(20.0 * i, i) for i in range(10)]
    assert parts[2] == [(7.0, 3), (7.0, 1), (7.0, 2)]
    again = load_images(fashion, 6, 4, 3)
    assert values(again.validation(v2.Identity())) == parts[1]


def test_mean_and_deviation_are_of_the_training_images(fashion):
    data = load_images(fashion, None, 4)
    assert data.mean == pytest.approx((90 / 255,) * 3)  # of 0, 20, ..., 180
    assert data.std == pytest.approx((20 * np.sqrt(8.25) / 255,) * 3, rel=1e-3)
    assert (data.name, data.classes, data.flip) == ("Fashion-MNIST", 10, 0.5)


def test_a_batch_at_once_is_what_one_by_one_gives():
    data = load_images(None, 10, 20, 20)
    dataset = data.test(evaluation_transform(20, mean=data.mean, std=data.std))
    images, labels = next(iter(DataLoader(dataset, 20)))
    assert images.shape == (20, 3, 20, 20)
    for image, label, (one, its_label) in zip(images, labels, dataset, strict=False):
        torch.testing.assert_close(image, one)
        assert label == its_label


def test_without_fashion_mnist_the_digits_are_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(image_data, "DEBIAN_FOLDER", tmp_path / "none")
    data = load_images(None, None, 500)
    sizes = [len(part(v2.Identity())) for part in (data.training, data.validation, data.test)]
    assert sizes == [7500, 500, 2000]
    assert (data.classes, data.flip) == (10, 0)
    image, label = data.test(v2.Identity())[0]
    assert (image.shape, image.dtype) == ((3, 28, 28), torch.uint8)
    assert image.max() > 200
    assert label in range(10)


def test_folders_of_classes(folder):
    data = load_images(folder, 7, 5)
    to_tensor = v2.Compose([v2.ToImage()])
    training, validation, test = (values(part(to_tensor)) for part in (data.training, data.validation, data.test))
    assert [len(training), len(validation), len(test)] == [7, 5, 4]
    expected = [(v + i / 3, label) for label, v in enumerate((10, 200)) for i in range(6)]
    assert [value for value, _ in sorted(training + validation)] == pytest.approx([value for value, _ in expected])
    assert all(label == (value > 100) for value, label in training + validation + test)
    assert (data.classes, data.mean) == (2, (0.485, 0.456, 0.406))


def test_bad_folders_are_explained(folder, tmp_path):
    with pytest.raises(ValueError, match="there are 12 training images, but 20 are asked for; use a smaller preset"):
        load_images(folder, 15, 5)
    (folder / "val" / "dog").rename(folder / "val" / "wolf")
    with pytest.raises(ValueError, match=r"val has the classes \['cat', 'wolf'\].*train \['cat', 'dog'\]"):
        load_images(folder, 7, 5)
    (folder / "val").rename(folder / "test")
    with pytest.raises(FileNotFoundError, match="a folder train, but none named val"):
        load_images(folder, 7, 5)
    with pytest.raises(
        FileNotFoundError, match=r"no Fashion-MNIST in .*nowhere.*There are no folders train and val either"
    ):
        load_images(tmp_path / "nowhere", 7, 5)
