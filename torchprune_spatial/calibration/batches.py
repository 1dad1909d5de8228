"""The calibration data: batches of the user's loader are checked and converted to inputs and regions."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, IterableDataset

from resolution_scaling.ground.calls import Forward, call_model, copied

from ..graph.layers import watching_inputs
from .regions import RegionMasks, regions_from_mask, regions_from_target

Masks = Callable[[Any, Any], torch.Tensor]
"""``(input, target)`` -> mask."""

ReadBatch = Callable[[Any], Any]
"""What the loader yields -> ``(input, target)`` or ``(input, target, mask)``."""

BATCH = "batch=lambda batch: (batch['image'], batch['label'])"
"""An example for messages."""

__all__ = ["Batch", "CalibrationData", "Forward", "Masks", "call_model"]


class Batch(NamedTuple):
    """One batch of the calibration data, on the model's device.

    Attributes:
        inputs: the inputs of the network.
        target: the target that the loader yields, or None.
        regions: where the objects are; None if they were not asked for, or cannot be known from the data.
    """

    inputs: Any
    target: Any
    regions: RegionMasks | None


class CalibrationData:
    """A re-iterable view of the user's loader.

    Args:
        loader: yields ``(input, target)`` or ``(input, target, mask)``, and can be iterated more than once.
        threshold: the threshold that makes a mask of a target: a number, or ``"otsu"``; see `regions_from_target`.
        masks: optional callable ``(input, target) -> mask``, used instead of the target and of the loader's mask. With
            it, the loader may also yield inputs alone; the target is then None.
        batch: optional callable that makes ``(input, target)`` or ``(input, target, mask)`` of what the loader yields,
            for loaders that yield dicts, for instance.

    Raises:
        TypeError, ValueError: an argument is not usable; the message names it and the remedy.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        threshold: float | str,
        masks: Masks | None = None,
        batch: ReadBatch | None = None,
    ):
        if isinstance(loader, Iterator):
            raise TypeError(
                f"loader is a {type(loader).__name__}, which can be read only once, but statistics are taken again "
                "after each pruning step: pass the DataLoader itself, or list(loader)"
            )
        if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
            raise TypeError(
                f"loader is a dataset ({type(loader).__name__}), which yields single items; expected batches: pass "
                "DataLoader(dataset, batch_size=...)"
            )
        if isinstance(loader, (str, bytes, torch.Tensor, Mapping)):
            raise TypeError(f"loader is a {type(loader).__name__}; expected an iterable of batches, as a DataLoader")
        if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
            raise TypeError(
                f"loader is a {type(loader).__name__}; expected an iterable of batches, such as a DataLoader"
            )
        if threshold != "otsu" and not (isinstance(threshold, numbers.Real) and math.isfinite(threshold)):
            raise ValueError(f"threshold is {threshold!r}; expected a finite number or 'otsu'")
        if masks is not None and not callable(masks):
            raise TypeError(
                f"masks is a {type(masks).__name__}; expected a callable (input, target) -> mask. Masks that belong to "
                "the data are yielded by the loader: (input, target, mask)"
            )
        if batch is not None and not callable(batch):
            raise TypeError(f"batch is a {type(batch).__name__}; expected a callable that returns (input, target)")
        self.threshold = threshold if isinstance(threshold, str) else float(threshold)
        self.loader, self.masks, self.batch = loader, masks, batch
        self._passes = 0

    def batches(
        self,
        device: torch.device,
        dtype: torch.dtype,
        regions: Literal["required", "if known", "none"] = "required",
    ) -> Iterator[Batch]:
        """Yield the batches, with their tensors on ``device`` and floating-point inputs in ``dtype``.

        Inputs are copies, which a network may overwrite.

        Args:
            device: the device of the network. The callable ``masks`` gets tensors on this device too.
            dtype: the dtype of the network.
            regions: ``"required"``: every batch has regions. ``"if known"``: batches have regions if there is a mask,
                or a target that is an image, and None otherwise. ``"none"``: no batch has regions. Unless regions are
                required, the loader may yield inputs alone, and targets of any kind.

        Raises:
            ValueError: the loader is empty or exhausted; regions are required, but the loader yields only inputs; the
                size of a mask is neither that of the input nor that of the target.
        """
        self._passes += 1
        empty = True
        for batch in self.loader:
            empty = False
            inputs, target, mask = self._unpack(batch, regions == "required")
            inputs = copied(tree_map(lambda leaf: _to(leaf, device, dtype), inputs))
            target, mask = (tree_map(lambda leaf: _to(leaf, device), part) for part in (target, mask))
            known = self.masks is not None or mask is not None or _is_image(target, inputs)
            if regions == "required" or (regions == "if known" and known):
                yield Batch(inputs, target, RegionMasks(self._regions(inputs, target, mask).to(device)))
            else:
                yield Batch(inputs, target, None)
        if empty:
            again = self._passes > 1
            raise ValueError(
                f"loader yielded no batch{' when it was read again' if again else ''}: pass "
                + ("a loader that can be iterated more than once" if again else "at least one batch to calibrate on")
            )

    def _unpack(self, batch: Any, needs_regions: bool) -> tuple[Any, Any, Any]:
        if self.batch is not None:
            batch = self.batch(batch)
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if len(parts) > 3 or not parts:
            raise ValueError(
                f"loader yielded a {type(batch).__name__} of {len(parts)} items; expected (input, target) or "
                "(input, target, mask). Several inputs belong in one tuple or dict: ((x1, x2), target). "
                f"Calibration(loader, batch=...) takes apart what is yielded, such as {BATCH}"
            )
        if len(parts) == 1 and self.masks is None and needs_regions:
            keys = f" with the keys {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else ""
            raise ValueError(
                f"loader yielded only inputs (a {type(batch).__name__}{keys}); the criterion has to know where the "
                "objects are: let `loader` yield (input, target) or (input, target, mask), pass `masks`, a callable "
                "(input, target) -> mask, or say what is what with Calibration(loader, batch=...), such as "
                f"{BATCH}"
            )
        return (*parts, None, None)[:3]

    def _regions(self, inputs: Any, target: Any, mask: Any) -> torch.Tensor:
        images, spatial_dims = _images_in(inputs)
        source = "masks" if self.masks is not None else "the loader's mask"
        if self.masks is not None:
            with torch.no_grad():
                mask = self.masks(inputs, target)
        if mask is None and self.masks is None:
            if not isinstance(target, torch.Tensor):
                raise ValueError(
                    f"target is a {type(target).__name__}, not a tensor: let `loader` yield (input, target, mask), or "
                    "pass `masks`, a callable (input, target) -> mask"
                )
            planes, source = regions_from_target(target, self.threshold, spatial_dims), "target"
        elif not isinstance(mask, torch.Tensor):
            raise ValueError(
                f"{source} is a {type(mask).__name__}; expected a tensor. If the third item is no mask, leave it out "
                "with Calibration(loader, batch=lambda batch: batch[:2])"
            )
        else:
            planes = regions_from_mask(mask, spatial_dims)
            sizes = [tuple(image.shape[2:]) for image in images]
            if isinstance(target, torch.Tensor) and target.ndim > spatial_dims:
                sizes.append(tuple(target.shape[-spatial_dims:]))
            if sizes and tuple(planes.shape[2:]) not in sizes:
                raise ValueError(
                    f"{source} has size {_size(planes.shape[2:])}, but the images have "
                    f"{' or '.join(sorted({_size(size) for size in sizes}))}: resize the mask to its image"
                )
        if images and len(planes) != len(images[0]):
            raise ValueError(
                f"{source} holds {len(planes)} images, but the input holds {len(images[0])}: they must come in pairs, "
                "in batches, as from DataLoader(dataset, batch_size=...)"
            )
        return planes


