"""What a resolution step changed in a network, and what that saves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch.nn as nn
from tabulate import tabulate

from ...cnn.reduction import RestoreOutputs
from ...cnn.resized_conv import FirstConvReduction, ResizedConv2d, proportional
from ...cost.profiling import profile
from ...ground.shapes import image_of
from ...ground.sizes import Size
from ...vit.registry import is_vit, token_sizes
from ...vit.scaling import KEPT


@dataclass(frozen=True)
class Sizes:
    """The sizes at which a network works.

    Attributes:
        image_size: height and width of the images that it reads, px.
        working_size: height and width of the images for which its maps have their sizes, px. FCR makes it smaller than
            ``image_size``.
        channels: the number of channels of the images.
        grid: tokens, in height and width; None for a CNN.
        patch_size: px, in height and width; None for a CNN.
    """

    image_size: Size
    working_size: Size
    channels: int
    grid: Size | None = None
    patch_size: Size | None = None


def network_method(network: nn.Module, options: dict[str, Any]) -> str:
    """``"fcr"`` or ``"tokens"``: how `scale_resolution` scales a network with these options."""
    method = options.get("method", "auto")
    if method != "auto":
        return method
    return "tokens" if is_vit(network) else "fcr"


def sizes_of(network: nn.Module, options: dict[str, Any], image_size: Size | None = None) -> Sizes:
    """The sizes at which a network works now.

    Args:
        network: a CNN, reduced by FCR or not, or a ViT.
        options: of `scale_resolution`; ``method``, ``input_size`` and ``in_channels`` are used.
        image_size: for a ViT that accepts images of any size, px. Default: the size for which it was made, else 224.
    """
    if network_method(network, options) == "tokens":
        tokens, (channels, size) = token_sizes(network), image_of(network)
        size = tokens.image_size or image_size or size
        return Sizes(size, size, channels, tokens.grid, tokens.patch_size)
    channels, size = image_of(network, options.get("input_size"), options.get("in_channels"))
    reduced = next((module for module in network.modules() if isinstance(module, FirstConvReduction)), None)
    working = proportional(size, reduced.own_size, reduced.resized) if reduced else size
    return Sizes(size, working, channels)


@dataclass(frozen=True)
class NetworkSizes:
    """How one network was scaled.

    Attributes:
        name: the name of the network in the model; ``""`` for the model.
        method: ``"fcr"`` or ``"tokens"``, see `scale_resolution`.
        before, after: its sizes before and after.
        modules: the names, in the network, of the modules that were changed. ``""`` is the network itself: a hook
            restores the sizes of its outputs, or an embedding of its own was resampled.
    """

    name: str
    method: str
    before: Sizes
    after: Sizes
    modules: tuple[str, ...]


def changed_modules(network: nn.Module) -> tuple[str, ...]:
    """The names of the modules that scaling has changed."""
    originals = vars(network).get(KEPT)
    replaced = {path for path, slot, *_ in originals.replaced if slot} if originals is not None else set()
    return tuple(
        name
        for name, module in network.named_modules()
        if name in replaced
        or isinstance(module, ResizedConv2d)
        or any(isinstance(hook, RestoreOutputs) for hook in module._forward_hooks.values())
    )


@dataclass(frozen=True)
class Costs:
    """What one forward pass costs, by `profile`: FLOPs, and bytes in float32.

    Attributes:
        flops: two for each multiply-accumulate.
        memory_bytes: bytes of the weights and the largest operator.
        peak_bytes: peak bytes of the activations.
    """

    flops: int
    memory_bytes: int
    peak_bytes: int


def costs_of(model: nn.Module, inputs: Any) -> Costs:
    """The costs for example inputs. Only their shapes matter."""
    report = profile(model, inputs)
    return Costs(report.flops, report.memory_bytes, report.peak_bytes)


@dataclass(frozen=True)
class ScalingPlan:
    """What `ResolutionScaler.compress` changed.

    Attributes:
        networks: the networks that were scaled, in the order of their configurations.
        before, after: costs of the model; None if its inputs are not known.

    Example:
        >>> model, plan = ResolutionScaler(torchvision.models.resnet18(), [{"size": 160}]).compress()
        >>> plan.networks[0].modules, plan.after.flops / plan.before.flops
        (('conv1',), 0.5422058348705884)
        >>> plan.to_dict()["networks"][0]["after"]["working_size"]
        (160, 160)
    """

    networks: tuple[NetworkSizes, ...]
    before: Costs | None = None
    after: Costs | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same in dicts and tuples."""
        return asdict(self)

    def __str__(self) -> str:
        lines = []
        for network in self.networks:
            lines.append([f"{network.name or 'model'}, by {network.method}", "", ""])
            for label in ("image_size", "working_size", "grid", "patch_size"):
                before, after = getattr(network.before, label), getattr(network.after, label)
                if before is not None:
                    lines.append([label, *("x".join(map(str, size)) for size in (before, after))])
            lines.append(["changed", "", ", ".join(name or "itself" for name in network.modules) or "nothing"])
        if self.before is not None:
            for label, unit, scale in (
                ("flops", "GFLOPs", 1e9),
                ("memory_bytes", "MB", 1e6),
                ("peak_bytes", "MB", 1e6),
            ):
                costs = [f"{getattr(when, label) / scale:,.3f}" for when in (self.before, self.after)]
                lines.append([f"{label.removesuffix('_bytes')}, {unit}" if unit == "MB" else unit, *costs])
        return tabulate(lines, ("", "before", "after"), disable_numparse=True, colalign=("left", "right", "right"))
