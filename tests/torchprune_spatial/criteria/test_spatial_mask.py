"""The scores of the criterion, against plain loops and by hand."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import SpatialMaskImportance

from ..networks import BLOCKS, ProgramNet, calibration, networks
from ..pruning import group_of, groups_of, prune


def plain_region_means(tensor, masks, cells):
    """Mean of |x| of each channel over the cells of each region, by loops. `masks` is a list of [regions][y][x]."""
    images, channels, height, width = tensor.shape
    values, factor = tensor.tolist(), len(masks[0][0]) // height
    means = []
    for region in range(len(masks[0])):
        pure, covered = ([0.0] * channels, 0.0), ([0.0] * channels, 0.0)
        for image in range(images):
            for y in range(height):
                for x in range(width):
                    cell = [
                        masks[image][region][y * factor + i][x * factor + j]
                        for i in range(factor)
                        for j in range(factor)
                    ]
                    coverage = sum(cell) / len(cell)
                    for (sums, _), w in ((pure, float(coverage == 1)), (covered, coverage)):
                        for channel in range(channels):
                            sums[channel] += w * abs(values[image][channel][y][x])
                    pure, covered = (pure[0], pure[1] + (coverage == 1)), (covered[0], covered[1] + coverage)
        sums, weight = covered if cells == "coverage" or pure[1] == 0 else pure
        means.append(([s / weight for s in sums], covered))
    overall = [sum(m[1][0][c] for m in means) / sum(m[1][1] for m in means) for c in range(channels)]
    return [m[0] for m in means] + [overall]


def plain_scores(model, data, cells="auto"):
    """Scores of every channel identity of a `ProgramNet`, by loops: no hook, no Torch-Pruning."""
    images = torch.cat([image for image, _ in data])
    targets = torch.cat([target for _, target in data])
    masks = [[(t[0] > 0.5).float().tolist(), (t[0] <= 0.5).float().tolist()] for t in targets]
    with torch.no_grad():
        tensors = model.run(images)
    identities = model.channel_identities()
    found: dict[int, list[list[float]]] = {}  # identity -> one [object, background, overall] a layer that reads it
    for _, source in model.readers():
        means = plain_region_means(tensors[source], masks, cells)
        here: dict[int, list[list[float]]] = {}
        for channel, identity in enumerate(identities[source]):
            here.setdefault(identity, []).append([m[channel] for m in means])
        for identity, rows in here.items():
            found.setdefault(identity, []).append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    return {i: [sum(column) / len(rows) for column in zip(*rows, strict=True)] for i, rows in found.items()}


def plain_union_scores(rows):
    """(max rank + tie break) / channels, with ranks by counting the channels that come before."""
    count = len(rows)

    def before(a, b, region):
        return (rows[a][region], rows[a][-1], -a) < (rows[b][region], rows[b][-1], -b)

    regions = range(len(rows[0]) - 1)
    ranks = [[sum(before(a, b, r) for a in range(count)) for r in regions] for b in range(count)]
    return [(max(r) + (sum(r) + r[0] / count) / (len(r) * count)) / count for r in ranks]


def best_filters_of_layers(model, ids, scores):
    """The best filter of each layer that has a part of the channels to itself: no layer may be emptied."""
    identities = model.channel_identities()

    def layers_of(identity):
        written = {name for name, layer in model.layers.items() if hasattr(layer, "groups") and identity in
                   identities[model.written_by(name)]}  # fmt: skip
        return frozenset(written | {name for name, source in model.readers() if identity in identities[source]})

    parts = {}
    for i, identity in enumerate(ids):
        parts.setdefault(layers_of(identity), []).append(i)
    return {max(part, key=scores.__getitem__) for part in parts.values()}


def order(scores):
    return torch.as_tensor(scores).argsort().tolist()


@settings(max_examples=40)
@given(model=networks, cells=st.sampled_from(["auto", "coverage"]), seed=st.integers(0, 1000))
def test_scores_agree_with_plain_loops(model, cells, seed):
    data = calibration(seed=seed)
    model.eval()
    expected, identities = plain_scores(model, data, cells), model.channel_identities()
    names = {layer: name for name, layer in model.layers.items()}
    importance = SpatialMaskImportance(data, cells=cells, normalizer=None)
    comparable = SpatialMaskImportance(importance.calibration, cells=cells)
    scored = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group in groups_of(model):
            scores = importance(group)
            root = names[group[0].dep.target.module]
            if root == "output":
                assert scores is None
                continue
            rows = [expected[i] for i in identities[model.written_by(root)]]
            ranks = plain_union_scores(rows)
            best = best_filters_of_layers(model, identities[model.written_by(root)], ranks)
            rest = [i for i in range(len(rows)) if i not in best]
            assert [scores[i].item() for i in rest] == pytest.approx([ranks[i] for i in rest], abs=1e-7)
            assert scores[list(best)].tolist() == pytest.approx([max(ranks)] * len(best), abs=1e-5)
            assert order(comparable(group)) == order(scores)
            values = sorted(max(row[r] / (max(other[r] for other in rows) or 1) for r in (0, 1)) for row in rows)
            rest.sort(key=ranks.__getitem__)
            order_of_all = sorted(range(len(rows)), key=ranks.__getitem__)
            expected_rest = [values[order_of_all.index(i)] for i in rest]
            assert comparable(group)[rest].tolist() == pytest.approx(expected_rest, abs=1e-6)
            scored += 1
    assert scored > 0


@pytest.mark.parametrize("blocks", [[block] for block in BLOCKS])
def test_functional_and_module_activations_score_alike(blocks):
    data = calibration()
    scores = []
    for module_activations in (False, True):
        model = ProgramNet(blocks, norm=True, module_activations=module_activations)
        importance = SpatialMaskImportance(data)
        scores.append([importance(group) for group in groups_of(model)[1:]])
    for functional, module in zip(*scores, strict=True):
        torch.testing.assert_close(functional, module, rtol=0, atol=0)


def test_a_filter_that_answers_only_in_the_object_is_kept():
    """Filter 0 answers weakly, and only where the target is; filters 1 to 3 more strongly, and only elsewhere."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].weight.data = torch.tensor([0.1, -1.0, -2.0, -3.0]).view(4, 1, 1, 1)
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, 2:4, 2:4] = 1
    data = [(torch.where(target > 0, 1.0, -1.0), target)]
    prune(model, SpatialMaskImportance(data), torch.zeros(1, 1, 8, 8))
    assert model[0].weight.flatten().tolist() == pytest.approx([0.1, -3.0])


def test_group_reduction_over_two_readers_by_hand():
    class TwoReaders(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.first, self.second = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
            self.output = nn.Conv2d(4, 1, 1)

        def forward(self, x):
            x = self.source(x)
            return self.output(
                torch.cat([self.first(x), self.second(x * torch.tensor([9.0, 3.0, 0.0]).view(3, 1, 1))], 1)
            )

    model = TwoReaders()
    model.source.weight.data = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1)
    model.source.bias.data.zero_()
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    data = [(torch.ones(1, 1, 4, 4), target)]
    group = group_of(model, "source", torch.zeros(1, 1, 4, 4))
    # channel means read by `first`: 1, 2, 4; by `second`: 9, 6, 0. Both regions alike.
    expected = {
        "first": [0, 1, 2],
        "gate": [2, 1, 0],
        "mean": [2, 1, 0],  # 2, 4, 5
        "sum": [2, 1, 0],  # 4, 8, 10
        "max": [2, 1, 0],  # 4, 6, 9
        "prod": [2, 0, 1],  # 0, 9, 12
    }
    for reduction, ascending in expected.items():
        assert order(SpatialMaskImportance(data, group_reduction=reduction)(group)) == ascending, reduction
