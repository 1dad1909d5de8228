"""Removals that the code allows, against all of them, one by one."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchprune_spatial.graph.labels.classes import FROZEN, LabelClasses
from torchprune_spatial.graph.labels.moves import Moves
from torchprune_spatial.graph.labels.notes import Numbers


@st.composite
def demands(draw):
    """Up to nine classes, some of them frozen, and blocks that must lose equally many."""
    count = draw(st.integers(2, 9))
    frozen = draw(st.sets(st.integers(1, count), max_size=2))
    equal = []
    for _ in range(draw(st.integers(1, 2))):
        size = draw(st.integers(1, count // 2))
        labels = draw(st.permutations(range(1, count + 1)))[: 2 * size]
        equal.append([labels[:size], labels[size:]])
    return count, frozen, equal


def allowed(count, frozen, equal):
    """All sets of classes whose removal leaves the code's numbers equal; none removes the whole of a block."""
    free = [label for label in range(1, count + 1) if label not in frozen]
    for chosen in itertools.product((False, True), repeat=len(free)):
        removed = {label for label, gone in zip(free, chosen, strict=True) if gone}
        lost = [[len(removed & set(block)) for block in blocks] for blocks in equal]
        if all(first == second for first, second in lost):
            yield removed


@settings(deadline=None)
@given(demands())
def test_what_moves_remove_is_allowed(demand):
    count, frozen, equal = demand
    classes = LabelClasses()
    classes.new(count)
    if frozen:
        classes.freeze(torch.tensor(sorted(frozen)), "frozen")
    moves = Moves(classes, [torch.tensor(blocks) for blocks in equal], [], Numbers())
    possible = list(allowed(count, frozen, equal))
    moving = {label for blocks in moves.blocks for label in blocks.flatten().tolist()}
    for blocks in moves.blocks:
        assert len(set(blocks.flatten().tolist())) == blocks.numel()
        columns = torch.stack([row[torch.randperm(len(row))] for row in blocks]).T.tolist()
        for lost in range(1, len(columns) + 1):  # equally many of each block, from any positions
            assert set(itertools.chain(*columns[:lost])) in possible
    for label in range(1, count + 1):
        constrained = any(label in block for blocks in equal for block in blocks)
        in_no_row = not bool(moves.constrained[label])
        if int(classes.of(torch.tensor(label))) == FROZEN:
            assert label in frozen or constrained
        elif in_no_row:  # it can be removed alone
            assert {label} in possible
        else:
            assert label in moving


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(2, 4))
def test_blocks_of_one_chunk_are_one_move(blocks, size):
    classes = LabelClasses()
    labels = classes.new(blocks * size).view(blocks, size)
    moves = Moves(classes, [labels], [], Numbers())
    assert [sorted(map(sorted, found.tolist())) for found in moves.blocks] == [labels.tolist()]


def test_what_is_tied_to_a_frozen_block_is_frozen():
    classes = LabelClasses()
    labels = classes.new(6).view(2, 3)
    classes.freeze(labels[0], "fixed")
    moves = Moves(classes, [labels], [], Numbers())
    assert not moves.blocks
    assert classes.of(labels).unique().tolist() == [FROZEN]
    assert classes.reasons[-1] == "its number is tied to one that is fixed"
