"""Building groups and pruners in the tests."""

import warnings

import torch
import torch_pruning as tp

EXAMPLE = torch.zeros(1, 2, 8, 8)


def make_pruner(model, importance, example=EXAMPLE, **options):
    options.setdefault("pruning_ratio", 0.5)
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
