"""What operations do to labels, against what they do to values: changing a channel changes what carries its label."""

import pytest
import torch
import torch.nn.functional as F

from torchprune_spatial.graph.labels.classes import FROZEN, LabelClasses
from torchprune_spatial.graph.labels.following import Following
from torchprune_spatial.graph.labels.trace import Dispatch


def followed(operation, shape=(2, 8, 4, 6), dim=1):
    """The labels of a tensor along a dimension, the tensor, its result, and the labels' classes afterwards."""
    torch.manual_seed(0)
    following = Following(LabelClasses())
    x = torch.randn(shape, dtype=torch.float64)
    labels = following.classes.new(shape[dim]).view(-1, *[1] * (len(shape) - 1 - dim))
    following.set(x, [labels.expand(*[1] * dim, *labels.shape)])
    with torch.no_grad(), Dispatch(following):
        y = operation(x)
    return following, x, labels.flatten(), y


def carried(following, y):
    """For each element of the result, the classes that it carries."""
    return [following.classes.of(track).expand(y.shape) for track in following.get(y)]


def assert_sound(following, x, labels, y, operation, dim=1):
    """An element that carries a class depends on no channel of another class that can be removed."""
    tracks = carried(following, y)
    classes = following.classes.of(labels)
    for one in set(classes.tolist()) - {FROZEN}:
        other = x.clone()
        other.index_fill_(dim, (classes == one).nonzero().flatten(), 7.0)
        with torch.no_grad():
            changed = operation(other) != y
        carries = torch.zeros_like(changed)
        for track in tracks:
            carries |= track == one
        assert not (changed & ~carries).any()


def halves(x):
    first, second = x.chunk(2, 1)
    return first * second.sigmoid()


def windows(x):
    return x.view(2, 8, 2, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 8)


def written(x):
    out = torch.zeros(2, 10, 4, 6, dtype=x.dtype)
    out[:, 1:9] = x
    return out[:, 1:9] + x


MOVES = {  # with the number of classes that can still be removed, counted by hand
    "relu": (torch.relu, 8),
    "in place": (lambda x: x.clone().mul_(2).add_(1), 8),
    "roll in space": (lambda x: x.roll(2, 3), 8),
    "roll along channels": (lambda x: x.roll(2, 1), 8),
    "flip of channels": (lambda x: x.flip(1), 8),
    "permuted": (lambda x: x.permute(2, 0, 3, 1), 8),
    "flattened": (lambda x: x.flatten(1), 8),
    "flattened with the batch": (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 8), 8),
    "windows": (windows, 8),
    "heads": (lambda x: x.view(2, 2, 4, 4, 6).transpose(1, 2), 8),
    "halves that meet": (halves, 4),
    "itself, flipped": (lambda x: x + x.flip(1), 4),
    "cat with itself": (lambda x: torch.cat([x, x], 1), 8),
    "cat in space": (lambda x: torch.cat([x, x.flip(1)], 2), 4),
    "cat with an image": (lambda x: torch.cat([x, torch.ones(2, 3, 4, 6, dtype=x.dtype)], 1), 8),
    "stacked": (lambda x: torch.stack([x, x], 1), 8),
    "channels shuffled": (lambda x: F.channel_shuffle(x, 2), 8),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), 2),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), 8),
    "repeated": (lambda x: x.repeat(1, 3, 1, 1), 8),
    "repeated one by one": (lambda x: x.repeat_interleave(3, 1), 8),
    "patches": (lambda x: F.unfold(x, 3, padding=1), 8),
    "patches and back": (lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 6), 2, stride=2), 8),
    "padded in space": (lambda x: F.pad(x, (1, 2, 0, 1)), 8),
    "padded channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), 8),
    "reflected": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), 8),
    "cropped": (lambda x: x[:, :, 1:, :3], 8),
    "every second pixel": (lambda x: x[..., ::2], 8),
    "pixels by index": (lambda x: x.flatten(2)[:, :, torch.tensor([3, 1, 1])], 8),
    "pixels gathered": (lambda x: x.gather(2, torch.ones(2, 8, 2, 6, dtype=torch.long)), 8),
    "pooled": (lambda x: F.max_pool2d(x, 2), 8),
    "pooled across channels": (lambda x: F.max_pool3d(x, (3, 1, 1), 1, (1, 0, 0)), 0),
    "averaged across channels": (lambda x: F.avg_pool3d(x, (3, 1, 1), 1, (1, 0, 0)), 0),
    "globally": (lambda x: x.mean((2, 3)), 8),
    "resized": (lambda x: F.interpolate(x, size=(7, 5), mode="bilinear"), 8),
    "written": (written, 8),
    "masked": (lambda x: x.masked_fill(torch.ones(4, 6, dtype=torch.bool), 0.0), 8),
    "one of the images": (lambda x: x[1], 8),
    "complex": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x)), 8),
    "one channel": (lambda x: x[:, 3], 7),
    "largest channels": (lambda x: x.topk(3, 1).values, 0),
    "channels by index": (lambda x: x[:, torch.tensor([0, 2])], 0),
    "sum": (lambda x: x.sum(1), 8),
}


