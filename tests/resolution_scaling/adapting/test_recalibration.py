import pytest
import torch
from torch import nn

from resolution_scaling.adapting.recalibration import recalibrate

from .small_network import equal, images, labelled, network, tensors


def test_only_what_was_asked_for_changes():
    def changed(**options):
        model = network()
        before = tensors(model)
        recalibrate(model, labelled(), **options)
        return {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])}

    statistics = {"1.running_mean", "1.running_var", "5.running_mean", "5.running_var"}
    norms = {"1.weight", "1.bias", "5.weight", "5.bias"}
    assert changed() == statistics
    assert changed(statistics=False, parameters=["norm"]) == norms
    assert changed(parameters="classifier") == statistics | {"9.weight", "9.bias"}
    assert changed(parameters=("norm", "classifier", "0")) == statistics | norms | {
        *("9.weight", "9.bias", "0.weight", "0.bias")
    }


def test_modes_gradients_and_reference_stay_as_they_were():
    model, reference = network(), network(seed=1).eval()
    model[5].eval()
    model[9].weight.requires_grad_(False)
    before = tensors(reference)
    recalibrate(model, images(), reference, parameters=["classifier"])
    assert [m.training for m in model] == [i != 5 for i in range(10)]
    assert not reference.training
    assert equal(tensors(reference), before)
    assert [p.requires_grad for p in model[9].parameters()] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert model[1].track_running_stats
    assert model[1].num_batches_tracked == 0
    assert not any(m._forward_pre_hooks for m in model)


OPTIONS = {"parameters": ["norm", "classifier"], "epochs": 3}


def test_is_deterministic():
    once, twice = (recalibrate(network(), labelled(), **OPTIONS) for _ in range(2))
    assert equal(tensors(once), tensors(twice))


class Interrupted(list):
    """Stops after some batches."""

    def __init__(self, items, after):
        super().__init__(items)
        self.left = after

    def __iter__(self):
        for item in super().__iter__():
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield item


@pytest.mark.parametrize("after", [0, 2, 4, 7, 15])  # batches: 4 of statistics and 3 x 4 of descent
@pytest.mark.parametrize("with_reference", [False, True])
def test_an_interruption_leaves_the_network_as_it_was(after, with_reference):
    model = network()
    with pytest.raises(KeyboardInterrupt):
        recalibrate(model, Interrupted(labelled(), after), network() if with_reference else None, **OPTIONS)
    assert equal(tensors(model), tensors(network()))


@pytest.mark.parametrize(
    ("loader", "options", "error", "text"),
    [
        (iter([]), {}, TypeError, "can be read only once"),
        ([], {}, ValueError, "loader yields no batch"),
        (images(), {"size": 8.5}, TypeError, "size is 8.5"),
        (images(), {"epochs": 0}, ValueError, "epochs is 0; expected a whole number above 0"),
        (images(), {"lr": float("nan")}, ValueError, "lr is nan; expected a number above 0"),
        (images(), {"parameters": ["norms"]}, ValueError, "parameters has 'norms', but Sequential has no"),
        (images(), {"statistics": False}, ValueError, "nothing to adapt"),
        (images(), {"reference": nn.Identity()}, ValueError, "reference has no layer '1'"),
        (labelled(), {"parameters": ["norm"], "lr": 1e30}, ValueError, "the loss became nan"),
    ],
)
def test_errors_leave_the_network_as_it_was(loader, options, error, text):
    model = network()
    before = tensors(model)
    with pytest.raises(error, match=text):
        recalibrate(model, loader, **options)
    assert equal(tensors(model), before)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
