import pytest
import torch
from torch import nn

from resolution_scaling.adapting.evaluation_size import SizeScore, SizeSearch, search_evaluation_size, top1_accuracy


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
