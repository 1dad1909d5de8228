"""Pruned = masked: the pruned network computes what the original computes with all that was removed at zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_map

from resolution_scaling.ground.calls import call_model, tensors_in
from resolution_scaling.ground.models import attribute_tensors

from .network import Network
from .norms import CountedNorms

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Of the largest output. float32 is for the few networks that do not run in float64."""


class Comparison(NamedTuple):
    """Outputs of the pruned network beside those of the masked one.

    Attributes:
        difference: the largest, relative to the largest output; ``inf`` if the shapes differ.
        norms: norms, means and softmax run over fewer channels than before.
        counted: the difference if these count the removed channels as zeros.
        effect: how much the masks change the outputs: of a network that does not hear them, equality says nothing.
        tolerance: what passes as equal.
    """

    difference: float
    norms: bool
    counted: float
    effect: float
    tolerance: float

    @property
    def equal(self) -> bool:
        return self.difference < self.tolerance

    @property
    def equal_but_for_norms(self) -> bool:
        return self.norms and self.counted < self.tolerance


def marked(network: Network) -> nn.Module:
    """The network, marked so that what is left of it can be recognised; in float64 where it runs so.

    Gradients of parameters are the positions of their values: whoever shortens a parameter shortens its gradient alike.
    Values of buffers are all different.
    """
    model = network.build().double()
    try:
        outputs(model, network)
    except RuntimeError:
        model = network.build()
    generator = torch.Generator().manual_seed(2)
    scale = 1e-9 if precision(model) is torch.float64 else 1e-6
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.grad = torch.arange(parameter.numel()).to(parameter.dtype).reshape(parameter.shape)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            noise = torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype)
            buffer.add_((buffer.abs() + 1) * noise * scale)
    return model


def compare(network: Network, pruned: nn.Module) -> Comparison:
    """Compare a network of `marked` that was pruned with an unpruned one whose removed values are zero."""
    original = marked(network)
    whole = outputs(original, network)
    mask(original, pruned)
    counting = CountedNorms()
    with counting:
        masked = outputs(original, network)
    counting.compare()
    with counting:
        counted = outputs(pruned, network)
    return Comparison(
        difference=relative(outputs(pruned, network), masked),
        norms=counting.changed,
        counted=relative(counted, masked),
        effect=relative(masked, whole),
        tolerance=TOLERANCE[precision(original)],
    )


def mask(original: nn.Module, pruned: nn.Module) -> None:
    """Set to zero what the pruned network has no longer; variances are left, because they are divisors."""
    left, tensors = (
        {**dict(net.named_parameters()), **dict(net.named_buffers()), **attribute_tensors(net)}
        for net in (pruned, original)
    )
    for name, tensor in tensors.items():
        cut = name in left and left[name].dim() == tensor.dim() and left[name].shape != tensor.shape
        if cut and not name.endswith("running_var"):  # of other dimensions are results that the network keeps
            kept = positions(left[name], tensor.detach(), name)
            values = torch.zeros_like(tensor.data).flatten()
            values[kept] = tensor.data.flatten()[kept]
            tensor.data = values.reshape(tensor.shape)


def positions(left: torch.Tensor, tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Where the values that are left stand in a tensor, both flattened.

    Raises:
        ValueError: they cannot be recognised.
    """
    if left.grad is not None:
        if left.grad.shape != left.shape:
            raise ValueError(f"the gradient of {name} was not pruned with it")
        return left.grad.flatten().long()
    values = left.detach().flatten()
    ordered, order = tensor.flatten().sort()
    found = torch.searchsorted(ordered, values).clamp(max=len(ordered) - 1)
    if not torch.equal(ordered[found], values):
        raise ValueError(f"{name} has values that it did not have before")
    return order[found]


def outputs(model: nn.Module, network: Network) -> list[torch.Tensor]:
    """What the network gives for its example."""
    with torch.no_grad():
        found = tensors_in(run_seeded(model, inputs_for(model, network)))
    return [tensor for tensor in found if tensor.is_floating_point()]


def run_seeded(model: nn.Module, inputs: Any) -> Any:
    """Call a model, with the same random numbers each time."""
    torch.manual_seed(3)
    return call_model(model, inputs)


def inputs_for(model: nn.Module, network: Network) -> Any:
    """The network's example, in the precision of the model."""
    kind = precision(model)
    return tree_map(
        lambda leaf: leaf.to(kind) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf,
        network.inputs(),
    )


def precision(model: nn.Module) -> torch.dtype:
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())


def relative(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.numel()]
    largest = max(b.abs().max().item() for _, b in pairs)
    difference = max((a - b).abs().max().item() for a, b in pairs) / largest
    return difference if difference == difference else float("inf")
