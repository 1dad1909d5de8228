import json
from functools import partial

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from recipes.datasets.images import ImageData, TransformedImages
from recipes.experiments import training
from recipes.experiments.classification import Augmentation, Classification, Variant
from recipes.experiments.training import Hardware, SittingOver, Training

PLAIN = Augmentation(trivial_augment=False, random_erasing=0, mixup=0, cutmix=0, label_smoothing=0)


def stripes(count, seed):
    """Images of 8 px with a bright left (label 0) or right half (label 1), and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 8, 8), generator=generator).byte()
    images[labels == 0, :, :, :4] += 150
    images[labels == 1, :, :, 4:] += 150
    return TensorDataset(images, labels)


def image_data():
    parts = [stripes(count, seed) for seed, count in enumerate((48, 10, 20))]
    parts = [partial(TransformedImages, part, range(len(part))) for part in parts]
    return ImageData("stripes", 2, (0.4,) * 3, (0.3,) * 3, 0.0, *parts)


def network(classes):
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
    return nn.Sequential(*layers)


RC = [Variant("RC", str(size), network, size, (4, 8)) for size in (6, 8)]


def classification(output, epochs=1, augmentation=PLAIN, hardware=None):
    settings = Training(epochs, 1e-2, 8, keep="last")
    return Classification(image_data(), settings, augmentation, hardware or Hardware("cpu"), output, {"asked": 1})


def test_a_row_for_each_network_size_and_seed(tmp_path):
    results = classification(tmp_path).run(RC, [0, 1])
    assert results[["seed", "setting", "K_eval"]].values.tolist() == [
        [seed, size, K_eval] for seed in (0, 1) for size in ("6", "8") for K_eval in (4, 8)
    ]
    # Two per multiplication: 3 x 3 x 3 of each of 4 maps at K_eval, and 16 x 2 of the linear layer.
    for row in results.itertuples():
        assert row.flops == 2 * (27 * 4 * row.K_eval**2 + 32)
        assert row.training_flops == 2 * (27 * 4 * row.K_train**2 + 32)
        assert row.parameters == 27 * 4 + 4 + 32 + 2
        # weights and the largest operator in float32: the convolution, or the ReLU
        assert row.memory == 4 * row.parameters + 4 * row.K_eval**2 * max(3 + 4, 4 + 4)
    assert (
        pd.read_csv(tmp_path / "results.csv", dtype={"setting": str})["accuracy"].tolist()
        == results["accuracy"].tolist()
    )
    assert results["accuracy"].mul(20).mod(1).eq(0).all()
    assert results["validation_accuracy"].mul(10).mod(1).eq(0).all()


def test_it_learns(tmp_path):
    results = classification(tmp_path, epochs=8).run([RC[1]], [0])
    assert results["accuracy"].iloc[1] >= 0.9  # at 8 px


def test_what_is_there_is_not_computed_again(tmp_path, monkeypatch):
    first = classification(tmp_path).run(RC[:1], [0]).copy()
    trained = []
    monkeypatch.setattr(
        "recipes.experiments.classification.train", lambda network, *args, **kwargs: trained.append(kwargs["seed"])
    )
    results = classification(tmp_path).run(RC[:1], [0, 1])
    assert trained == [1]
    pd.testing.assert_frame_equal(results.iloc[:2], first)
    assert classification(tmp_path).seconds == pytest.approx(results["seconds"].iloc[::2].sum())


def test_a_saved_network_is_loaded_again(tmp_path):
    experiment = classification(tmp_path)
    experiment.run(RC[:1], [0])
    (tmp_path / "results.csv").unlink()
    again = classification(tmp_path).run(RC[:1], [0])
    pd.testing.assert_frame_equal(experiment.results.drop(columns="seconds"), again.drop(columns="seconds"))
    for a, b in zip(
        experiment.network(0, RC[0]).parameters(), classification(tmp_path).network(0, RC[0]).parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_sittings_end_at_the_same_results(tmp_path, monkeypatch):
    """Each epoch is a sitting of its own; the results are those of one."""
    whole = classification(tmp_path / "whole", epochs=3).run(RC[:1], [0])
    checked = []

    def check_time(self):
        checked.append(None)
        if len(checked) % 3 == 0:
            raise SittingOver("the minutes are over")

    monkeypatch.setattr(training.Hardware, "check_time", check_time)
    for _ in range(10):
        try:
            results = classification(tmp_path / "sittings", epochs=3).run(RC[:1], [0])
            break
        except SittingOver:
            assert list((tmp_path / "sittings" / "checkpoints").rglob("epoch_*"))
    assert len(checked) > 4
    pd.testing.assert_frame_equal(results.drop(columns="seconds"), whole.drop(columns="seconds"))
    assert not (tmp_path / "sittings" / "checkpoints").exists()


def test_a_sitting_without_time_does_nothing(tmp_path):
    with pytest.raises(SittingOver, match="1e-09 minutes are over"):
        classification(tmp_path, hardware=Hardware("cpu", minutes=1e-9)).run(RC, [0])
    assert not (tmp_path / "results.csv").exists()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    classification(tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(augmentation, training\)"):
        classification(tmp_path, epochs=2, augmentation=Augmentation())
    assert json.loads((tmp_path / "settings.json").read_text())["asked"] == 1


def test_all_augmentations_train(tmp_path):
    results = classification(tmp_path, augmentation=Augmentation()).run(RC[:1], [0])
    assert results["accuracy"].between(0, 1).all()


def test_batches_are_mixed_into_soft_labels():
    images, labels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4), torch.arange(8) % 2
    mixed, soft = Augmentation(cutmix=0).of_batches(2)(images, labels)
    assert (mixed.shape, soft.shape) == ((8, 3, 4, 4), (8, 2))
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    assert PLAIN.of_batches(2) is None


def test_the_augmentation_in_words():
    assert str(PLAIN) == "random crops of 8 % or more of the image"
    assert str(Augmentation()) == (
        "random crops of 8 % or more of the image, TrivialAugment, random erasing 0.1, mixup 0.2, cutmix 1, "
        "label smoothing 0.1"
    )
