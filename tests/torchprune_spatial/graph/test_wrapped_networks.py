"""Networks in wrappers: compiled, exported, traced by torch.fx, in DataParallel, under autocast."""

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

import torchprune_spatial as ts

X = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
MASK = (X[:, :1] > 0.7).float()


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 2, 1)).eval()


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_in_part(model):
    model[3] = torch.compile(model[3], backend="eager")
    return model


def under_autocast(model):
    class Autocast(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.model(x)

    return Autocast()


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": compiled_in_place,
    "compiled in part": compiled_in_part,
    "traced": torch.fx.symbolic_trace,
    "data parallel": nn.DataParallel,
    "autocast": under_autocast,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("spatial", [False, True])
def test_a_wrapped_network_is_pruned_as_the_network(wrap, spatial):
    importance = (
        ts.SpatialMaskImportance([(X, MASK)]) if spatial else tp.importance.GroupMagnitudeImportance(normalizer=None)
    )
    plain = network()
    ts.prune_to(plain, X, copy.copy(importance), compression=2)
    wrapped = wrap(network())
    wrapped(X)
    ts.prune_to(wrapped, X, copy.copy(importance), compression=2)
    with torch.no_grad():
        tolerance = 0.05 if wrap is under_autocast else 1e-5
        torch.testing.assert_close(wrapped(X).float(), plain(X), rtol=tolerance, atol=tolerance)


def test_an_exported_network_is_pruned():
    """It has weights but no layers, and cannot be put into evaluation mode."""
    exported = torch.export.export(network(), (X,)).module()
    record = ts.prune_to(exported, X, tp.importance.GroupMagnitudeImportance(), compression=2)
    assert record.compression >= 2
    assert exported(X).shape == (1, 2, 12, 12)
