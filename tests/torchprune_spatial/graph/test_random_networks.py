"""The second implementation of the labels of channels, tested by what becomes of the outputs."""

import copy
from random import Random

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .random_networks.generate import random_network
from .random_networks.network import same_values, tensors_of
from .random_networks.removal import Reference, is_rectangular, sliced, zeroed, zeros_suffice
from .random_networks.shrinking import on_smallest

GENERATE = [Phase.explicit, Phase.generate]  # networks are made smaller by `on_smallest`
pytestmark = pytest.mark.filterwarnings("ignore:input's size at dim=1")


def networks(**options):
    return st.randoms(use_true_random=True).map(lambda random: random_network(random, **options))


def outputs(net, inputs):
    with torch.no_grad():
        return copy.deepcopy(net)(*(x.clone() for x in inputs))


def masked(net, masks, inputs):
    with torch.no_grad():
        return net.masked(masks, *(x.clone() for x in inputs))


def check_removal(net, seed):
    """What is left computes what the network computes under masks, and with zeros if these have the same effect."""
    reference, inputs = Reference(net), net.inputs(batch=2, seed=seed)
    assert is_rectangular(reference.values, reference.classes, reference.frozen)
    removed = reference.choice(Random(seed))
    masks, zeros = reference.masks(removed), zeroed(net, removed)
    found, expected = outputs(sliced(net, removed), inputs), masked(zeros, masks, inputs)
    assert same_values(found, expected), f"removed: {sorted(removed)}"
    if zeros_suffice(net):
        assert same_values(found, outputs(zeros, inputs)), f"removed: {sorted(removed)}"


def check_necessity(net, seed):
    """A part of a class cannot be removed alone, and what is frozen cannot be removed."""
    reference, inputs, random = Reference(net), net.inputs(batch=2, seed=seed), Random(seed)
    unconstrained = [
        c for c in reference.classes if len(c) > 1 and c in reference.widest and reference.leaves_some(c, 2)
    ]
    for labels in random.sample(unconstrained, min(2, len(unconstrained))):
        part = set(random.sample(sorted(labels), random.randint(1, len(labels) - 1)))
        assert not works_without(net, reference, part, inputs), f"{sorted(part)} of {sorted(labels)}"
    stuck = [c for c in reference.follower.classes() if c & reference.frozen and reference.leaves_some(c, 2)]
    stuck = [c for c in stuck if c == reference.compared(c)]
    for labels in random.sample(stuck, min(2, len(stuck))):
        assert not works_without(net, reference, labels, inputs), f"frozen: {sorted(labels)}"


def works_without(net, reference, removed, inputs):
    """Whether the network runs without these coordinates, and computes what the masks say."""
    try:
        found = outputs(sliced(net, removed), inputs)
    except (RuntimeError, ValueError):
        return False
    before = outputs(net, inputs)
    if [x.shape for x in tensors_of(found)] != [x.shape for x in tensors_of(before)]:
        return False
    return same_values(found, masked(zeroed(net, removed), reference.masks(removed), inputs))


@settings(max_examples=60, phases=GENERATE)
@given(networks(), st.integers(0, 1000))
def test_removed_classes(net, seed):
    on_smallest(check_removal, net, seed)


@settings(max_examples=60, phases=GENERATE)
@given(networks(), st.integers(0, 1000))
def test_no_class_is_too_large(net, seed):
    on_smallest(check_necessity, net, seed)


@pytest.mark.slow
@settings(max_examples=1000, phases=GENERATE)
@given(networks(recipes=(3, 10)), st.integers(0, 1000))
def test_removal_from_many_networks(net, seed):
    on_smallest(check_removal, net, seed)
    on_smallest(check_necessity, net, seed)
