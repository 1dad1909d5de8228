"""The layer before each operand of a mixed addition."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial.residuals.channel_scatter import (
    ChannelScatter,
)

from .mixed_networks import PRUNER


def mixed_add_in_loops(a, kept_a, b, kept_b):
    """The mixed addition of two branches whose channels are numbered by ``kept_a`` and ``kept_b``, cell by cell."""
    union = sorted({*kept_a, *kept_b})
    result = torch.zeros(a.shape[0], len(union), *a.shape[2:], dtype=a.dtype)
    for image in range(a.shape[0]):
        for place, channel in enumerate(union):
            for x, kept in ((a, kept_a), (b, kept_b)):
                if channel in kept:
                    result[image, place] += x[image, kept.index(channel)]
    return result


kept_channels = st.sets(st.integers(0, 6), min_size=1).map(sorted)


def pruned_scatter(kept, union, channels=7):
    scatter = ChannelScatter(channels)
    PRUNER(scatter, [c for c in range(channels) if c not in kept], to_output=False)
    PRUNER(scatter, [c for c in range(channels) if c not in union], to_output=True)
    return scatter


@given(
    kept_channels, kept_channels, st.sampled_from([(), (3,), (2, 3)]), st.sampled_from([torch.float, torch.bfloat16])
)
def test_addition_equals_the_one_in_loops(kept_a, kept_b, size, dtype):
    union = {*kept_a, *kept_b}
    a, b = torch.randn(2, len(kept_a), *size).to(dtype), torch.randn(2, len(kept_b), *size).to(dtype)
    result = pruned_scatter(kept_a, union)(a) + pruned_scatter(kept_b, union)(b)
    assert torch.equal(result, mixed_add_in_loops(a, kept_a, b, kept_b))


def test_outputs_that_are_fed_cannot_be_removed():
    scatter = pruned_scatter([1, 4], {0, 1, 4})  # places 1 and 2 of 3
    with pytest.raises(ValueError, match=re.escape("idxs holds [2], which input channels feed")):
        PRUNER.prune_out_channels(scatter, [0, 2])
    assert (scatter.index.tolist(), scatter.in_channels, scatter.out_channels) == ([1, 2], 2, 3)


def test_identity_is_known_after_loading():
    """Two inputs in two places are the identity, in three they need not be: the same shape of state_dict."""
    saved, restored = pruned_scatter([0, 2], {0, 1, 2}), pruned_scatter([0, 1], {0, 1})
    with pytest.raises(
        RuntimeError, match=re.escape("index is [0, 2]; expected ascending numbers below out_channels=2")
    ):
        restored.load_state_dict(saved.state_dict())
    restored.out_channels = saved.out_channels
    restored.load_state_dict(saved.state_dict())
    x = torch.randn(2, 2, 4)
    assert torch.equal(restored(x), torch.stack([x[:, 0], torch.zeros(2, 4), x[:, 1]], 1))


def test_channels_last_and_autocast():
    x = torch.randn(2, 2, 4, 4).to(memory_format=torch.channels_last)
    scatter = pruned_scatter([1, 4], {1, 3, 4})
    with torch.autocast("cpu", torch.bfloat16):
        y = scatter(nn.Conv2d(2, 2, 1)(x))
    assert y.shape == (2, 3, 4, 4)
    assert y.dtype == torch.bfloat16
