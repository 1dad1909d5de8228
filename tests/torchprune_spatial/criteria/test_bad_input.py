"""Bad input is explained in a sentence, and the model stays as it was."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from torchprune_spatial import SpatialMaskImportance

from ..networks import ProgramNet, calibration, plain_net
from ..pruning import group_of, make_pruner


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
        ({"loader": DATA, "normalizer": "softmax"}, ValueError, "normalizer is 'softmax'; expected a name that"),
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
