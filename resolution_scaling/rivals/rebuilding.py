"""Vision transformers with other dimensions than a given one of the same family, and random weights."""

from __future__ import annotations

import torch
import torch.nn as nn

from ..ground.arguments import whole_number
from ..vit.family import Dimensions
from ..vit.registry import vit_family


class ViTAxis:
    """The sizes of a ViT along one of its dimensions. The number of heads stays: hidden sizes are multiples of it."""

    METHODS = ("hidden", "mlp", "depth", "hybrid")

    def __init__(self, base: nn.Module, method: str):
        self.base, self.method = base, method
        self.name = "hidden" if method == "hybrid" else method
        self.dimensions = dimensions(base)
        size = getattr(self.dimensions, self.name)
        self.step = size // self.dimensions.heads if self.name == "hidden" else size

    def at(self, step: int) -> Dimensions:
        """The dimensions at a step."""
        base, hidden = self.dimensions, step * self.dimensions.heads
        return {
            "hidden": base._replace(hidden=hidden),
            "mlp": base._replace(mlp=step),
            "depth": base._replace(depth=step),
            "hybrid": base._replace(hidden=hidden, mlp=max(1, round(base.mlp * hidden / base.hidden))),
        }[self.method]

    def step_of(self, size: float) -> int:
        """The step that has this size.

        Raises:
            TypeError, ValueError: it is not a whole number above 0, or not a multiple of the heads.
        """
        size = whole_number(size, "size", example=f"{getattr(self.dimensions, self.name)}, the {self.name} of the base")
        if self.name != "hidden":
            return size
        heads = self.dimensions.heads
        if size % heads:
            around = [str(multiple * heads) for multiple in (size // heads, size // heads + 1) if multiple]
            raise ValueError(
                f"size is {size}; expected a multiple of the {heads} heads: the nearest are {' and '.join(around)}"
            )
        return size // heads

    def configuration(self, step: int) -> dict[str, float]:
        """The dimensions at a step, by name."""
        return self.at(step)._asdict()

    def build(self, step: int, device: torch.device) -> nn.Module:
        """The network at a step, initialised as its library does."""
        return rebuild(self.base, self.at(step), device)


def dimensions(vit: nn.Module) -> Dimensions:
    """Read the dimensions of a ViT, and check that it can be built again from them.

    Raises:
        TypeError: it is not a ViT with equal blocks of attention and a two-layer MLP, or it cannot be built again.
    """
    try:
        found = vit_family(vit).dimensions(vit)
        sketch = rebuild(vit, found, torch.device("meta"))
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError) as error:
        raise TypeError(
            f"{type(vit).__name__} cannot be built with other dimensions ({error}). The methods hidden, mlp, depth and "
            "hybrid are for ViTs of torchvision, of timm.create_model, and of families with a method rebuild"
        ) from error
    if _shapes(sketch) != _shapes(vit):
        differing = min(name for name, _ in _shapes(sketch).items() ^ _shapes(vit).items())
        raise TypeError(
            f"{type(vit).__name__} was changed since it was built, or built with options that it does not record: "
            f"{differing} differs when it is built again. Pass it as its library builds it"
        )
    return found


def rebuild(vit: nn.Module, dimensions: Dimensions, device: torch.device) -> nn.Module:
    """Build a new network like a ViT with these dimensions, at its image and patch size of now."""
    with torch.device(device):
        return vit_family(vit).rebuild(vit, dimensions)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}
