"""Attention heads: naming them to the pruner, and fitting attention modules to their pruned layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn as nn

HEADS = ("num_heads", "heads", "num_attention_heads")
HEAD_DIM = ("head_dim", "dim_head", "attention_head_size")
WIDTH = ("attn_dim", "attention_dim", "inner_dim", "all_head_size")
KEY_WIDTH = ("kv_dim", "inner_kv_dim")
PROJECTIONS = {"qkv": "qkv", "qk": "qk", "kv": "kv"} | {
    name: letter
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))
    for name in (letter, word, f"to_{letter}", f"{letter}_proj", f"w{letter}")
}
"""Names of the layers that make queries, keys and values; for each, the letters of what it makes, in order."""


def attention_heads(model: nn.Module) -> dict[nn.Module, int]:
    """The layers that make queries, keys and values, with their numbers of heads: for Torch-Pruning's ``num_heads``.

    With this option every head loses the same dimensions, so that all heads keep one size. A module is recognised if it
    has its number of heads as an attribute (``num_heads``, ``heads``, ...) and makes queries, keys and values with
    linear layers or convolutions: fused (``qkv``), partly fused (``q`` and ``kv``) or separate (``to_q``, ``to_k``,
    ``to_v``), as in timm, diffusers and transformers. The dict is empty for networks without attention.

    ``nn.MultiheadAttention`` is listed too; Torch-Pruning then leaves the channels that pass through it alone. To prune
    these as well, pass such modules as ``out_channel_groups={attention: attention.num_heads}`` instead.

    Example:
        >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, num_heads=attention_heads(model))
        >>> pruner.step()
        >>> update_attention(model, pruner.num_heads)
    """
    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
        for layer, makes in _projections(module).items():
            keys_only = None if "q" in makes else getattr(module, "num_kv_heads", None)
            heads[layer] = getattr(module, _heads_name(module) or "") if keys_only is None else int(keys_only)
    return heads


@torch.no_grad()
def update_attention(model: nn.Module, num_heads: Mapping[nn.Module, int]) -> None:
    """Fit attention modules to the pruned sizes of their layers, so that the network runs. Call it after each step.

    In each attention module this sets the number of heads, the dimension of a head and their product, as far as the
    module has these attributes.

    The softmax keeps the temperature of the unpruned network. A pruned network therefore gives what the original gives
    with the removed dimensions at zero. Modules that multiply by their own ``scale`` keep it.
    ``F.scaled_dot_product_attention`` divides by the square root of the present head dimension; in modules that call
    it, the weights of the queries are scaled to make up for the change. This is not done where the queries are
    normalized (``q_norm``), nor in ``nn.MultiheadAttention``: there a smaller head has a sharper softmax.

    Args:
        model: the pruned network. Without attention it is left as it is.
        num_heads: ``pruner.num_heads`` after the step. It holds fewer heads where whole heads were removed.
    """
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if isinstance(module, nn.MultiheadAttention):
            module.num_heads = num_heads.get(module, module.num_heads)
            module.head_dim = module.embed_dim // module.num_heads
        if projections := _projections(module):
            _update(module, projections, num_heads)
        if isinstance(patches := getattr(module, "conv_proj", None), nn.Conv2d) and hasattr(module, "hidden_dim"):
            module.hidden_dim = patches.out_channels  # torchvision's VisionTransformer reshapes to it


def _update(module: Any, projections: dict[nn.Module, str], num_heads: Mapping[nn.Module, int]) -> None:
    name = _heads_name(module) or ""
    query: Any = next(layer for layer, makes in projections.items() if "q" in makes)
    key = next(layer for layer, makes in projections.items() if "k" in makes)
    heads = num_heads.get(query, getattr(module, name))
    query_width, key_width = (_out_channels(layer) // len(projections[layer]) for layer in (query, key))
    head_dim = query_width // heads
    if "num_kv_heads" in vars(module):
        module.num_kv_heads = key_width // head_dim
        module.num_kv_groups = heads // module.num_kv_heads
    for names, value in (((name,), heads), (HEAD_DIM, head_dim), (WIDTH, query_width), (KEY_WIDTH, key_width)):
        for attribute in names:
            if attribute in vars(module):
                setattr(module, attribute, value)
    scale = vars(module).get("scale")
    if not isinstance(scale, float) or not _divides_by_head_dim(module) or _normalizes_queries(module):
        return
    factor = scale * head_dim**0.5  # 1 if nothing was pruned since the last call
    query.weight[:query_width] *= factor
    if query.bias is not None:
        query.bias[:query_width] *= factor
    module.scale = head_dim**-0.5


def _divides_by_head_dim(module: nn.Module) -> bool:
    """Whether the module calls ``F.scaled_dot_product_attention``: timm's fused path, diffusers' default processor."""
    return vars(module).get("fused_attn") is True or type(vars(module).get("processor")).__name__ == "AttnProcessor2_0"


def _normalizes_queries(module: nn.Module) -> bool:
    norms = (getattr(module, name, None) for name in ("q_norm", "norm_q"))
    return any(norm is not None and not isinstance(norm, nn.Identity) for norm in norms)


def _heads_name(module: nn.Module) -> str | None:
    return next((name for name in HEADS if isinstance(vars(module).get(name), int)), None)


def _projections(module: nn.Module) -> dict[nn.Module, str]:
    """The layers of an attention module that make queries, keys and values, with their letters; empty for others."""
    if _heads_name(module) is None:
        return {}
    layers: dict[nn.Module, str] = {
        layer: PROJECTIONS[name]
        for name, layer in module.named_children()
        if name in PROJECTIONS and isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d))
    }
    return layers if sorted("".join(layers.values())) == ["k", "q", "v"] else {}


def _out_channels(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def scales_queries(module: nn.Module) -> bool:
    """Whether `update_attention` scales the queries of a module, so that its softmax keeps its temperature."""
    return (
        isinstance(vars(module).get("scale"), float)
        and bool(_projections(module))
        and _divides_by_head_dim(module)
        and not _normalizes_queries(module)
    )


def head_parts(model: nn.Module, num_heads: Mapping[nn.Module, int]) -> list[list[tuple[nn.Module, int, int]]]:
    """Where queries, keys and values are made, for each attention module of which the layers are in ``num_heads``.

    Returns:
        For each module ``(layer, which part of its outputs, number of parts)`` of the queries, keys and values.
    """
    found = []
    for module in model.modules():
        projections = _projections(module)
        parts = [(layer, i, len(makes)) for layer, makes in projections.items() for i in range(len(makes))]
        found += [parts] if parts and projections.keys() <= num_heads.keys() else []
    return found
