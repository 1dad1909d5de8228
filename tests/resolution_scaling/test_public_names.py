"""Public names give what their name says, and importing or using them patches nothing."""

import ast
import copy
import inspect
from pathlib import Path

import timm
import torch
import torch.nn as nn
import torch.nn.functional as F

import resolution_scaling as rs

PACKAGE = Path(rs.__file__).parent


def test_public_names_are_no_modules():
    for name in rs.__all__:
        assert not inspect.ismodule(getattr(rs, name)), name


def test_no_module_has_the_name_of_something_public():
    """``from package import name`` would give the module where a function is expected, or hide it."""
    public = set()
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                public |= set(ast.literal_eval(node.value))
    assert {"profile", "scale_model", "CostReport"} <= public
    modules = {path.parent.name if path.stem == "__init__" else path.stem for path in PACKAGE.rglob("*.py")}
    assert not public & modules


PATCHABLE = [torch, nn, F, torch.Tensor, nn.Module, nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.MultiheadAttention]
PATCHABLE += [timm.layers, timm.layers.PatchEmbed, timm.models.vision_transformer, timm.models.VisionTransformer]


def test_nothing_is_patched_after_use():
    before = [dict(vars(where)) for where in PATCHABLE]
    cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    for model in (cnn, vit):
        small = rs.scale_resolution(model, 160)
        rs.compare({"full": model, "small": small})
        rs.undo_scaling(small)
    rs.recalibrate(copy.deepcopy(cnn), [torch.rand(2, 3, 8, 8)])
    rs.scale_model(vit, "mlp", size=8)
    rs.fold_first_batch_norm(cnn.eval(), 16)
    for where, names in zip(PATCHABLE, before, strict=True):
        changed = {name for name, value in names.items() if vars(where).get(name) is not value}
        assert not changed, where
