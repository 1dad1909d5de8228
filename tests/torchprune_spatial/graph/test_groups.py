"""Groups whose channels Torch-Pruning maps in unusual ways: twice in one concatenation, in chunks, flattened."""

import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial.graph.groups import members_that_read, reduce_over_members

IMAGE = torch.zeros(1, 1, 4, 4)


def reduce_over_readers(group, per_layer, reduction):
    return reduce_over_members(members_that_read(group, per_layer), per_layer, reduction, len(group[0].idxs))


def group_of_source(model):
    graph = tp.DependencyGraph().build_dependency(model, IMAGE)
    return graph.get_pruning_group(model.source, tp.prune_conv_out_channels, list(range(model.source.out_channels)))


class Net(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def test_one_tensor_twice_in_a_concatenation():
    model = Net(
        lambda m, x: m.reader(torch.cat([m.source(x)] * 2, 1)), source=nn.Conv2d(1, 2, 1), reader=nn.Conv2d(4, 1, 1)
    )
    values = reduce_over_readers(group_of_source(model), {model.reader: torch.tensor([[1.0, 2.0, 10.0, 20.0]])}, "mean")
    assert values.tolist() == [[5.5, 11.0]]


def test_flattened_channels_are_averaged():
    model = Net(
        lambda m, x: m.reader(torch.flatten(m.source(x), 1)), source=nn.Conv2d(1, 2, 1), reader=nn.Linear(32, 1)
    )
    per_feature = torch.arange(32.0).unsqueeze(0)
    values = reduce_over_readers(group_of_source(model), {model.reader: per_feature}, "mean")
    assert values.tolist() == [[7.5, 23.5]]  # means of 0..15 and 16..31


def test_indices_scrambled_by_flatten_after_a_residual():
    """On the way back through a flatten Torch-Pruning loses the order: indices must stay paired with their roots."""

    def residual(m, x):
        x = m.source(x)
        y = m.inner(x)
        return m.flat(torch.flatten(x + y, 1)), m.reader(y)

    model = Net(
        residual,
        source=nn.Conv2d(1, 32, 1),
        inner=nn.Conv2d(32, 32, 1),
        flat=nn.Linear(32 * 16, 1),
        reader=nn.Conv2d(32, 1, 1),
    )
    group = group_of_source(model)
    assert any(list(indices) != sorted(indices) for _, indices in group)
    values = reduce_over_readers(group, {model.reader: torch.arange(32.0).unsqueeze(0)}, "mean")
    assert values[0].tolist() == list(range(32))


def test_gated_halves():
    """`a * b` of two chunks: both halves are read as one, and the second half's roots are dropped by the merge."""

    def gated(m, x):
        a, b = m.source(x).chunk(2, 1)
        return m.reader(a * b)

    model = Net(gated, source=nn.Conv2d(1, 4, 1), reader=nn.Conv2d(2, 1, 1))
    values = reduce_over_readers(group_of_source(model), {model.reader: torch.tensor([[3.0, 7.0]])}, "mean")
    assert values.tolist() == [[3.0, 7.0, 3.0, 7.0]]


def test_channels_that_no_layer_reads_score_lowest():
    def half_used(m, x):
        a, _ = m.source(x).chunk(2, 1)
        return m.reader(a)

    model = Net(half_used, source=nn.Conv2d(1, 4, 1), reader=nn.Conv2d(2, 1, 1))
    values = reduce_over_readers(group_of_source(model), {model.reader: torch.tensor([[3.0, 7.0]])}, "mean")
    assert values[0, :2].tolist() == [3.0, 7.0]
    assert values[0, 2:].tolist() == [0.0, 0.0]


def test_no_reader_at_all():
    model = Net(lambda m, x: m.source(x), source=nn.Conv2d(1, 2, 1))
    assert reduce_over_readers(group_of_source(model), {}, "mean") is None
