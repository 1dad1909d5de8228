"""The criterion inside Torch-Pruning: plain-loop scores, pruned against masked networks, options, bad input."""

import copy
import warnings

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchprune_spatial
from torchprune_spatial import SpatialMaskImportance

from .networks import BLOCKS, ProgramNet, calibration, networks, plain_net

EXAMPLE = torch.zeros(1, 2, 8, 8)


def make_pruner(model, importance, example=EXAMPLE, **options):
    options.setdefault("pruning_ratio", 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        return tp.pruner.BasePruner(model, example, importance=importance, **options)


def prune(model, importance, example=EXAMPLE, **options):
    pruner = make_pruner(model, importance, example, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        pruner.step()
    return pruner


def groups_of(model, example=EXAMPLE):
    return list(tp.DependencyGraph().build_dependency(model, example).get_all_groups())


def group_of(model, name, example=EXAMPLE):
    """The group of all the filters of a layer."""
    graph = tp.DependencyGraph().build_dependency(model, example)
    layer = model.get_submodule(name)
    return graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))


# --- the scores -------------------------------------------------------------------------------------------------------


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


def order(scores):
    return torch.as_tensor(scores).argsort().tolist()


@settings(max_examples=40)
@given(model=networks, cells=st.sampled_from(["auto", "coverage"]), seed=st.integers(0, 1000))
def test_scores_agree_with_plain_loops(model, cells, seed):
    data = calibration(seed=seed)
    model.eval()
    expected, identities = plain_scores(model, data, cells), model.channel_identities()
    names = {layer: name for name, layer in model.layers.items()}
    importance = SpatialMaskImportance(data, cells=cells)
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
            torch.testing.assert_close(scores, torch.tensor(plain_union_scores(rows), dtype=torch.float64))
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


# --- pruning ----------------------------------------------------------------------------------------------------------


def hold_at_zero(model, removed):
    """The network with the removed channels at zero: their filters, biases and norms, in the layers that write them."""
    masked = copy.deepcopy(model)
    for name, channels in removed:
        layer = masked.get_submodule(name)
        weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
        weight[channels] = 0
        layer.bias.data[channels] = 0
    return masked


def assert_pruned_equals_masked(model, image, pruner):
    names = {module: name for name, module in model.named_modules()}
    original, removed = copy.deepcopy(model), []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        for group in pruner.step(interactive=True):
            for dep, channels in group:
                if dep.target.module in names and pruner.DG.is_out_channel_pruning_fn(dep.handler):
                    removed.append((names[dep.target.module], channels))
            group.prune()
    assert removed
    model.eval(), original.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(image), hold_at_zero(original, removed)(image), rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(model=networks, ratio=st.sampled_from([0.3, 0.5, 0.7]), options=st.sampled_from([{}, {"global_pruning": True}]))
def test_pruned_equals_the_original_with_removed_channels_at_zero(model, ratio, options):
    pruner = make_pruner(model, SpatialMaskImportance(calibration()), pruning_ratio=ratio, **options)
    if all(g[0].dep.target.module.out_channels * (1 - ratio) < 1 for g in groups_of(model)):
        return
    assert_pruned_equals_masked(model, torch.randn(2, 2, 8, 8), pruner)


def test_keeps_the_union_of_both_regions():
    """Six channels, three kept: the best two of the object {0, 1}, the best two of the background {1, 2}."""
    model = nn.Sequential(nn.Conv2d(2, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 1, 1))
    in_object = torch.tensor([0.6, 0.5, 0.1, 0.2, 0.3, 0.0])
    in_background = torch.tensor([0.0, 0.5, 0.6, 0.3, 0.1, 0.2])
    model[0].weight.data = torch.stack([in_object, in_background], 1).view(6, 2, 1, 1)
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    data = [(torch.cat([target, 1 - target], 1), target)]
    prune(model, SpatialMaskImportance(data), torch.zeros(1, 2, 4, 4))
    assert model[0].weight[:, 0].flatten().tolist() == pytest.approx([0.6, 0.5, 0.1])


