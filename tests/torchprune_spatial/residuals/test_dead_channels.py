"""Channels of mixed sums that no branch feeds any more."""

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial.residuals.channel_scatter import (
    CUSTOMIZED_PRUNERS,
    ChannelScatter,
    dead_channel_groups,
    remove_dead_channels,
)
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from .mixed_networks import (
    IMAGE,
    Chain,
    Tally,
    make_pruner,
    norm,
    scatters,
    step,
)


class Chosen(tp.importance.Importance):
    """Keeps the given channels of each layer; other layers are not pruned."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, group):
        layer = group[0].dep.target.module
        if layer not in self.kept:
            return None
        return torch.tensor([float(c in self.kept[layer]) for c in range(layer.out_channels)])


def pruned_chain(**options):
    """a keeps {0, 1, 2}, b {1, 2, 4}, c {2, 4, 5}: the sums have {0, 1, 2, 4} and {0, 1, 2, 4, 5}."""
    model = decouple_residuals(Chain(**options), IMAGE).eval()
    kept = {model.a: {0, 1, 2}, model.b: {1, 2, 4}, model.c: {2, 4, 5}}
    pruner = make_pruner(model, IMAGE, Chosen(kept), pruning_ratio=0.5, ignored_layers=[model.output])
    original, tally = copy.deepcopy(model), Tally(pruner)
    step(pruner, tally)
    return model, pruner, original, tally


def layout(model):
    return [(s.index.tolist(), s.out_channels) for s in scatters(model).values()]


def test_branches_are_kept_apart_and_dead_channels_removed_along_the_chain():
    model, pruner, original, tally = pruned_chain()
    # operands in the order of the code: relu(b) + x, x + relu(c)
    assert layout(model) == [([1, 2, 4], 6), ([0, 1, 2], 6), ([0, 1, 2, 3, 4, 5], 6), ([2, 4, 5], 6)]
    assert (model.c.in_channels, model.output.in_channels) == (6, 6)
    groups = dead_channel_groups(pruner.DG)
    first = next(groups)
    removed = {
        dep.target.module: idxs for dep, idxs in first if isinstance(dep.target.module, (nn.Conv2d, ChannelScatter))
    }
    assert removed[model.c] == [3, 5]
    with pytest.raises(RuntimeError, match=r"group was not pruned: call group\.prune\(\)"):
        next(groups)
    tally.prune(dead_channel_groups(pruner.DG))
    # first sum {0, 1, 2, 4}: b at places 1 2 3, a at 0 1 2; second {0, 1, 2, 4, 5}: first sum at 0 1 2 3, c at 2 3 4
    assert layout(model) == [([1, 2, 3], 4), ([0, 1, 2], 4), ([0, 1, 2, 3], 5), ([2, 3, 4], 5)]
    assert (model.c.in_channels, model.output.in_channels) == (4, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_removing_dead_channels_leaves_the_function():
    model, pruner, *_ = pruned_chain()
    with torch.no_grad():
        before = model(IMAGE)
        remove_dead_channels(pruner.DG)
        torch.testing.assert_close(model(IMAGE), before, rtol=1e-5, atol=1e-5)


def test_a_norm_behind_the_sum_is_held_at_zero_too():
    model, pruner, original, tally = pruned_chain(after=norm)
    tally.prune(dead_channel_groups(pruner.DG))
    assert tally.kept["after"] == [0, 1, 2, 4, 5]
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_dead_channels_stay_where_a_group_norm_reads_them():
    model, pruner, original, tally = pruned_chain(after=lambda: nn.GroupNorm(3, 6))
    tally.prune(dead_channel_groups(pruner.DG))
    assert (model.c.in_channels, model.output.in_channels) == (4, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), tally.masked(original)(IMAGE), rtol=1e-5, atol=1e-5)


def test_graphs_without_mixed_sums():
    graph = tp.DependencyGraph().build_dependency(Chain(), IMAGE)
    assert list(dead_channel_groups(graph)) == []
    graph = tp.DependencyGraph().build_dependency(decouple_residuals(Chain(), IMAGE), IMAGE)
    with pytest.raises(ValueError, match=r"customized_pruners=torchprune_spatial\.CUSTOMIZED_PRUNERS"):
        remove_dead_channels(graph)


def test_pruning_history_can_be_replayed():
    model, pruner, original, _ = pruned_chain()
    remove_dead_channels(pruner.DG)
    graph = tp.DependencyGraph().build_dependency(original, IMAGE, customized_pruners=CUSTOMIZED_PRUNERS)
    graph.load_pruning_history(pruner.pruning_history())
    assert layout(original) == layout(model)
