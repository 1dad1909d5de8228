"""The criterion inside Torch-Pruning: pruned networks against masked ones, the options of the pruner."""

import copy
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import SpatialMaskImportance

from ..networks import ProgramNet, calibration, networks, plain_net
from ..pruning import EXAMPLE, group_of, make_pruner, prune


def hold_at_zero(model, removed):
    """The network with the removed channels at zero: their filters, biases and norms, in the layers that write them."""
    masked = copy.deepcopy(model)
    for name, channels in removed:
        layer = masked.get_submodule(name)
        weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
        weight[channels] = 0
        layer.bias.data[channels] = 0
    return masked


def removed_as_if_masked(model, image, pruner):
    """Prune, compare the outputs with those of the masked network, and return what was removed: layers and channels."""
    names = {module: name for name, module in model.named_modules()}
    original, removed = copy.deepcopy(model), []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        for group in pruner.step(interactive=True):
            for dep, channels in group:
                if dep.target.module in names and pruner.DG.is_out_channel_pruning_fn(dep.handler):
                    removed.append((names[dep.target.module], channels))
            group.prune()
    model.eval(), original.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(image), hold_at_zero(original, removed)(image), rtol=1e-5, atol=1e-5)
    return removed


@settings(max_examples=60)
@given(model=networks, ratio=st.sampled_from([0.3, 0.5, 0.7]), options=st.sampled_from([{}, {"global_pruning": True}]))
def test_pruned_equals_the_original_with_removed_channels_at_zero(model, ratio, options):
    pruner = make_pruner(model, SpatialMaskImportance(calibration()), pruning_ratio=ratio, **options)
    # Torch-Pruning removes nothing where a layer would lose all its channels.
    assume(removed_as_if_masked(model, torch.randn(2, 2, 8, 8), pruner))


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
    assert not torch.equal(importance(group), before)


def test_one_pass_serves_all_the_groups():
    passes = []

    class Counting(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    model = plain_net()
    prune(model, SpatialMaskImportance(Counting(calibration())))
    assert len(passes) == 1
