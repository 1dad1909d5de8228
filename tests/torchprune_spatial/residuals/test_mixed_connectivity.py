"""Which residual additions are made mixed, and that the network computes the same."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from torchprune_spatial.residuals.channel_scatter import (
    remove_dead_channels,
)
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from .mixed_networks import (
    IMAGE,
    Chain,
    Net,
    build,
    make_pruner,
    scatters,
)


@pytest.mark.parametrize(("name", "adds"), [("unet", 3), ("resnet18", 8), ("resnet50", 16), ("mobilenet_v2", 10)])
def test_nothing_changes_before_pruning(name, adds):
    model, image = build(name)
    model.train()
    for module in list(model.modules())[::3]:
        module.training = False
    state = copy.deepcopy(model.state_dict())
    decoupled = decouple_residuals(model, image)
    assert len(scatters(decoupled)) == 2 * adds
    modules = dict(decoupled.named_modules())
    for path, module in model.named_modules():
        assert modules[path].training == module.training
        assert not path or type(modules[path]) is type(module)
    for other in (model.state_dict(), decoupled.state_dict()):
        assert all(torch.equal(other[key], value) for key, value in state.items())
    assert all("scatter" in key for key in decoupled.state_dict().keys() - state.keys())
    model.eval(), decoupled.eval()
    with torch.no_grad():
        assert torch.equal(decoupled(image), model(image))


def in_place_and_gated(n, x):
    y = n.a(x)
    y.add_(n.b(x))
    return n.output(y * n.c(y).sigmoid())


def in_place_method(n, x):
    y = n.a(x)
    y.add_(n.b(x), alpha=2)
    return n.output(n.c(y))


MIXED = {  # how many additions are made mixed
    "sum of three": (lambda n, x: n.output(n.a(x) + n.b(x) + n.c(x)), 2),
    "python's sum": (lambda n, x: n.output(sum([n.a(x), n.b(x)])), 1),
    "alpha": (lambda n, x: n.output(torch.add(n.a(x), n.b(x), alpha=-1)), 1),
    "in-place method": (in_place_method, 1),
    "map added to itself": (lambda n, x: n.output((lambda y: y + y)(n.a(x))), 1),
    "other additions": (lambda n, x: n.output(2 + n.a(x) + 1.0 + (n.b(x) + n.parameter)), 1),
    "through pooling": (lambda n, x: n.linear((F.relu(n.a(x)) + n.b(x)).mean((2, 3))).sum(1), 1),
    "concatenated": (lambda n, x: F.conv2d(torch.cat([n.a(x) + n.b(x), x], 1), torch.ones(1, 8, 1, 1)), 0),
    "concatenated, read": (lambda n, x: n.output(torch.cat([n.a(x) + n.b(x), n.c(x)], 1).split(4, 1)[0]), 1),
    "linear": (lambda n, x: n.linear(n.linear(x.mean((2, 3))) + n.a(x).mean((2, 3))), 1),
    "swish by hand": (lambda n, x: n.output((lambda y: y * y.sigmoid())(n.a(x) + n.b(x))), 1),
    "in place, gated": (in_place_and_gated, 0),
    "network's output": (lambda n, x: n.a(x) + n.b(x), 0),
    "also an output": (lambda n, x: (lambda y: (n.output(y), y.relu()))(n.a(x) + n.b(x)), 0),
    "flattened output": (lambda n, x: (n.a(x) + n.b(x)).flatten(1), 0),
    "image": (lambda n, x: n.output(n.a(x) + x), 0),
    "image in the next sum": (lambda n, x: n.output((n.a(x) + n.b(x)) + x), 0),
    "broadcast": (lambda n, x: n.output(n.a(x) + n.b(x).mean((2, 3), keepdim=True)), 0),
    "depthwise": (lambda n, x: n.output(n.depthwise(n.a(x) + n.b(x))), 0),
    "gated": (lambda n, x: n.output((n.a(x) + n.b(x)) * n.gate(x).sigmoid()), 0),
    "tokens": (lambda n, x: n.linear((lambda y: y + n.linear(y))(n.a(x).flatten(2).transpose(1, 2))), 0),
    "one channel": (lambda n, x: n.output(x) + n.output(x), 0),
}


@pytest.mark.parametrize(("program", "adds"), MIXED.values(), ids=MIXED)
def test_which_additions_are_mixed(program, adds):
    model, image = Net(program).eval(), torch.randn(1, 4, 8, 8)
    if not adds:
        with pytest.raises(
            ValueError, match=r"model Net has no residual addition to make mixed.*prune the model as it is"
        ):
            decouple_residuals(model, image)
        return
    decoupled = decouple_residuals(model, image)
    assert len(scatters(decoupled)) == 2 * adds
    assert "unused" in decoupled.state_dict()
    torch.testing.assert_close(decoupled(image), model(image), rtol=0, atol=0)


def test_traces_that_compute_something_else():
    def in_place_under_another_name(n, x):
        y = z = n.a(x)
        y += n.b(x)
        return n.output(z) + n.output(y)

    def functional_dropout(n, x):
        return n.output(F.dropout(n.a(x) + n.b(x), 0.5, n.training))

    image = torch.randn(1, 4, 8, 8)
    for program in (in_place_under_another_name, functional_dropout):
        with pytest.raises(ValueError, match=r"Net computes something else when it is traced.*call model\.eval\(\)"):
            decouple_residuals(Net(program), image)
    assert len(scatters(decouple_residuals(Net(functional_dropout).eval(), image))) == 2


def test_names_of_the_scatters():
    def program(n, x):
        return n.output(n.a(n.a(x) + n.b(x)) + n.c(x))

    model = Net(program)
    model.add_scatter = nn.Identity()
    assert list(scatters(decouple_residuals(model, torch.randn(1, 4, 8, 8)))) == [
        *("add_1_scatter.0", "add_1_scatter.1"),
        *("add_2_scatter.0", "add_2_scatter.1"),
    ]
    model, image = build("resnet18")
    assert list(scatters(decouple_residuals(model, image)))[:2] == ["layer1.0.add_scatter.0", "layer1.0.add_scatter.1"]


def test_decoupled_part_of_a_network():
    """A network that cannot be traced holds one that can; decoupling again finds nothing new."""
    model, image = nn.Sequential(Chain(), nn.Conv2d(1, 1, 1)).eval(), IMAGE
    expected = model(image)
    model[0] = decouple_residuals(model[0], (image,))
    torch.testing.assert_close(model(image), expected, rtol=0, atol=0)
    pruner = make_pruner(model, image, tp.importance.RandomImportance(), pruning_ratio=0.5)
    pruner.step()
    remove_dead_channels(pruner.DG)
    assert model(image).shape == (2, 1, 5, 5)
    assert all(s.in_channels <= s.out_channels for s in scatters(model).values())
    with pytest.raises(ValueError, match="no residual addition"):
        decouple_residuals(model[0], image)


def test_keyword_inputs_and_dropout():
    class Two(Chain):
        def __init__(self):
            super().__init__(after=lambda: nn.Dropout(0.5))

        def forward(self, first, scale=1.0, second=None):
            return super().forward(first * scale + second)

    model = Two().train()
    decoupled = decouple_residuals(model, {"second": IMAGE, "first": IMAGE})
    assert decoupled.after.training
    assert not torch.equal(decoupled(IMAGE, second=IMAGE), decoupled(IMAGE, second=IMAGE))
    model.eval(), decoupled.eval()
    assert torch.equal(decoupled(IMAGE, 3.0, second=IMAGE), model(IMAGE, 3.0, second=IMAGE))


def test_failure_leaves_the_model():
    class Branching(Chain):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    model = Branching().train()
    model.b.eval()
    state, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    with pytest.raises(ValueError, match=r"model Branching cannot be traced symbolically \(.*torch\.fx\.wrap"):
        decouple_residuals(model, IMAGE)
    with pytest.raises(RuntimeError):
        decouple_residuals(Chain(), torch.randn(1, 7, 5, 5))
    assert list(model.modules()) == modules
    assert [m.training for m in modules] == [m is not model.b for m in modules]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model is function; expected a torch\.nn\.Module"):
        decouple_residuals(lambda x: x + x, IMAGE)
