"""Private names of Torch-Pruning stand in one file, and its shared default arguments stay as they are."""

import ast
import inspect
from pathlib import Path

import pytest
import torch_pruning as tp

from torchprune_spatial import attention_heads
from torchprune_spatial.graph.private_names import CONTAINERS, own_containers

from ..networks import plain_net
from ..pruning import EXAMPLE

PACKAGE = Path(__file__).parents[3] / "torchprune_spatial"
HOME = PACKAGE / "graph" / "private_names.py"
OF_PYTORCH = {
    *("_parameters", "_buffers", "_modules", "_forward_hooks", "_non_persistent_buffers_set", "_load_from_state_dict"),
    *("_schema", "_cdata", "_python_dispatch", "_disable_current_modes", "_can_decompose"),
    *("_ConvNd", "_BatchNorm", "_InstanceNorm", "_NormBase", "_reversed_padding_repeated_twice", "_version"),
}


def private_names(source):
    """Names that begin with one underscore, where they are read or called by from outside of the file's own classes."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            own.add(node.attr)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            found |= {argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)}
    return {name for name in found - own if name.startswith("_") and not name.startswith("__")}


def test_the_ways_to_a_private_name_are_seen():
    source = """
from torch_pruning.dependency import _trace
class Own:
    def run(self, group, other):
        self._count = other._count
        return group._DG, getattr(group, "_group"), self._walk(), self.__dict__
    def _walk(self): ...
"""
    assert private_names(source) == {"_trace", "_DG", "_group"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_uses_no_private_name_but_those_of_pytorch(path):
    if path != HOME:
        assert private_names(path.read_text(encoding="utf-8")) <= OF_PYTORCH


def test_options_are_copied_where_torch_pruning_changes_them():
    model = plain_net()
    given = {"num_heads": attention_heads(model), "customized_pruners": {}, "round_to": 2}
    options = own_containers(given)
    assert options == given | {"in_channel_groups": {}, "out_channel_groups": {}}
    assert all(options[name] is not given[name] for name in ("num_heads", "customized_pruners"))


def test_pruners_of_grouped_convolutions_leave_no_trace_in_the_defaults():
    """Torch-Pruning notes the groups of each convolution in its option, which by default all pruners share."""
    model = plain_net()
    model[3].groups, model[3].weight.data = 2, model[3].weight.data[:, :3]
    defaults = {name: inspect.signature(tp.pruner.BasePruner).parameters[name].default for name in CONTAINERS}
    before = {name: dict(default) for name, default in defaults.items()}
    options = own_containers({})
    tp.pruner.BasePruner(model, EXAMPLE, tp.importance.MagnitudeImportance(), **options)
    assert any(model[3] in options[name] for name in CONTAINERS)  # this test would notice
    assert defaults == before
