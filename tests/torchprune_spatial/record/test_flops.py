"""Costs and copies on the meta device."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from resolution_scaling.ground.meta import meta_copy
from torchprune_spatial.record.flops import flops_by_module, parameters_by_module

from ..networks import plain_net


class Outputs(TorchDispatchMode):
    """Collects what every operation makes."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.made += [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result


def test_meta_copy_makes_no_data_and_leaves_the_model_alone():
    model = nn.Sequential(plain_net(), nn.BatchNorm2d(1))
    before, versions = copy.deepcopy(model.state_dict()), [t._version for t in model.state_dict().values()]
    example = {"x": torch.rand(1, 2, 8, 8)}
    with Outputs() as outputs:
        copied, inputs = meta_copy(model, example)
    real = {(tensor.dtype, tensor.numel()) for tensor in outputs.made if not tensor.is_meta}
    assert real == {(torch.int64, 1), (torch.uint8, 8)}  # num_batches_tracked and its bytes
    assert inputs["x"].is_meta
    assert all(p.is_meta for p in copied.parameters())
    assert {n: p.shape for n, p in copied.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert versions == [t._version for t in model.state_dict().values()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_meta_copy_keeps_ties_modes_frozen_parameters_and_references():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout())
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model[2].eval()
    copied, options = meta_copy(
        model, {"ignored": [model[1]], "heads": {model[0]: 2}, "unwrapped": [(model[0].weight, 0)]}
    )
    assert copied[0].weight is copied[1].weight
    assert not copied[0].bias.requires_grad
    assert (copied.training, copied[2].training) == (True, False)
    assert options["ignored"][0] is copied[1]
    assert options["heads"] == {copied[0]: 2}
    assert options["unwrapped"][0][0] is copied[0].weight


def test_flops_by_hand():
    """2 * 9 * in * out * pixels: 6 filters of 2 channels at [8, 8]; 8 of 6 and 1 of 8 at [4, 4], behind the pool."""
    flops = flops_by_module(plain_net(), torch.rand(3, 2, 8, 8))
    expected = {"0": 3 * 64 * 18 * 2 * 6, "3": 3 * 16 * 18 * 6 * 8, "5": 3 * 16 * 18 * 8}
    assert {name: flops[name] for name in expected} == expected
    assert flops[""] == sum(expected.values())


def test_flops_of_attention_by_hand():
    """5 tokens of 8: four projections, and scores and their use of 5 x 5 x 8 each."""
    attention = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    flops = flops_by_module(attention, torch.rand(1, 5, 8))
    assert flops["self_attn"] == 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert flops[""] == flops["self_attn"] + 2 * (2 * 5 * 8 * 16)


class Awkward(nn.Module):
    """Makes tensors in forward, holds one outside of its buffers, and reads indices."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.constants = [torch.ones(4, 1, 1)]
        self.register_buffer("index", torch.tensor([2, 0]))

    def forward(self, x):
        x = self.convolution(x) + self.constants[0] + OUTSIDE + torch.arange(8)
        return F.conv2d(x.new_zeros(1, 3, 8, 8).index_add(1, self.index, x[:, :2]), torch.ones(1, 3, 1, 1))


OUTSIDE = torch.ones(4, 1, 1)


def test_tensors_that_no_module_holds():
    assert flops_by_module(Awkward(), torch.rand(1, 3, 8, 8))[""] == 2 * 64 * (3 * 4 + 3)


def test_inputs_by_name_and_forward():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, times=1):
            return sum(self.layer(x) for _ in range(times))

    assert flops_by_module(Twice(), {"x": torch.rand(5, 4), "times": 2})["layer"] == 2 * 2 * 5 * 4 * 3
    assert flops_by_module(Twice(), torch.rand(5, 4), lambda model, x: model(x, times=3))[""] == 3 * 2 * 5 * 4 * 3


def test_a_network_that_looks_at_values_is_named():
    class Looks(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"Looks cannot run on the meta device.*must not look at the values"):
        flops_by_module(Looks(2, 2), torch.rand(1, 2))


def test_parameters_by_module_count_what_is_shared_once():
    shared, tied = nn.Linear(3, 4), nn.Linear(3, 4)
    tied.weight = shared.weight
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU(), shared), nn.Sequential(tied, nn.Sequential(shared)))
    expected = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    assert parameters_by_module(model) == expected
    assert expected[""] == 12 + 4 + 4
