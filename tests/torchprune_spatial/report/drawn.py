"""What is drawn in a figure, and what should be: by plain loops over activations and masks."""

import copy

import numpy as np
import torch

from torchprune_spatial import PruningRecord

from ..pruning import make_pruner


def offsets(axes):
    """Kept and removed filters as drawn: ``[filters, (across, up)]`` each, sorted."""
    drawn = {points.get_label(): np.asarray(points.get_offsets()) for points in axes.collections}
    return np.array(sorted(drawn["kept"].tolist())), np.array(sorted(drawn["removed"].tolist()))


def dashed(axes):
    """Places of the horizontal and the vertical thresholds."""
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    horizontal = [line.get_ydata()[0] for line in lines if line.get_ydata()[0] == line.get_ydata()[1]]
    return horizontal, [line.get_xdata()[0] for line in lines if line.get_xdata()[0] == line.get_xdata()[1]]


def means_by_loops(maps, planes):
    """Region means and the overall mean: over pure cells, or by coverage where a region has none in any image.

    ``maps`` ``[images, channels, height, width]``, ``planes`` ``[images, regions, *size]`` of 0 and 1.
    """
    maps, step = maps.abs().double().numpy(), planes.shape[2] // maps.shape[2]
    images, channels, height, width = maps.shape
    rows = []
    for region in range(planes.shape[1]):
        cells = []
        for n in range(images):
            for i in range(height):
                for j in range(width):
                    block = planes[n, region, i * step : (i + 1) * step, j * step : (j + 1) * step]
                    cells.append((float(block.double().mean()), maps[n, :, i, j]))
        pure = [(1.0, values) for share, values in cells if share == 1]
        chosen = pure or cells
        rows.append(sum(share * values for share, values in chosen) / sum(share for share, _ in chosen))
    return np.array(rows), maps.transpose(1, 0, 2, 3).reshape(channels, -1).mean(1)


def object_planes(loader):
    inside = torch.cat([target[:, 0] for _, target in loader]) > 0.5
    return torch.stack([inside, ~inside], 1)


def algorithm_1(means, fract):
    """The paper's lines: ``>= quantile(1 - fract)`` in any region."""
    thresholds = np.array([np.quantile(row, 1 - fract) for row in means])
    return (means >= thresholds[:, None]).any(0), thresholds


def read_by(model, reader, loader):
    """All that a layer reads of the calibration images."""
    found = []
    handle = model.get_submodule(reader).register_forward_pre_hook(lambda _, args: found.append(args[0].detach()))
    with torch.no_grad():
        for image, *_ in loader:
            model(image)
    handle.remove()
    return torch.cat(found)


def pruned(net, importance, **options):
    """A pruned copy's record, the output left alone."""
    model = copy.deepcopy(net)
    record = PruningRecord(model)
    record.step(make_pruner(model, importance, ignored_layers=[model[5]], **options))
    return record


def labelled(size=8):
    """Label maps with the regions 0, 1 and 3, and void: columns of two pixels."""
    labels = torch.tensor([0, 1, 3, 255]).repeat_interleave(size // 4).expand(4, size, size)
    images = torch.randn(4, 2, size, size, generator=torch.Generator().manual_seed(1))
    return list(zip(images.split(2), torch.zeros(4).split(2), labels.split(2), strict=True))
