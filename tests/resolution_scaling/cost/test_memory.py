"""Memory by hand, and against what the CPU allocator shows."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from benchmarks.cost_model import allocator_peak_bytes
from resolution_scaling.cost.profiling import profile


class Residual(nn.Module):
    """Maps of 4 channels at 8 x 8 px: 1024 bytes each."""

    def __init__(self, in_place):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        if self.in_place:
            y += x
            return y
        return y + x


@pytest.mark.parametrize("in_place", [False, True])
def test_residual_block_by_hand(in_place):
    report = profile(Residual(in_place), (1, 4, 8, 8))
    # An in-place addition touches two maps, the other three.
    assert report.largest_operator_bytes == (2048 if in_place else 3072)
    # Eager: x, and the input and output of the norm or of the addition. Fused: x and the one map that is added to it,
    # and the sum if that is a map of its own.
    assert report.peak_bytes == 3072
    assert report.fused.peak_bytes == (2048 if in_place else 3072)
    assert [operator.name for operator in report.fused.operators] == ["convolution", "add_" if in_place else "add"]
    assert report.fused.elementwise_flops == report.elementwise_flops == 256 * (2 + 1 + 1)
    assert report.memory_bytes == report.weight_bytes + report.largest_operator_bytes
    assert profile(Residual(in_place), (1, 4, 8, 8), view="fused").peak_bytes == report.fused.peak_bytes


def test_what_does_not_fold():
    """Norms whose input is read again or is the network's, and additions of two maps, keep their memory."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.linear = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            x = x + self.linear(x)
            return x + self.linear(self.norm(x)).relu()

    names = [operator.name for operator in profile(Block(), (1, 3, 4), view="fused").operators]
    assert names == ["native_layer_norm", "addmm", "add", "native_layer_norm", "addmm", "add"]


def test_views_cost_nothing_and_slices_what_they_show():
    class Slices(nn.Module):
        def forward(self, x):  # [2, 8, 4]: 256 bytes
            a, b = x.chunk(2, 1)
            return a.transpose(1, 2).reshape(-1, 4)[:2].contiguous(), b * b

    report = profile(Slices(), (2, 8, 4))
    # The chunks are views; transposing and reshaping copies 128 bytes; a slice of it is contiguous; b * b reads b once.
    assert [(operator.name, operator.bytes) for operator in report.operators] == [("clone", 256), ("mul", 256)]


def test_weights_are_no_activations():
    """A linear layer of 1000 x 1000 reads and writes two rows of 4000 bytes."""
    report = profile(nn.Linear(1000, 1000), (1, 1000))
    assert (report.largest_operator_bytes, report.peak_bytes, report.weight_bytes) == (8000, 8000, 4 * 1001000)


def test_attention_makes_no_scores():
    report = profile(nn.MultiheadAttention(8, 2, batch_first=True), (1, 500, 8), forward=attend)
    assert report.peak_bytes < 500 * 500 * 4


def attend(model, x):
    return model(x, x, x, need_weights=False)


@pytest.mark.parametrize(
    ("name", "with_scratch"),
    [("swin_t", True), ("vit_b_32", False), ("resnet18", False), ("mobilenet_v3_small", False)],
)
def test_peak_as_the_allocator_shows_it(name, with_scratch):
    """Within 6 %; on CPUs the scratch memory of convolutions is left out where it dominates."""
    model, image = get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)
    measured = allocator_peak_bytes(model, image, with_scratch)
    assert profile(model, image).peak_bytes == pytest.approx(measured, rel=0.06)
