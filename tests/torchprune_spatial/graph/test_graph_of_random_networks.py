"""`ChannelGraph` on random networks, against the second implementation in `random_networks`."""

import copy
from random import Random

import pytest
import torch_pruning as tp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial.graph.channel_graph import ChannelGraph

from .random_networks.comparison import differences, prune_some, removed_coordinates
from .random_networks.network import same_values
from .random_networks.operations.movement import Concatenate
from .random_networks.removal import Reference, zeroed, zeros_suffice
from .random_networks.shrinking import on_smallest
from .test_random_networks import GENERATE, masked, networks, outputs, works_without

pytestmark = pytest.mark.filterwarnings("ignore")


def graph_of(net, batch, verify=True):
    return ChannelGraph().build_dependency(net, net.inputs(batch), verify=verify)


def check_classes(net, batch):
    """The classes are those of the second implementation; what a trial freezes in addition cannot be removed."""
    reference = Reference(net)
    wrong = differences(graph_of(net, batch, verify=False).channels.coordinates(), reference)
    assert not wrong, "\n".join(wrong)
    graph = graph_of(net, batch)
    found = set().union(*graph.channels.coordinates())
    for labels in reference.classes:
        if labels in reference.widest and reference.leaves_some(labels) and not labels <= found:
            works = works_without(net, reference, labels, net.inputs(batch))
            assert not works, f"frozen after a trial: {sorted(labels)}\n{graph.left_alone}"


def check_pruning(net, batch, seed):
    """After pruning, once and again, the network computes what the whole one computes without what was removed."""
    reference, inputs, random = Reference(net), net.inputs(batch=2, seed=seed), Random(seed)
    pruned, graph = copy.deepcopy(net), None
    for time in range(2):
        if graph is None or random.random() < 0.5:
            graph = graph_of(pruned, batch)
        if not prune_some(graph, random):
            return
        removed, wrong = removed_coordinates(net, pruned)
        text = f"removed, time {time}: {sorted(removed)}"
        assert not wrong, f"{text}\nparameters with other values: {wrong}"
        closure = reference.closure(removed)
        assert not removed & reference.frozen, f"{text}\nof these are frozen: {sorted(removed & reference.frozen)}"
        lacking = reference.compared(closure & reference.coordinates) - removed
        assert not lacking, f"{text}\nto be removed too: {sorted(lacking)}"
        found, zeros = outputs(pruned, inputs), zeroed(net, removed)
        assert same_values(found, masked(zeros, reference.masks(closure), inputs)), text
        if zeros_suffice(net):
            assert same_values(found, outputs(zeros, inputs)), text
        if narrows_to_one(reference.masks(closure)):
            return  # a channel that is alone is broadcast, and a group of one is no group: the labels are others


def narrows_to_one(masks):
    """Whether one index of a dimension of a tensor is left, of several."""
    return any(
        mask.shape[dimension] > 1 == mask.movedim(dimension, 0).reshape(mask.shape[dimension], -1).any(1).sum()
        for mask in masks.values()
        for dimension in range(mask.dim())
    )


def coordinates_of(group, net):
    """What Torch-Pruning removes from convolutions and batch norms."""
    names, found = {layer: name for name, layer in net.named_modules()}, set()
    for dep, idxs in group:
        layer = dep.target.module
        if layer in names:
            dimension = int(isinstance(layer, nn.Conv2d) and dep.handler == tp.prune_conv_in_channels)
            parameters = ["weight"] if dimension or layer.bias is None else ["weight", "bias"]
            found |= {(f"{names[layer]}.{parameter}", dimension, i) for parameter in parameters for i in idxs}
    return found


def concatenates_without_labels(net, reference):
    return any(
        isinstance(step.operation, Concatenate)
        and not all(any(sets) for name in step.sources for sets in reference.values[name].at.values())
        for step in net.steps
    )


@settings(max_examples=40, phases=GENERATE)
@given(networks(), st.integers(1, 2))
def test_classes(net, batch):
    on_smallest(check_classes, net, batch)


@settings(max_examples=40, phases=GENERATE)
@given(networks(), st.integers(1, 2), st.integers(0, 1000))
def test_pruning(net, batch, seed):
    on_smallest(check_pruning, net, batch, seed)


@settings(max_examples=40)
@given(networks(simple=True))
def test_simple_networks_as_torch_pruning(net):
    """Torch-Pruning couples the same layers and indices, except where tensors that cannot lose channels are joined."""
    reference, inputs = Reference(net), net.inputs()
    assume(not concatenates_without_labels(net, reference))
    theirs, ours = tp.DependencyGraph().build_dependency(net, inputs), graph_of(net, 1, verify=False)
    classes = {coordinate: labels for labels in ours.classes() for coordinate in labels}
    parameters = dict(net.named_parameters())
    for name, layer in net.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        for i in range(layer.out_channels):
            if (f"{name}.weight", 0, i) in classes:
                group = theirs.get_pruning_group(layer, tp.prune_conv_out_channels, [i])
                labels = {c for c in classes[(f"{name}.weight", 0, i)] if c[0] in parameters}
                assert coordinates_of(group, net) & reference.coordinates == labels, f"{net}\n{name} {i}"


@pytest.mark.slow
@settings(max_examples=400, phases=GENERATE)
@given(networks(recipes=(3, 10)), st.integers(1, 2))
def test_classes_of_many_networks(net, batch):
    on_smallest(check_classes, net, batch)


@pytest.mark.slow
@settings(max_examples=400, phases=GENERATE)
@given(networks(recipes=(3, 10)), st.integers(1, 2), st.integers(0, 1000))
def test_pruning_of_many_networks(net, batch, seed):
    on_smallest(check_pruning, net, batch, seed)