OPTIONS = {
    "local": {},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
    "round_to": {"round_to": 2},
    "max_pruning_ratio": {"global_pruning": True, "max_pruning_ratio": 0.6},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("normalizer", [None, "mean", "max", "gaussian", "lamp"])
def test_options_of_the_pruner(options, normalizer):
    model = ProgramNet(["convolution", "residual", "down_up", "depthwise", "transposed"], width=8, norm=True)
    parameters = sum(p.numel() for p in model.parameters())
    prune(model, SpatialMaskImportance(calibration(), normalizer=normalizer), **options)
    widths = [layer.out_channels for name, layer in model.layers.items() if name.startswith("layer")]
    assert sum(p.numel() for p in model.parameters()) < 0.6 * parameters
    assert model(EXAMPLE).shape == (1, 3, 8, 8)
    if "round_to" in options:
        assert all(width % 2 == 0 for width in widths)


def test_pruning_ratio_dict_and_ignored_layers():
    model = plain_net()
    prune(model, SpatialMaskImportance(calibration()), pruning_ratio_dict={model[0]: 2 / 3}, ignored_layers=[model[3]])
    assert (model[0].out_channels, model[3].out_channels, model[5].out_channels) == (2, 8, 1)


def test_iterative_pruning_takes_the_statistics_again():
    """After the first step the second layer sees another input, which turns the order of its filters round."""

    def build():
        model = nn.Sequential(
            *(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1))
        )
        # filters 2 and 3 are weak, so the first step removes them; what filters 0 to 3 of the second layer give is
        # 1, 2, 3, 4 from the strong inputs alone, and was 41, 32, 23, 14 with the weak ones
        model[0].weight.data = torch.tensor([[3.0, 3], [2, 2], [1, 1], [0.5, 0.5]]).view(4, 2, 1, 1)
        model[2].weight.data = torch.tensor([[1.0, 0, 40, 0], [2, 0, 30, 0], [3, 0, 20, 0], [4, 0, 10, 0]]).view(
            4, 4, 1, 1
        )
        return model

    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    data = [(torch.ones(1, 2, 4, 4), target)]
    model = build()
    importance = SpatialMaskImportance(data)
    pruner = make_pruner(
        model,
        importance,
        torch.zeros(1, 2, 4, 4),
        ignored_layers=[model[4]],
        pruning_ratio_dict={model[0]: 0.5, model[2]: 0.5},
        iterative_steps=2,
        iterative_pruning_ratio_scheduler=lambda ratio, steps: [0, 0.5, 0.5] if ratio == 0.5 else [0] * (steps + 1),
    )
    # step 1 as usual removes two of each layer; here the second layer is held back to show the second scoring
    pruner.pruning_ratio_dict[model[2]] = [0, 0.0, 0.5]
    pruner.step()
    assert (model[0].out_channels, model[2].out_channels) == (2, 4)
    pruner.step()
    assert model[2].out_channels == 2
    assert model[2].weight[:, 0].flatten().tolist() == [3, 4]  # stale statistics would have kept 1 and 2


def test_training_between_steps_takes_the_statistics_again():
    model = plain_net()
    importance = SpatialMaskImportance(calibration())
    group = group_of(model, "0")
    before = importance(group)
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.flip(0))
        model[0].bias.copy_(model[0].bias.flip(0))
    assert order(importance(group)) != order(before)


