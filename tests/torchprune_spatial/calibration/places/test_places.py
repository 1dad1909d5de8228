"""A channel that is 1 exactly in the object has the object's mean 1 and the background's 0, wherever it is moved to."""

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from torchprune_spatial.calibration.batches import CalibrationData
from torchprune_spatial.calibration.measurements import RegionMeans
from torchprune_spatial.calibration.statistics import collect_statistics


class Moving(nn.Module):
    """The image itself, as the first channel, is moved and then read."""

    def __init__(self, move, reader):
        super().__init__()
        self.first, self.move, self.reader = nn.Conv2d(1, 8, 1, bias=False), move, reader
        self.first.weight.data[0] = 1

    def forward(self, x):
        return self.reader(self.move(self.first(x)))


def means(move, reader=None, size=(16, 24), of_target=lambda mask: mask):
    """``[object, background, all]`` of the first channel, of which the object covers cells of 4 x 4 pixels."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(3, 1, size[0] // 4, size[1] // 4, generator=generator) > 0.5
    mask = cells.float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    model = Moving(move, reader or nn.Conv2d(8, 1, 1)).eval()
    graph = tp.DependencyGraph().build_dependency(model, mask)
    measured = RegionMeans("coverage")
    found = collect_statistics(graph, CalibrationData([(mask, of_target(mask))], 0.5), [measured]).values[measured]
    return found[model.reader][:, 0].tolist()


def windows(x, size=4):
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, channels)


def joined(x, size=4, grid=(4, 6)):
    batch, channels = len(x) // (grid[0] * grid[1]), x.shape[-1]
    x = x.view(batch, *grid, size, size, channels).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, channels, grid[0] * size, grid[1] * size)


def in_place(x):
    padded = x.new_zeros(len(x), x.shape[1], x.shape[2] + 5, x.shape[3] + 7)
    padded[:, :, 2:-3, 3:-4] = x
    return padded


def added_in_place(x):
    padded = x.new_zeros(len(x), x.shape[1], x.shape[2] + 8, x.shape[3] + 8)
    padded += F.pad(x, (0, 8, 8, 0))
    return padded.relu_()


MOVES = {
    "nothing": lambda x: x,
    "padded to a multiple": lambda x: F.pad(x, (0, 8, 0, 16)),
    "padded on all sides": lambda x: F.pad(x, (3, 2, 1, 4)),
    "reflected": lambda x: F.pad(x, (3, 2, 1, 4), mode="reflect"),
    "replicated": lambda x: F.pad(x, (3, 2, 1, 4), mode="replicate"),
    "written into a larger map": in_place,
    "added to a new map": added_in_place,
    "cropped": lambda x: x[:, :, 3:-2, 5:],
    "cropped after padding": lambda x: F.pad(x, (8, 8, 8, 8))[:, :, 3:-5, 2:-1],
    "shifted": lambda x: torch.roll(x, (-3, 5), (2, 3)),
    "flipped": lambda x: x.flip(3),
    "transposed": lambda x: x.mT,
    "flipped copies in the batch": lambda x: torch.cat([x, x.flip(2)]),
    "interleaved copies in the batch": lambda x: torch.stack([x, x.flip(3)], 1).flatten(0, 1),
    "patches in the batch": lambda x: x.unfold(2, 8, 8).unfold(3, 12, 12).permute(0, 2, 3, 1, 4, 5).flatten(0, 2),
    "shifted windows and back": lambda x: torch.roll(joined(windows(torch.roll(x, 2, 2))), -2, 2),
    "a part of the batch": lambda x: x[1:],
    "upsampled": lambda x: F.interpolate(x, scale_factor=2),
    "padded, then upsampled": lambda x: F.interpolate(F.pad(x, (0, 8, 0, 8)), scale_factor=3),
    "pooled": lambda x: F.max_pool2d(x, 2),
    "padded, then pooled": lambda x: F.avg_pool2d(F.pad(x, (4, 12, 8, 0)), 4),
    "space to depth": lambda x: torch.cat([x[:, :2, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
    "space to depth after padding": lambda x: F.pixel_unshuffle(F.pad(x, (0, 8, 0, 8))[:, :2], 2),
    "depth to space": lambda x: F.pixel_shuffle(F.pad(x, (0, 4, 4, 4)).repeat_interleave(4, 1), 2),
    "frames added up": lambda x: torch.stack([x, x], 1).mean(1)[:, :, 2:],
}
TOKENS = {
    "windows": windows,
    "shifted windows": lambda x: windows(torch.roll(x, (-2, -2), (2, 3))),
    "tokens": lambda x: x.flatten(2).mT,
    "tokens of a padded image": lambda x: F.pad(x, (0, 8, 0, 8)).flatten(2).mT,
    "some of the tokens": lambda x: x.flatten(2).mT[:, torch.randperm(16 * 24)[:100]],
}


@pytest.mark.parametrize("name", MOVES)
def test_cells_are_followed(name):
    assert means(MOVES[name])[:2] == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_followed(name):
    torch.manual_seed(0)
    assert means(TOKENS[name], nn.Linear(8, 1))[:2] == pytest.approx([1, 0], abs=1e-6)


def test_a_class_token_is_nowhere():
    def tokens(x):
        x = F.pad(x, (0, 8, 0, 0)).flatten(2).mT
        return torch.cat([torch.full((len(x), 3, 8), 100.0), x], 1)

    assert means(tokens, nn.Linear(8, 1))[:2] == pytest.approx([1, 0], abs=1e-6)


def delta(kernel, stride, padding, transposed=False):
    """A convolution that hands on the middle of its window."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    convolution = kind(8, 8, kernel, stride, padding, groups=8, bias=False)
    convolution.weight.data.zero_()[:, :, kernel // 2, kernel // 2] = 1
    return convolution


@pytest.mark.parametrize(
    "layers",
    [
        [delta(3, 1, 0)] * 4,
        [delta(5, 1, 0), nn.MaxPool2d(1)],
        [delta(3, 1, 2)] * 3,
        [nn.ZeroPad2d(1), delta(3, 1, 0)] * 2,
        [nn.Upsample(scale_factor=2), delta(3, 1, 0)],
        [nn.ReflectionPad2d(3), delta(7, 1, 0)],
    ],
)
def test_convolutions_that_crop_or_grow(layers):
    assert means(nn.Sequential(*layers))[:2] == pytest.approx([1, 0], abs=1e-6)


def test_strided_convolutions_cover_the_images_evenly():
    """As the paper's average pooling of the mask: by hand, on halves of the image."""
    halves = torch.zeros(1, 1, 16, 16)
    halves[..., :8] = 1
    stem = nn.Sequential(delta(7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.ZeroPad2d((0, 1, 0, 1)), delta(3, 2, 0))
    model = Moving(stem, nn.Conv2d(8, 1, 1)).eval()
    graph = tp.DependencyGraph().build_dependency(model, halves)
    measured = RegionMeans("pure")
    found = collect_statistics(graph, CalibrationData([(halves, halves)], 0.5), [measured]).values[measured]
    with torch.no_grad():
        x = model.move(model.first(halves)).double()
    assert x.shape[-2:] == (2, 2)
    expected = torch.stack([x[..., :1].abs().mean((0, 2, 3)), x[..., 1:].abs().mean((0, 2, 3))])
    torch.testing.assert_close(found[model.reader][:2], expected, rtol=1e-6, atol=0)


def test_masks_of_another_size_than_the_image():
    crop = slice(4, -4)
    assert means(lambda x: x[:, :, crop, crop], of_target=lambda m: m[:, :, crop, crop])[:2] == pytest.approx([1, 0])
    fourfold = means(lambda x: F.pad(x, (0, 4, 0, 4)), of_target=lambda m: F.interpolate(m, scale_factor=4.0))
    assert fourfold[:2] == pytest.approx([1, 0])
    assert means(lambda x: F.avg_pool2d(F.pad(x, (0, 8, 0, 8)), 4), of_target=lambda m: F.avg_pool2d(m, 4))[
        :2
    ] == pytest.approx([1, 0])


def test_attention_keeps_the_places_of_its_queries():
    class Attention(nn.Module):
        """Each window looks at itself, and each pixel nearly only at itself."""

        def forward(self, x):
            tokens = windows(torch.roll(x, 2, 3))
            weights = torch.eye(16) * 100 + 0 * tokens @ tokens.mT
            return joined(weights.softmax(-1) @ tokens)

    assert means(Attention())[:2] == pytest.approx([1, 0], abs=1e-6)


def test_a_network_for_one_size_of_batches():
    def folded(x):
        assert len(x) == 3
        return F.pad(x, (0, 8, 0, 8))

    assert means(folded)[:2] == pytest.approx([1, 0], abs=1e-6)


def test_what_cannot_be_followed_is_said():
    def strange(x):
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("modes are not for me")
        return x

    with pytest.warns(UserWarning, match=r"cannot be followed where .* Moving lie .*modes are not for me"):
        assert means(strange)[:2] == pytest.approx([1, 0], abs=1e-6)


def test_maps_without_places_are_named():
    with pytest.warns(UserWarning, match=r"'reader' read cannot be followed"):
        means(lambda x: x.flatten(2).mT[torch.randperm(3)].sort(1).values[:, :110], nn.Linear(8, 1))
