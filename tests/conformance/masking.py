"""Pruned = masked: the pruned network computes what the original computes with all that was removed at zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_map

from resolution_scaling.ground.calls import call_model, tensors_in

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


def distinct(network: Network) -> nn.Module:
    """The network with values that are all different, in float64 where it runs so: what is left can be recognised."""
    model = network.build().double()
    try:
        outputs(model, network)
    except RuntimeError:
        model = network.build()
    generator = torch.Generator().manual_seed(2)
    scale = 1e-9 if precision(model) is torch.float64 else 1e-6
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_((tensor.abs() + 1) * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale)
    return model


def compare(network: Network, pruned: nn.Module) -> Comparison:
    """Compare a network of `distinct` that was pruned with an unpruned one whose removed values are zero."""
    original = distinct(network)
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
    """Set to zero what the pruned network has no longer, recognised by its values; variances are left, as divisors."""
    left = {**dict(pruned.named_parameters()), **dict(pruned.named_buffers())}
    for name, tensor in [*original.named_parameters(), *original.named_buffers()]:
        if name in left and left[name].shape != tensor.shape and not name.endswith("running_var"):
            kept = positions(left[name].detach(), tensor.detach(), name)
            values = torch.zeros_like(tensor.data).flatten()
            values[kept] = tensor.data.flatten()[kept]
            tensor.data = values.reshape(tensor.shape)


def positions(values: torch.Tensor, among: torch.Tensor, name: str) -> torch.Tensor:
    """Where each of the values stands in a tensor of values that are all different, both flattened."""
    ordered, order = among.flatten().sort()
    found = torch.searchsorted(ordered, values.flatten()).clamp(max=len(ordered) - 1)
    if not torch.equal(ordered[found], values.flatten()):
        raise ValueError(f"{name} has values that it did not have before")
    return order[found]


def outputs(model: nn.Module, network: Network) -> list[torch.Tensor]:
    """What the network gives for its example, with the same random numbers at each call."""
    kind = precision(model)
    inputs = tree_map(
        lambda leaf: leaf.to(kind) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf,
        network.inputs(),
    )
    torch.manual_seed(3)
    with torch.no_grad():
        return [tensor for tensor in tensors_in(call_model(model, inputs)) if tensor.is_floating_point()]


def precision(model: nn.Module) -> torch.dtype:
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())


def relative(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.numel()]
    largest = max(b.abs().max().item() for _, b in pairs)
    difference = max((a - b).abs().max().item() for a, b in pairs) / largest
    return difference if difference == difference else float("inf")
