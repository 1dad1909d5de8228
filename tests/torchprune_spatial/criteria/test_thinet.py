"""ThiNet against plain loops over the sampled rows, and the sampled rows against the layers themselves."""

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from torchprune_spatial import ThiNetImportance
from torchprune_spatial.criteria.contributions import contributions
from torchprune_spatial.criteria.folding import fold_factors
from torchprune_spatial.criteria.thinet import iccv_order, rescaling, tpami_order

from ..networks import ProgramNet, calibration, networks, plain_net
from ..pruning import EXAMPLE, group_of, make_pruner, prune

LAYERS = {
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "strided": lambda: nn.Conv2d(6, 5, (3, 2), stride=(2, 1), padding=(1, 0)),
    "dilated": lambda: nn.Conv2d(6, 5, 3, dilation=2, padding=2),
    "same": lambda: nn.Conv2d(6, 5, 4, padding="same"),
    "valid": lambda: nn.Conv2d(6, 5, 3, padding="valid"),
    "reflect": lambda: nn.Conv2d(6, 5, 5, padding=2, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular"),
    "replicate": lambda: nn.Conv2d(6, 5, 5, padding=2, padding_mode="replicate"),
    "grouped": lambda: nn.Conv2d(6, 8, 3, padding=1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(6, 5, 2, stride=2),
    "transposed, overlapping": lambda: nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, output_padding=1, groups=2),
    "transposed, dilated": lambda: nn.ConvTranspose2d(6, 5, 3, stride=3, dilation=2, padding=2),
    "linear on tokens": lambda: nn.Linear(6, 5),
    "linear": lambda: nn.Linear(6, 5),
    "signal": lambda: nn.Conv1d(6, 5, 3, padding=1, stride=2),
    "volume": lambda: nn.ConvTranspose3d(6, 5, 3, stride=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_contributions_add_up_to_outputs_of_the_layer(name):
    """Every row's sum is one of the image's output values without bias; most of those are found by many samples."""
    layer = LAYERS[name]()
    layer.bias.data.zero_()
    grid = {"linear on tokens": (5,), "linear": (), "signal": (9,), "volume": (3, 4, 2)}.get(name, (7, 6))
    x = torch.randn(2, 6, *grid)
    linear = isinstance(layer, nn.Linear)
    with torch.no_grad():
        outputs = layer(x.movedim(1, -1)).movedim(-1, 1) if linear else layer(x)
    rows = contributions(layer, x, 4000, torch.Generator().manual_seed(0))
    for image, sums in zip(outputs, rows.sum(1).split(4000), strict=True):
        values = image.flatten().sort().values
        nearest = values[torch.searchsorted(values, sums).clamp(1, len(values) - 1).unsqueeze(1) - torch.tensor([1, 0])]
        torch.testing.assert_close((nearest - sums.unsqueeze(1)).abs().amin(1), torch.zeros(4000), rtol=0, atol=1e-5)
        found = sums.sort().values
        distance = (found[torch.searchsorted(found, values - 1e-5).clamp(max=3999)] - values).abs()
        assert (distance < 2e-5).float().mean() > 0.8


def test_a_channel_contributes_what_the_layer_makes_of_it_alone():
    layer, x = nn.Conv2d(4, 3, 3, padding=1, bias=False), torch.randn(1, 4, 5, 5)
    together = contributions(layer, x, 50, torch.Generator().manual_seed(1))
    for channel in range(4):
        alone = torch.zeros_like(x)
        alone[:, channel] = x[:, channel]
        rows = contributions(layer, alone, 50, torch.Generator().manual_seed(1))
        torch.testing.assert_close(rows[:, channel], together[:, channel])
        assert rows.count_nonzero() == rows[:, channel].count_nonzero()


def random_rows(channels, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(40, channels, generator=generator, dtype=torch.float64)
    if rank is not None:
        rows[:, rank:] = rows[:, :rank] @ torch.randn(rank, channels - rank, generator=generator, dtype=torch.float64)
    return rows


def plain_iccv(rows):
    """The authors' loop: at each step try every channel, on the rows themselves."""
    removed = []
    while len(removed) < rows.shape[1]:
        left = [j for j in range(rows.shape[1]) if j not in removed]
        removed.append(min(left, key=lambda j: rows[:, [*removed, j]].sum(1).norm().item()))
    return removed


def plain_tpami(rows):
    selected, y = [], rows.sum(1)
    rest = y
    while len(selected) < rows.shape[1]:

        def error(j, rest=rest):
            x = rows[:, j]
            return (rest - x * (x @ rest) / (x @ x)).norm().item()

        selected.append(min((j for j in range(rows.shape[1]) if j not in selected), key=error))
        w = torch.linalg.pinv(rows[:, selected]) @ y
        rest = y - rows[:, selected] @ w
    return selected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("channels", [1, 2, 5, 12])
def test_greedy_orders_agree_with_the_authors_loops(channels, seed):
    rows = random_rows(channels, seed)
    gram = rows.T @ rows
    assert iccv_order(gram).tolist() == plain_iccv(rows)
    # the last ones are chosen by rounding: what is left to explain is zero
    assert tpami_order(gram).tolist()[: channels - 1] == plain_tpami(rows)[: channels - 1]


@pytest.mark.parametrize("seed", range(5))
def test_first_choices_are_the_best_of_all(seed):
    """Against brute force over all the sets of one channel."""
    rows = random_rows(7, seed)
    gram, y = rows.T @ rows, rows.sum(1)

    def left(j):
        return (y - rows[:, [j]] @ torch.linalg.pinv(rows[:, [j]]) @ y).norm().item()

    assert iccv_order(gram)[0] == min(range(7), key=lambda j: rows[:, j].norm().item())
    assert tpami_order(gram)[0] == min(range(7), key=left)


def test_dependent_and_dead_channels_come_last():
    rows = random_rows(6, 0, rank=3)
    rows[:, 4] = 0
    order = tpami_order(rows.T @ rows).tolist()
    assert sorted(order) == list(range(6))
    assert order[-1] == 4
    assert iccv_order(rows.T @ rows).tolist()[0] == 4


@pytest.mark.parametrize("kept", [[0], [1, 4], [0, 2, 3, 5]])
def test_rescaling_is_least_squares(kept):
    rows = random_rows(6, 3)
    expected = torch.linalg.lstsq(rows[:, kept], rows.sum(1, keepdim=True)).solution.squeeze(1)
    torch.testing.assert_close(rescaling(rows.T @ rows, torch.tensor(kept)), expected)


@pytest.mark.parametrize("form", ["tpami", "iccv"])
@settings(max_examples=15)
@given(model=networks)
def test_prunes_random_networks(form, model):
    prune(model, ThiNetImportance(calibration(), form))
    assert model(EXAMPLE).shape == (1, 3, 8, 8)


def test_keeps_the_channels_that_the_next_layer_uses():
    """Strong activations with small outgoing weights against weak ones with large ones: 10·0.1, 1·5, 8·0.1, 2·4."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].weight.data = torch.tensor([[10.0, 0], [0, 1], [8, 0], [0, 2]]).view(4, 2, 1, 1)
    model[2].weight.data = torch.tensor([0.1, 5, 0.1, 4]).view(1, 4, 1, 1)
    data = [torch.rand(3, 2, 4, 4)]  # inputs alone will do
    group = group_of(model, "0", torch.zeros(1, 2, 4, 4))
    assert ThiNetImportance(data, "iccv")(group).argmax() == 3
    # channels 1 and 3 are multiples of one input, 0 and 2 of the other: a pair of both kinds explains everything
    first, second = ThiNetImportance(data)(group).argsort(descending=True).tolist()[:2]
    assert first in (1, 3)
    assert second in (0, 2)


@pytest.mark.parametrize("blocks", [["convolution"], ["concatenation"], ["transposed"], ["residual"]])
def test_folded_rescaling_lowers_the_error_of_the_next_layer(blocks):
    def error(fold):
        model = ProgramNet(blocks, width=8, seed=3)
        data = calibration(images=8)
        images = torch.cat([image for image, _ in data])
        before = model(images)
        importance = ThiNetImportance(data, locations=2000)
        name = "layer0"
        ratios = {model.layers[name]: 0.5}
        pruner = make_pruner(model, importance, pruning_ratio=0.0, pruning_ratio_dict=ratios)
        for group in pruner.step(interactive=True):
            if fold:
                importance.fold(group)
            group.prune()
        return (model(images) - before).square().mean().item()

    assert error(fold=True) < error(fold=False)


def test_folding_is_exact_where_a_channel_is_a_copy():
    """Two pairs of copies: half of the channels do, once the other half's weights are folded into the next layer."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter[2:] = parameter[:2]
        model[2].weight[:, 2:] = model[2].weight[:, :2] * 0.5
    image = torch.randn(2, 2, 8, 8)
    before = model(image)
    importance = ThiNetImportance([image])
    pruner = make_pruner(model, importance, ignored_layers=[model[2]])
    for group in pruner.step(interactive=True):
        importance.fold(group)
        group.prune()
    assert model[0].out_channels == 2
    torch.testing.assert_close(model(image), before, rtol=1e-4, atol=1e-5)


def test_grouped_layers_are_folded_into_their_own_group():
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 4, 1, groups=2, bias=False), nn.Conv2d(4, 1, 1))
    weight = model[1].weight.detach().clone()
    fold_factors(model[1], torch.tensor([1, 2]), torch.tensor([3.0, 5.0]).double())
    factors = torch.tensor([[1.0, 3.0], [1.0, 3.0], [5.0, 1.0], [5.0, 1.0]])  # filters 0, 1 read inputs 0, 1
    torch.testing.assert_close(model[1].weight.flatten(1), weight.flatten(1) * factors)


def test_arguments():
    with pytest.raises(ValueError, match="form is 'cvpr'; expected one of 'tpami', 'iccv'"):
        ThiNetImportance([], "cvpr")
    with pytest.raises(ValueError, match="locations is 0"):
        ThiNetImportance([], locations=0)
    with pytest.raises(ValueError, match="group was not scored by this importance"):
        ThiNetImportance(calibration()).fold(group_of(plain_net(), "0"))


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_generator_alone():
    model, state = plain_net(), torch.get_rng_state()
    one, same, other = (
        ThiNetImportance(calibration(), locations=2, seed=seed).statistics(group_of(model, "0")._DG)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    one, same, other = (next(iter(s.values.values()))[model[3]].matrix() for s in (one, same, other))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_orders_of_a_single_channel():
    assert [f(torch.tensor([[2.0]])).tolist() for f in (iccv_order, tpami_order)] == [[0], [0]]


class TwoReaders(nn.Module):
    """One convolution that two others read."""

    def __init__(self):
        super().__init__()
        self.source = nn.Conv2d(2, 6, 1)
        self.readers = nn.ModuleList(nn.Conv2d(6, 3, 3, padding=1) for _ in range(2))
        self.output = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = torch.relu(self.source(x))
        return self.output(torch.cat([reader(x) for reader in self.readers], 1))


def gram_of(reader, x, locations=10):
    """The Gram matrix of the first batch, from the rows themselves."""
    rows = contributions(reader, x, locations, torch.Generator().manual_seed(hash((0, 0, 0)))).detach().double()
    return rows.T @ rows


def test_layers_that_read_one_tensor_are_measured_apart_and_count_alike():
    model, image = TwoReaders(), torch.randn(4, 2, 8, 8)
    with torch.no_grad():
        model.readers[1].weight *= 1000
    importance = ThiNetImportance([image], "iccv")
    group = group_of(model, "source")
    grams = [gram_of(reader, torch.relu(model.source(image))) for reader in model.readers]
    for reader, gram in zip(model.readers, grams, strict=True):
        found = importance.statistics(group._DG).values[importance.measurement][reader].matrix()
        torch.testing.assert_close(found, gram, rtol=1e-4, atol=1e-6 * gram.max().item())
    order = iccv_order(sum(gram / gram.diag().sum() for gram in grams)).tolist()
    assert importance(group).argsort().tolist() == order
    assert order != iccv_order(sum(grams)).tolist()  # the second alone would decide


def test_depthwise_convolutions_do_not_count_beside_a_layer_that_mixes():
    model = nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    with torch.no_grad():
        model[2].weight *= 1000
    image = torch.randn(4, 2, 8, 8)
    scores = ThiNetImportance([image], "iccv")(group_of(model, "0"))
    assert scores.argsort().tolist() == iccv_order(gram_of(model[4], model[:4](image))).tolist()


def test_every_batch_is_sampled_anew():
    model, image = plain_net(), torch.randn(2, 2, 8, 8)
    graph = group_of(model, "0")._DG
    once, twice = (ThiNetImportance(data).statistics(graph) for data in ([image], [image, image]))
    once, twice = (next(iter(statistics.values.values()))[model[3]].matrix() for statistics in (once, twice))
    assert not torch.allclose(2 * once, twice)
