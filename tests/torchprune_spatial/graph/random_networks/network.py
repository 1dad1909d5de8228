"""A network that runs a list of operations on named tensors, and what each operation has to say about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .labels import Follower, Labelled


@dataclasses.dataclass(eq=False)
class Operation:
    """One operation; its fields are all that there is to say about it, so that a printed network can be read."""

    sees_removed: ClassVar[bool] = False
    """Whether zeros in the place of removed channels change the others, as in a normalization over channels."""

    def layers(self) -> dict[str, nn.Module | nn.Parameter]:
        """What the operation adds to the network, by name. Two calls of one operation share it."""
        return {}

    def needs(self) -> set[str]:
        """Names of the layers that the operation runs."""
        return set(self.layers())

    def register(self, net: Network) -> None:
        for name, layer in self.layers().items():
            setattr(net, name, layer.double() if isinstance(layer, nn.Module) else layer)

    def run(self, net: Network, *tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def run_masked(self, net: Network, masks: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        """As `run`, where some elements are removed: those that are False in the inputs' ``masks``."""
        return self.run(net, *tensors)

    def follow(self, follower: Follower, *tensors: Labelled) -> Labelled:
        raise NotImplementedError


@dataclasses.dataclass
class Step:
    """``target = operation(*sources)``."""

    operation: Operation
    target: str
    sources: tuple[str, ...]

    def __str__(self):
        return f"{self.target} = {self.operation!r} of {', '.join(self.sources)}"


class Network(nn.Module):
    """Runs steps on named tensors.

    Attributes:
        shapes: of the inputs, for a batch of one.
        steps: what is done.
        outputs: names of the tensors that are returned.
        returns: how: "tensor", "tuple" or "dict".
    """

    def __init__(self):
        super().__init__()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps: list[Step] = []
        self.outputs: list[str] = []
        self.returns = "tensor"

    def forward(self, *inputs: Tensor) -> Any:
        values = dict(zip(self.shapes, inputs, strict=True))
        for step in self.steps:
            values[step.target] = step.operation.run(self, *(values[name] for name in step.sources))
        return self.result(values)

    def result(self, values: Mapping[str, Any]) -> Any:
        if self.returns == "dict":
            return {name: values[name] for name in self.outputs}
        results = tuple(values[name] for name in self.outputs)
        return results if self.returns == "tuple" else results[0]

    def masked(self, masks: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        """The outputs where every tensor is set to zero where its mask is False, and norms pass over these elements."""
        values = dict(zip(self.shapes, inputs, strict=True))
        for step in self.steps:
            tensors = [values[name] for name in step.sources]
            of_sources = [like(masks[name], x) for name, x in zip(step.sources, tensors, strict=True)]
            result = step.operation.run_masked(self, of_sources, *tensors)
            values[step.target] = torch.where(like(masks[step.target], result), result, torch.zeros_like(result))
        return self.result(values)

    def inputs(self, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.rand(batch, *shape[1:], generator=generator, dtype=torch.float64) for shape in self.shapes.values()
        )

    def follow(self) -> tuple[Follower, dict[str, Labelled]]:
        """The labels of all tensors, after following them from the inputs to the outputs."""
        follower = Follower({name: tuple(p.shape) for name, p in self.named_parameters()})
        values = {
            name: Labelled(shape, lambda index: [frozenset()] * len(index)) for name, shape in self.shapes.items()
        }
        for step in self.steps:
            values[step.target] = step.operation.follow(follower, *(values[name] for name in step.sources))
        for name in self.outputs:
            for sets in values[name].at.values():
                follower.freeze(frozenset().union(*sets))
        return follower, values

    def __str__(self):
        inputs = [f"{name}: {list(shape)}" for name, shape in self.shapes.items()]
        return "\n".join([*inputs, *map(str, self.steps), f"{self.returns} of {', '.join(self.outputs)}"])


def like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask for a batch of one, repeated for the batch of ``x``."""
    return mask.repeat(x.shape[0] // mask.shape[0], *[1] * (mask.dim() - 1))


def mask_of(labels: Labelled, removed: set) -> Tensor:
    """False for the elements of which one of the labels is removed."""
    mask = torch.ones(labels.shape, dtype=torch.bool)
    for index, sets in labels.at.items():
        if any(not labels_along.isdisjoint(removed) for labels_along in sets):
            mask[index] = False
    return mask


def same_values(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Whether outputs have the same shapes, and values that differ by at most ``tolerance`` of the largest."""
    for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * max(1e-3, float(b.abs().max())):
            return False
    return True


def tensors_of(outputs: Any) -> Iterable[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)


def randomize(net: nn.Module, seed: int) -> None:
    """Values of all parameters and buffers that are different from each other and not near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if tensor.is_floating_point():
                values = 0.2 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                signs = torch.randint(2, tensor.shape, generator=generator) * 2 - 1
                tensor.copy_(values if name.endswith("running_var") else values * signs)