def run_alike(model: nn.Module, forward: Forward, inputs: Any) -> Any:
    """Run a network on a copy of the inputs, with the same random numbers each time."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        return forward(model, copied(inputs))


@contextlib.contextmanager
def refusing_single_items(model: nn.Module, inputs: Any) -> Iterator[None]:
    """A context in which the network is called with inputs that must be a batch.

    PyTorch's convolutions accept an image without a batch, whose channels would then be taken for images.

    Raises:
        ValueError: a convolution reads a single item, and the inputs have no more dimensions than it.
    """
    dimensions = max((leaf.ndim for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)), default=0)

    def refuse(layer: Any, x: torch.Tensor) -> None:
        if x.ndim == len(layer.kernel_size) + 1 == dimensions:
            raise ValueError(
                f"loader yields single items: a convolution reads {list(x.shape)}, which has no batch dimension. Pass "
                "a loader of batches: DataLoader(dataset, batch_size=...)"
            )

    with watching_inputs((m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)), refuse):
        yield


def _images_in(inputs: Any) -> tuple[list[torch.Tensor], int]:
    """Find the images among the inputs, ``[batch, channels, *size]``, and their number of spatial dimensions."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    spatial_dims = max((tensor.ndim - 2 for tensor in tensors if tensor.ndim > 2), default=2)
    return [tensor for tensor in tensors if tensor.ndim == spatial_dims + 2], spatial_dims


def _is_image(target: Any, inputs: Any) -> bool:
    """Whether a target is a batch of images with the inputs' number of dimensions, so that it can be thresholded."""
    images, spatial_dims = _images_in(inputs)
    return bool(images) and isinstance(target, torch.Tensor) and target.ndim in (spatial_dims + 1, spatial_dims + 2)


def _size(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _to(leaf: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.to(device, dtype if leaf.is_floating_point() else None)
