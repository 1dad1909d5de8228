"""Vision transformers of the family of another, with other dimensions and random weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn as nn

from ..vit.scaling import token_sizes


class Dimensions(NamedTuple):
    """The dimensions of a ViT."""

    hidden: int
    """Channels of a token."""
    mlp: int
    """Hidden units of the MLP of a block."""
    depth: int
    """Blocks."""
    heads: int
    """Attention heads of a block."""


class ViTAxis:
    """The sizes of a ViT along one of its dimensions. The number of heads stays, so hidden sizes are its multiples."""

    METHODS = ("hidden", "mlp", "depth", "hybrid")

    def __init__(self, base: nn.Module, method: str):
        self.base, self.method = base, method
        self.name = "hidden" if method == "hybrid" else method
        self.dimensions = dimensions(base)
        size = getattr(self.dimensions, self.name)
        self.step = size // self.dimensions.heads if self.name == "hidden" else size

    def at(self, step: int) -> Dimensions:
        """The dimensions of a step."""
        base, hidden = self.dimensions, step * self.dimensions.heads
        return {
            "hidden": base._replace(hidden=hidden),
            "mlp": base._replace(mlp=step),
            "depth": base._replace(depth=step),
            "hybrid": base._replace(hidden=hidden, mlp=max(1, round(base.mlp * hidden / base.hidden))),
        }[self.method]

    def step_of(self, size: float) -> int:
        """The step that has this size."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size is {size!r}; expected a positive whole number, the {self.name} of the network")
        if self.name != "hidden":
            return size
        heads = self.dimensions.heads
        if size % heads:
            around = [str(multiple * heads) for multiple in (size // heads, size // heads + 1) if multiple]
            raise ValueError(
                f"size {size} cannot be shared out among {heads} heads: the nearest are {' and '.join(around)}"
            )
        return size // heads

    def configuration(self, step: int) -> dict[str, float]:
        """What a step stands for."""
        return self.at(step)._asdict()

    def build(self, step: int, device: torch.device) -> nn.Module:
        """The network, initialised as its library does."""
        return rebuild(self.base, self.at(step), device)


def dimensions(vit: nn.Module) -> Dimensions:
    """The dimensions of a ViT of torchvision or timm.

    Raises:
        TypeError: it has no equal blocks of attention and a two-layer MLP, or it cannot be built anew.
    """
    try:
        found = _torchvision_dimensions(vit) if _is_torchvision(vit) else _timm_dimensions(vit)
        sketch = rebuild(vit, found, torch.device("meta"))
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise TypeError(
            f"{type(vit).__name__} cannot be built with other dimensions ({error}): hidden, mlp, depth and hybrid "
            "scaling are for the ViTs of torchvision, and for those of timm.create_model"
        ) from error
    if _shapes(sketch) != _shapes(vit):
        differing = min(name for name, _ in _shapes(sketch).items() ^ _shapes(vit).items())
        raise TypeError(
            f"{type(vit).__name__} was changed since it was built, or built with options that it does not record: "
            f"{differing} differs when it is built anew. Pass it as its library builds it"
        )
    return found


def rebuild(vit: nn.Module, dimensions: Dimensions, device: torch.device) -> nn.Module:
    """A new network like a ViT, but for these dimensions; at its image and patch size of now."""
    with torch.device(device):
        return (_rebuild_torchvision if _is_torchvision(vit) else _rebuild_timm)(vit, dimensions)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _is_torchvision(vit: nn.Module) -> bool:
    return any(kind.__module__ == "torchvision.models.vision_transformer" for kind in type(vit).__mro__)


def _torchvision_dimensions(vit: Any) -> Dimensions:
    blocks = vit.encoder.layers
    return Dimensions(vit.hidden_dim, vit.mlp_dim, len(blocks), blocks[0].num_heads)


def _timm_dimensions(vit: Any) -> Dimensions:
    block = vit.blocks[0]
    return Dimensions(vit.embed_dim, block.mlp.fc1.out_features, len(vit.blocks), block.attn.num_heads)


def _rebuild_torchvision(vit: Any, dimensions: Dimensions) -> nn.Module:
    return type(vit)(
        image_size=vit.image_size,
        patch_size=vit.patch_size,
        num_layers=dimensions.depth,
        num_heads=dimensions.heads,
        hidden_dim=dimensions.hidden,
        mlp_dim=dimensions.mlp,
        dropout=vit.dropout,
        attention_dropout=vit.attention_dropout,
        num_classes=vit.num_classes,
        representation_size=vit.representation_size,
        norm_layer=vit.norm_layer,
    )


def _rebuild_timm(vit: Any, dimensions: Dimensions) -> nn.Module:
    import timm

    sizes = token_sizes(vit)
    options = {
        "num_classes": vit.num_classes,
        "img_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "embed_dim": dimensions.hidden,
        "depth": dimensions.depth,
        "num_heads": dimensions.heads,
        "mlp_ratio": (dimensions.mlp + 0.5) / dimensions.hidden,  # timm rounds the product down
    }
    return timm.create_model(vit.pretrained_cfg["architecture"], **(getattr(vit, "_model_args", {}) | options))
