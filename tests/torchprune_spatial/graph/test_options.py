"""Arguments that are not usable are named, with what is expected."""

import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial import (
    ChannelGraph,
    check_network,
    following_channels,
    prune_to,
    register_rule,
    update_attention,
)
from torchprune_spatial.graph.labels.rules import RULES

IMAGE = torch.rand(2, 3, 8, 8)
IMPORTANCE = tp.importance.GroupMagnitudeImportance()


class Attention(nn.Module):
    def __init__(self, dim=16, num_heads=4):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj(heads.transpose(1, 2).flatten(2))


def chain():
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 9, 1), nn.Conv2d(9, 4, 1))


def with_prune_to(model, **options):
    return prune_to(model, IMAGE, IMPORTANCE, compression=1.5, progress=False, **options)


def with_a_pruner(model, **options):
    with following_channels():
        return tp.pruner.BasePruner(model, IMAGE, IMPORTANCE, **options)


BOTH = pytest.mark.parametrize("prune", [with_prune_to, with_a_pruner])
WRONG = {
    "a number for num_heads": ({"num_heads": 3}, TypeError, r"num_heads is 3; expected a dict.*attention_heads"),
    "a name in num_heads": ({"num_heads": {"0": 2}}, TypeError, r"num_heads holds '0'.*get_submodule"),
    "half a head": ({"num_heads": lambda m: {m[0]: 1.5}}, TypeError, r"num_heads\[Conv2d.*is 1.5"),
    "a text for ignored_layers": ({"ignored_layers": "a"}, TypeError, r"ignored_layers is 'a'; expected a list"),
    "one layer": ({"ignored_layers": lambda m: m[0]}, TypeError, r"ignored_layers is Conv2d.*expected a list"),
    "a name in ignored_layers": ({"ignored_layers": ["2"]}, TypeError, r"holds '2'.*get_submodule\('2'\)"),
    "a layer of another model": ({"ignored_layers": [nn.ReLU()]}, ValueError, r"ReLU\(\), which is not in the model"),
    "a misspelt option": ({"ignored_layer": []}, TypeError, r"ignored_layer is no option.*'ignored_layers'"),
    "an unknown option": ({"zzz": 1}, TypeError, r"zzz is no option; expected options of tp.pruner.BasePruner: "),
}


@BOTH
@pytest.mark.parametrize("case", WRONG)
def test_options_of_pruners(prune, case):
    options, error, message = WRONG[case]
    model = chain()
    options = {name: value(model) if callable(value) else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        prune(model, **options)
    assert model[0].out_channels == 12


def test_layers_that_graphs_are_given():
    with pytest.raises(TypeError, match="ignored_layers is 'a'"):
        ChannelGraph().build_dependency(chain(), IMAGE, ignored_layers="a")
    with pytest.raises(ValueError, match="ignored_params holds"):
        ChannelGraph().build_dependency(chain(), IMAGE, ignored_params=[nn.Parameter(torch.zeros(2))])
    with pytest.raises(TypeError, match="ignored_layers holds 'a'"):
        check_network(chain(), IMAGE, ignored_layers=["a"], progress=False)


def test_another_graph():
    with pytest.raises(TypeError, match="graph is 3; expected a ChannelGraph"), following_channels(3):
        pass


@pytest.mark.parametrize("given", [True, False])
def test_heads_are_found_for_the_removal_of_whole_heads(given):
    torch.manual_seed(0)
    model, tokens = nn.Sequential(nn.Linear(8, 16), Attention(), nn.Linear(16, 5)), torch.rand(2, 7, 8)
    heads = {"num_heads": {model[1].qkv: 4}} if given else {}
    options = {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": 0.5}
    with following_channels():
        pruner = tp.pruner.BasePruner(model, tokens, IMPORTANCE, pruning_ratio=0.5, **options, **heads)
    pruner.step()
    update_attention(model, pruner.num_heads)
    assert (model[1].num_heads, model[1].head_dim) == (2, 4)
    assert model[1].qkv.out_features == 3 * 2 * 4
    assert model(tokens).shape == (2, 7, 5)


@pytest.mark.parametrize(
    ("names", "rule", "message"),
    [
        ((), None, "names is empty"),
        ((3,), None, "names holds 3"),
        (("mine::rule",), 3, "rule of 'mine::rule' is 3; expected a function"),
    ],
)
def test_rules(names, rule, message):
    before = dict(RULES)
    with pytest.raises(TypeError, match=message):
        register_rule(*names)(rule)
    assert before == RULES


def test_the_same_reason_is_given_once():
    graph = ChannelGraph().build_dependency(chain(), IMAGE)
    channels = graph.channels
    labels = channels.axes["0.weight", 0]
    channels.classes.freeze(labels[:2], "a text")
    channels.classes.freeze(labels[2:4], "a text")
    assert channels.why(labels) == "4 of 12 channels: a text"


def test_classes_are_coordinates_that_exist():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1))
    graph = ChannelGraph().build_dependency(model.eval(), IMAGE)
    places = set().union(*graph.classes())
    for name, dim, index in places:
        assert index < model.get_parameter(name).shape[dim]
    assert {name for name, _, _ in places} == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.weight",
        "2.bias",
        "3.weight",
    }
