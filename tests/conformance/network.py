"""One entry of the zoo: how a network is built with random weights, and what it is called with."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from resolution_scaling.ground.calls import call_model

NEAR_ZERO = 0.05
"""Constant parameters below this hide the branch that they scale, such as the 1e-6 of a layer scale."""


@dataclass(frozen=True)
class Network:
    """A network of a library.

    Attributes:
        library: the name of the Python package.
        name: its name there, with what else is needed to tell it from others.
        make: makes it.
        example: what it is called with. A tuple of integers is the shape of a random input, without the batch: of an
            image, ``(3, 64, 64)``. A dictionary holds keyword arguments, a list positional ones; in both, tuples of
            integers are shapes, and other values are passed as they are.
        batch: number of images.
        kept: for Torch-Pruning: ends of the names of parameters that no channel runs along, such as tables of relative
            positions.
        unwrapped: for Torch-Pruning: the dimension of the channels in parameters where that is not the last, by name.
    """

    library: str
    name: str
    make: Callable[[], nn.Module]
    example: Any = (3, 64, 64)
    batch: int = 2
    kept: tuple[str, ...] = ()
    unwrapped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.library} {self.name}"

    def build(self) -> nn.Module:
        """The network in evaluation mode, with random weights and statistics, also where the library has constants."""
        torch.manual_seed(0)
        model = self.make().eval()
        with torch.no_grad():
            for tensor in model.parameters():
                _randomise(tensor)
            _take_statistics(model, self.inputs())
        return model

    def inputs(self) -> Any:
        """What the network is called with, as Torch-Pruning's ``example_inputs``; the same at each call."""
        generator = torch.Generator().manual_seed(1)

        def value(item: Any) -> Any:
            if isinstance(item, tuple) and all(isinstance(size, int) for size in item):
                return torch.rand(self.batch, *item, generator=generator)
            return item

        if isinstance(self.example, dict):
            return {name: value(item) for name, item in self.example.items()}
        if isinstance(self.example, list):
            return tuple(value(item) for item in self.example)
        return value(self.example)

    def options(self, model: nn.Module) -> dict[str, Any]:
        """Options for Torch-Pruning's pruner that tell what it cannot know about the parameters."""
        return {
            "ignored_layers": [p for name, p in model.named_parameters() if self.kept and name.endswith(self.kept)],
            "unwrapped_parameters": [(model.get_parameter(name), dim) for name, dim in self.unwrapped.items()],
        }


def calling(path: str, *args: Any, **arguments: Any) -> Callable[[], Any]:
    """A function that imports ``"package.module:name"`` and calls it with these arguments."""
    return lambda: pkgutil.resolve_name(path)(*copy.deepcopy(args), **copy.deepcopy(arguments))  # some change lists


def _randomise(tensor: torch.Tensor) -> None:
    """Fill a constant tensor with random values about the constant, and a weight so small that it stops the signal."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    constant = tensor.flatten()[0].item()
    if (tensor == constant).all():
        factor = torch.rand(tensor.shape)
        tensor.copy_(0.4 * factor - 0.2 if abs(constant) < NEAR_ZERO else constant * (0.5 + factor))
    elif tensor.ndim > 1 and tensor.square().mean() * tensor[0].numel() < 0.5:
        tensor.normal_(0, tensor[0].numel() ** -0.5)


def _take_statistics(model: nn.Module, inputs: Any) -> None:
    """Let batch norms see to the scale of their outputs, or the signal grows or dies with random weights.

    Their means are not those of the batch: two images are too few, and what is left of the signal would be noise.
    """

    def measure(norm: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        squares = arguments[0].transpose(0, 1).flatten(1).square().mean(1)
        norm.running_mean.copy_(0.2 * torch.randn(len(squares)) * squares.sqrt())
        norm.running_var.copy_((squares + 0.001) * (0.5 + torch.rand(len(squares))))

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    if norms:
        call_model(model, inputs)
    for hook in hooks:
        hook.remove()