def test_one_pass_serves_all_the_groups():
    passes = []

    class Counting(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    model = plain_net()
    prune(model, SpatialMaskImportance(Counting(calibration())))
    assert len(passes) == 1


# --- outputs are never pruned -----------------------------------------------------------------------------------------


class TwoOutputs(nn.Module):
    """Returns what it computes from its features, and a part of its features as well."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.a, self.b, self.c = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        features = self.b(hidden)
        if self.mode == "layer":
            return self.c(features), features
        activated = torch.relu(features)
        image = self.c(nn.functional.max_pool2d(activated, 2))
        return {"features": [activated], "image": image} if self.mode == "dict" else (image, activated)


@pytest.mark.parametrize("mode", ["layer", "tuple", "dict"])
def test_features_that_are_returned_are_not_pruned(mode):
    model = TwoOutputs(mode)
    pruner = make_pruner(model, SpatialMaskImportance(calibration()))
    with pytest.warns(UserWarning, match="outputs of the network, so they are not pruned") as caught:
        pruner.step()
    assert {name for name in ("'a'", "'b'", "'c'") if any(name in str(w.message) for w in caught)} == {"'b'", "'c'"}
    assert (model.a.out_channels, model.b.out_channels, model.c.out_channels) == (4, 8, 4)


def test_a_global_residual_keeps_the_output():
    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

        def forward(self, x):
            return x - self.last(torch.relu(self.inner(x)))

    model = Denoiser()
    prune(model, SpatialMaskImportance(calibration()))
    assert (model.inner.out_channels, model.last.out_channels) == (3, 2)


def test_channels_that_only_a_recurrent_layer_reads_are_left_with_a_warning():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.features = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
            self.rows, self.output = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, x):
            x = self.features(self.first(x)).mean(3).transpose(1, 2)
            return self.output(self.rows(x)[0])

    model = Recurrent()
    graph = tp.DependencyGraph().build_dependency(model, EXAMPLE)
    importance = SpatialMaskImportance(calibration())
    group = graph.get_pruning_group(model.features, tp.prune_conv_out_channels, list(range(6)))
    with pytest.warns(UserWarning, match="'features': no convolution or linear layer reads these channels"):
        assert importance(group) is None
    group = graph.get_pruning_group(model.first, tp.prune_conv_out_channels, list(range(4)))
    assert importance(group).shape == (4,)


def test_ignored_outputs_do_not_warn():
    model = plain_net()
    pruner = tp.pruner.BasePruner(
        model, EXAMPLE, importance=SpatialMaskImportance(calibration()), ignored_layers=[model[5]]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.step()


def test_frozen_layers_are_traced_and_stay_frozen():
    model = TwoOutputs("tuple")
    pruner = make_pruner(model, SpatialMaskImportance(calibration()))
    model.requires_grad_(False)
    with pytest.warns(UserWarning, match="outputs of the network, so they are not pruned"):
        pruner.step()
    assert model.b.out_channels == 8
    assert not any(p.requires_grad for p in (model.b.bias, model.c.bias))


# --- what users bring -------------------------------------------------------------------------------------------------


def test_registered_on_torch_pruning():
    assert tp.importance.SpatialMaskImportance is torchprune_spatial.SpatialMaskImportance
    assert "SpatialMaskImportance" in tp.importance.__all__


def kept_channels(model, importance, example=EXAMPLE, layer=0):
    """Indices of the filters that survive in a layer."""
    tagged = model[layer].weight.detach().flatten(1).sum(1).tolist()
    prune(model, importance, example)
    return [tagged.index(value) for value in model[layer].weight.detach().flatten(1).sum(1).tolist()]


def test_masks_from_the_target_the_loader_and_a_callable_agree():
    data = calibration()
    sources = [
        SpatialMaskImportance(data, threshold=0.5),
        SpatialMaskImportance(data, threshold="otsu"),
        SpatialMaskImportance([(x, None, t > 0.5) for x, t in data]),
        SpatialMaskImportance([(x, t, (t > 0.5).squeeze(1)) for x, t in data]),
        SpatialMaskImportance(data, masks=lambda x, t: t > 0.5),
        SpatialMaskImportance(DataLoader(TensorDataset(*map(torch.cat, zip(*data, strict=True))), batch_size=3)),
    ]
    scores = [importance(group_of(plain_net(), "0")) for importance in sources]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0])


def test_masks_from_a_callable_without_targets():
    inputs = [x for x, _ in calibration()]
    importance = SpatialMaskImportance(inputs, masks=lambda x, target: x[:, :1] > 0 if target is None else 1 / 0)
    assert importance(group_of(plain_net(), "0")).shape == (6,)


def test_masks_from_the_model_itself_are_not_counted_as_its_activations():
    data, model = calibration(), plain_net()

    def segment(x, _):
        return nn.functional.interpolate(model(x), scale_factor=2.0) > 0

    with torch.no_grad():
        known = [(x, None, segment(x, None)) for x, _ in data]
    expected = SpatialMaskImportance(known)(group_of(model, "0"))
    scores = SpatialMaskImportance(data, masks=segment)(group_of(model, "0"))
    torch.testing.assert_close(scores, expected)


def test_three_regions_keep_the_best_of_each():
    model = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 1, 1))
    by_region = torch.tensor([[5.1, 0, 0], [0, 5.2, 0], [0, 0, 5.3], [4, 4, 0], [3, 3, 3], [0, 4, 4]])
    model[0].weight.data = by_region.view(6, 3, 1, 1)
    labels = torch.tensor([0, 1, 2, 255]).repeat(4, 1).unsqueeze(0)  # one region a column, the last column is void
    image = nn.functional.one_hot(labels.clamp(max=3), 4)[..., :3].movedim(-1, 1).float()
    data = [(image, None, labels)]
    assert sorted(kept_channels(model, SpatialMaskImportance(data), torch.zeros(1, 3, 4, 4))) == [0, 1, 2]


def test_labels_that_appear_in_a_later_batch_are_regions_too():
    images = torch.randn(3, 2, 8, 8)
    labels = torch.randint(0, 2, (3, 8, 8))
    labels[2, :4] = 2
    one_by_one = [(images[i : i + 1], None, labels[i : i + 1]) for i in range(3)]
    scores = [
        SpatialMaskImportance(data)(group_of(plain_net(), "0")) for data in (one_by_one, [(images, None, labels)])
    ]
    torch.testing.assert_close(*scores)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain_net()

    def forward(self, image, scale, extra=None):
        assert extra is not None
        return {"image": self.net(image * scale.view(-1, 1, 1, 1)), "scale": scale}


def test_models_with_several_inputs_and_dict_outputs():
    data = calibration()
    scale = torch.ones(2)
    example = {"image": EXAMPLE, "scale": torch.ones(1), "extra": torch.ones(1)}

    def first_group():
        graph = tp.DependencyGraph().build_dependency(Scaled(), example, output_transform=lambda out: out["image"])
        return graph.get_pruning_group(graph.model.net[0], tp.prune_conv_out_channels, list(range(6)))

    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    importances = [
        SpatialMaskImportance([({"image": x, "scale": scale, "extra": scale}, t) for x, t in data]),
        SpatialMaskImportance([((x, scale, scale), t) for x, t in data]),
        SpatialMaskImportance(data, forward=lambda model, x: model(x, torch.ones(len(x)), extra=x)),
    ]
    for importance in importances:
        torch.testing.assert_close(importance(first_group()), expected)


def test_super_resolution_masks_are_larger_than_the_input():
    upscaler = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 2, stride=2))
    data = [(x, nn.functional.interpolate(t, scale_factor=2.0)) for x, t in calibration()]
    assert SpatialMaskImportance(data)(group_of(upscaler, "0")).shape == (6,)


def test_channels_last_changes_nothing():
    data = calibration()
    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    last = plain_net().to(memory_format=torch.channels_last)
    data = [(x.contiguous(memory_format=torch.channels_last), t) for x, t in data]
    torch.testing.assert_close(SpatialMaskImportance(data)(group_of(last, "0")), expected)


@pytest.mark.parametrize("mode", ["autocast", "bfloat16", "float64"])
def test_other_precisions_give_nearly_the_same_means(mode):
    data, model = calibration(), plain_net()
    expected = SpatialMaskImportance(data).statistics(group_of(model, "0")._DG).means[model[3]]
    graph = group_of(model, "0")._DG
    if mode == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            means = SpatialMaskImportance(data).statistics(graph).means[model[3]]
    else:
        model.to(getattr(torch, mode))
        means = SpatialMaskImportance(data).statistics(graph).means[model[3]]
    torch.testing.assert_close(means, expected, rtol=0.02, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("autocast", [False, True])
def test_gpu_gives_the_same_order(autocast):
    data = calibration()
    expected = SpatialMaskImportance(data)(group_of(plain_net(), "0"))
    group = group_of(plain_net().cuda(), "0", EXAMPLE.cuda())
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        scores = SpatialMaskImportance(data)(group)
    if not autocast:
        torch.testing.assert_close(scores.cpu(), expected)
    assert next(group._DG.model.parameters()).is_cuda


# --- bad input --------------------------------------------------------------------------------------------------------


def snapshot(model):
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad is None for p in model.parameters()],
        "devices": [p.device for p in model.parameters()],
    }


def assert_untouched(model, before):
    after = snapshot(model)
    for name, tensor in before.pop("state").items():
        torch.testing.assert_close(after["state"][name], tensor, rtol=0, atol=0, equal_nan=True)
    after.pop("state")
    assert after == before


class OnceOnly:
    """Iterable, but each time over the same generator."""

    def __init__(self, data):
        self.batches = (batch for batch in data)

    def __iter__(self):
        return self.batches


DATA = calibration()
BAD_DATA = {
    "empty": ([], {}, "loader yielded no batch"),
    "inputs only": ([x for x, _ in DATA], {}, "loader yielded only inputs"),
    "inputs only, in tuples": ([(x,) for x, _ in DATA], {}, "loader yielded only inputs"),
    "four items": ([(x, t, t, t) for x, t in DATA], {}, "loader yielded a tuple of 4 items"),
    "class labels": ([(x, torch.zeros(2)) for x, _ in DATA], {}, r"target has shape \[2\].*pass `masks`"),
    "target of another batch": ([(x, t[:1]) for x, t in DATA], {}, "target holds 1 images, but the input holds 2"),
    "mask of another batch": ([(x, t, t[:1] > 0.5) for x, t in DATA], {}, "mask holds 1 images"),
    "mask of another size": ([(x, t, t[..., :4, :4] > 0.5) for x, t in DATA], {}, "mask has size 4 x 4.*8 x 8.*resize"),
    "callable mask of another size": (DATA, {"masks": lambda x, t: t[..., :2]}, "masks has size 8 x 2"),
    "mask values": ([(x, t, 255 * t) for x, t in DATA], {}, "must lie in 0..1"),
    "mask without a batch": ([(x, t, t[0, 0] > 0.5) for x, t in DATA], {}, "mask has shape"),
    "0/255 labels": ([(x, t, (255 * (t > 0.5)).byte()) for x, t in DATA], {}, "255"),
    "mask is no tensor": (DATA, {"masks": lambda x, t: None if x is None else t.numpy()}, "masks is a ndarray"),
    "mask is None": (DATA, {"masks": lambda x, t: None}, "masks is a NoneType"),
    "no object": (DATA, {"threshold": 5.0}, "threshold=5.0 leaves every image without an object.*otsu"),
    "no background": (DATA, {"threshold": -1.0}, "threshold=-1.0 leaves every image without background"),
    "constant targets": ([(x, torch.ones_like(t)) for x, t in DATA], {"threshold": "otsu"}, "without an object"),
    "masks of one region": ([(x, None, torch.zeros(2, 8, 8).int()) for x, _ in DATA], {}, "masks hold 1 region"),
    "literal rule undefined": (
        [(x, None, torch.eye(8).bool().expand(2, 8, 8)) for x, _ in DATA],
        {"cells": "pure"},
        "cells='pure' is undefined for region 0 at the input of '3'.*cells='auto'",
    ),
}


@pytest.mark.parametrize(("data", "options", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_explained_and_the_model_untouched(data, options, message):
    model = plain_net()
    group = group_of(model, "0")
    model.train()
    model[3].eval()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        SpatialMaskImportance(data, **options)(group)
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loader": (batch for batch in DATA)}, TypeError, "loader is a generator.*list"),
        ({"loader": 3}, TypeError, "loader is a int"),
        ({"loader": TensorDataset(torch.zeros(2, 1))}, TypeError, r"loader is a dataset.*DataLoader\(dataset"),
        ({"loader": DATA, "threshold": "median"}, ValueError, "threshold is 'median'.*otsu"),
        ({"loader": DATA, "threshold": float("nan")}, ValueError, "threshold is nan"),
        ({"loader": DATA, "masks": torch.ones(2)}, TypeError, "masks is a Tensor.*loader"),
        ({"loader": DATA, "cells": "all"}, ValueError, "cells is 'all'.*'coverage'"),
        ({"loader": DATA, "group_reduction": "median"}, ValueError, "group_reduction is 'median'"),
    ],
)
def test_bad_arguments_are_explained(arguments, error, message):
    with pytest.raises(error, match=message):
        SpatialMaskImportance(**arguments)


def test_a_loader_exhausted_at_the_second_use():
    model = plain_net()
    pruner = make_pruner(model, SpatialMaskImportance(OnceOnly(DATA)), iterative_steps=2, ignored_layers=[model[5]])
    pruner.step()
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"loader yielded no batch when it was read again.*more than once"):
        pruner.step()
    assert_untouched(model, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_activations_name_the_layer(value):
    model = plain_net()
    group = group_of(model, "0")
    model[3].weight.data[2] = value
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"layer '3' gives NaN or infinite activations, seen at the input of '5'"):
        SpatialMaskImportance(DATA)(group)
    assert_untouched(model, before)


def test_non_finite_inputs_are_told_from_bad_layers():
    group = group_of(plain_net(), "0")
    with pytest.raises(ValueError, match="loader's inputs have NaN"):
        SpatialMaskImportance([(x / 0 * 0, t) for x, t in DATA])(group)


def test_a_network_with_no_prunable_layer():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    group = group_of(model, "0")
    before = snapshot(model)
    with pytest.raises(ValueError, match="no prunable layer: every layer writes"):
        SpatialMaskImportance(DATA)(group)
    assert_untouched(model, before)


def test_an_exception_in_the_forward_leaves_the_model_as_it_was():
    model = plain_net()
    group = group_of(model, "0")
    model.train().requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="channels"):
        SpatialMaskImportance([(x[:, :1], t) for x, t in DATA])(group)
    assert_untouched(model, before)


def test_scoring_leaves_modes_gradients_and_buffers():
    model = ProgramNet(["residual", "transposed"], norm=True)
    group = group_of(model, "layers.layer0")
    model.train()
    model(torch.randn(2, 2, 8, 8)).sum().backward()
    before = snapshot(model)
    SpatialMaskImportance(DATA)(group)
    assert_untouched(model, before)