@pytest.mark.parametrize("name", MOVES)
def test_labels_go_where_values_go(name):
    operation, free = MOVES[name]
    following, x, labels, y = followed(operation)
    if name != "sum":  # whose result is what the channels add up to, with or without them
        assert_sound(following, x, labels, y, operation)
    assert len(set(following.classes.of(labels).tolist()) - {FROZEN}) == free


READERS = {  # with weights of which the labels run along two dimensions, outputs and inputs
    "linear": (lambda x, w: F.linear(x.movedim(1, -1), w), (5, 8), (0, 1)),
    "product": (lambda x, w: x.movedim(1, -1) @ w, (8, 5), (1, 0)),
    "product of batches": (lambda x, w: torch.bmm(x.flatten(2).mT, w.expand(2, 8, 5)), (8, 5), (1, 0)),
    "einsum": (lambda x, w: torch.einsum("bchw,oc->bohw", x, w), (5, 8), (0, 1)),
    "convolution": (lambda x, w: F.conv2d(x, w, padding=1), (5, 8, 3, 3), (0, 1)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (8, 5, 2, 2), (1, 0)),
    "in one dimension": (lambda x, w: F.conv1d(x.flatten(2), w), (5, 8, 3), (0, 1)),
    "in three": (lambda x, w: F.conv3d(x.unsqueeze(2), w), (5, 8, 1, 3, 3), (0, 1)),
    "queries with keys": (lambda x, w: (x.movedim(1, -1) @ w).softmax(-1), (8, 5), (1, 0)),
}


@pytest.mark.parametrize("name", READERS)
def test_channels_go_with_the_weights_that_read_them(name):
    operation, shape, (outputs, inputs) = READERS[name]
    weight = torch.randn(shape, dtype=torch.float64)
    following, _, labels, made = with_weight(lambda x: operation(x, weight), weight, outputs, inputs)
    classes = following.classes.of(labels)
    assert len(set(classes.tolist()) - {FROZEN}) == 8
    assert torch.equal(following.classes.of(made["inputs"]), classes)
    (track,) = following.get(made["result"])
    assert torch.equal(track.flatten(), following.classes.of(made["outputs"]))


def with_weight(operation, weight, outputs, inputs):
    """As `followed`, with a weight that has labels along two dimensions."""
    torch.manual_seed(0)
    following = Following(LabelClasses())
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    labels = following.classes.new(8)
    made = {"outputs": following.classes.new(weight.shape[outputs]), "inputs": following.classes.new(8)}
    following.set(x, [labels.view(8, 1, 1)[None]])
    tracks = []
    for dim, name in ((outputs, "outputs"), (inputs, "inputs")):
        tracks.append(made[name].view([-1 if d == dim else 1 for d in range(weight.dim())]))
    following.set(weight, tracks)
    with torch.no_grad(), Dispatch(following):
        made["result"] = operation(x)
    return following, x, labels, made


def test_a_depthwise_convolution_makes_of_each_channel_one():
    weight = torch.randn(8, 1, 3, 3, dtype=torch.float64)
    following, _, labels, made = with_weight(lambda x: F.conv2d(x, weight, groups=8), weight, 0, 0)
    assert torch.equal(following.classes.of(labels), following.classes.of(made["outputs"]))
    assert len(following.classes.of(labels).unique()) == 8


def test_groups_of_a_convolution_lose_equally_many():
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    following = Following(LabelClasses())
    x, labels = torch.randn(2, 8, 4, 6, dtype=torch.float64), following.classes.new(8)
    following.set(x, [labels.view(1, 8, 1, 1)])
    following.set(weight, [following.classes.new(6).view(6, 1, 1, 1), following.classes.new(4).view(1, 4, 1, 1)])
    with torch.no_grad(), Dispatch(following):
        F.conv2d(x, weight, groups=2)
    blocks = [following.classes.of(blocks).tolist() for blocks in following.equal_counts]
    first, second = following.classes.of(labels).view(2, 4).tolist()
    assert [first, second] in blocks
    assert any(len(block) == 2 and len(block[0]) == 3 for block in blocks)  # the outputs


def test_what_is_unknown_stops_the_labels_it_touches():
    def operation(x):
        return torch.linalg.matrix_exp(x[..., :4])

    following, _, labels, _ = followed(operation)
    assert following.unknown == {"aten::linalg_matrix_exp"}
    assert following.classes.of(labels).unique().tolist() == [FROZEN]
    assert "linalg_matrix_exp is not known" in following.classes.reasons[-1]
