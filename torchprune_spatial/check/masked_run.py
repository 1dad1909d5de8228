"""The masked run: the network as it was, with the removed channels held at zero and left out of all averages.

A pruned network must equal the unpruned one in which its removed channels are zero. Where a network averages over
channels (layer norm, softmax, means) this holds only if the averages leave the removed channels out, as they do here.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from resolution_scaling.ground.calls import Forward, call_model
from resolution_scaling.ground.models import attribute_tensors, evaluating

from ..graph.channel_graph import ChannelGraph
from ..graph.labels.classes import FROZEN
from ..graph.labels.following import Following, tensors_in
from ..graph.labels.moving_rules import reduced_dims
from ..graph.labels.parameters import Axes, track_of
from ..graph.labels.rules import Call
from ..graph.labels.trace import Dispatch, outputs_in, trace


class MaskedRun:
    """A network as it is now, to be compared with what it is after channels have been removed.

    Make it before pruning. It keeps a copy of the network and of its labels, and finds out from the graph what has been
    removed since. The pruned network does not use the labels of activations, as this does: if these are wrong, the two
    differ. They also do where code computes averages by itself, as ``x.sum(1) / x.shape[1]``.

    Args:
        graph: the graph with which the network will be pruned. The network should be in double precision; then the
            two are equal to about 1e-12.
        forward: ``(model, inputs)`` -> outputs, if the model is not called in Torch-Pruning's way.

    Example:
        >>> graph = ChannelGraph().build_dependency(model.double(), example_inputs)
        >>> before = MaskedRun(graph)
        >>> graph.get_pruning_group(model.conv1, tp.prune_conv_out_channels, [2, 6, 9]).prune()
        >>> assert before.difference(inputs) < 1e-9
    """

    def __init__(self, graph: ChannelGraph, forward: Forward = call_model):
        self.graph, self.forward = graph, forward
        self._model = _copied(graph.model)
        self._known = copy.deepcopy(dataclasses.replace(graph.channels.known(), trained=False))
        names = {module: name for name, module in graph.model.named_modules()}
        self._customized = {names[module]: same for module, same in graph.customized().items()}

    def difference(self, inputs: Any) -> float:
        """The largest difference between the pruned network's outputs and `outputs`, relative to the largest value.

        Raises:
            ValueError: the outputs have other shapes, or as for `outputs`.
        """
        expected = self.outputs(inputs)
        with torch.no_grad(), evaluating(self.graph.model):
            found = outputs_in(self.forward(self.graph.model, copy.deepcopy(inputs)))
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the pruned network's outputs have shapes {shapes[0]}; the unpruned one's {shapes[1]}")
        return max((_difference(e, f) for e, f in zip(expected, found, strict=True) if e.numel()), default=0.0)

    def outputs(self, inputs: Any) -> list[torch.Tensor]:
        """The output tensors of the unpruned network without the channels that have been removed since.

        Raises:
            ValueError: a removed channel reaches an output, or is tied to channels that are still there.
        """
        removed = self.graph.channels.removed.nonzero().flatten()
        gone = torch.zeros(len(self._known.classes), dtype=torch.bool)
        gone[self._known.classes.of(removed)] = True
        if gone[FROZEN]:
            raise ValueError("graph had removed channels before; expected a MaskedRun that is made before pruning")
        model, results = _copied(self._model), list[Any]()
        _set_to_zero(model, self._known.axes, gone[self._known.classes.root])
        traced = trace(
            model,
            lambda: results.append(self.forward(model, copy.deepcopy(inputs))),  # some networks write into them
            known=self._known,
            customized={model.get_submodule(name): same for name, same in self._customized.items()},
            dispatch=lambda following: _MaskedDispatch(following, gone),
        )
        tied = [pair for pair in traced.classes.joined if gone[list(pair)].any()]
        if any(FROZEN in pair for pair in tied):
            raise ValueError("removed channels reach an output, or something that cannot lose channels")
        if any(not gone[list(pair)].all() for pair in tied):
            raise ValueError("removed channels are tied to channels that are still there")
        return outputs_in(results)


def _copied(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model, also if its modules hold tensors that were computed from others, as by the old weight norm."""
    held = [tensor for module in model.modules() for tensor in tensors_in(vars(module))]
    return copy.deepcopy(model, {id(x): x.detach().clone() for x in held if x.grad_fn is not None})


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    scale = float(expected.abs().max())
    return float((expected - found).abs().max()) / (scale or 1.0)


def _set_to_zero(model: torch.nn.Module, axes: Axes, gone: torch.Tensor) -> None:
    """Set the tensors that the modules of a model hold to zero where one of their labels is gone, ``[labels]`` bool."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers()) | attribute_tensors(model)
    for (name, dim), labels in axes.items():
        tensor = tensors.get(name)
        if tensor is not None:  # not the channels of a customized layer
            tensor.data.masked_fill_(gone[track_of(labels, tensor, dim)].to(tensor.device), 0)


class _MaskedDispatch(Dispatch):
    """Runs operations without the channels that are gone: these are zero in all results, and left out of averages.

    Args:
        following: the labels.
        gone: the classes that are removed, ``[labels]`` bool.
    """

    def __init__(self, following: Following, gone: torch.Tensor):
        super().__init__(following)
        self.gone = gone

    def labelled(self, call: Call) -> None:
        """Correct the result of an operation."""
        x, average = call.inputs[0], AVERAGES.get(call.name)
        gone = self._gone(x) if average is not None else None
        if average is not None and gone is not None:
            corrected = average(x, ~gone.expand(x.shape), call, call.named)
            for result, values in zip(tensors_in(call.result), tensors_in(corrected), strict=False):
                result.copy_(values.reshape(result.shape))
        for result in tensors_in(call.result):
            gone = self._gone(result)
            if gone is not None:
                result.masked_fill_(gone, 0)

    def _gone(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Where a tensor has lost its channels, as bool that can be broadcast to its shape; None if it has not."""
        lost = [self._lost(track) for track in self.following.get(tensor)]
        lost = [track for track in lost if track.any()]
        if not lost:
            return None
        return torch.stack(torch.broadcast_tensors(*lost)).any(0).to(tensor.device)

    def _lost(self, track: torch.Tensor) -> torch.Tensor:
        classes = self.following.classes.of(track)
        return (classes < len(self.gone)) & self.gone[classes.clamp(max=len(self.gone) - 1)]


Average = Callable[[torch.Tensor, torch.Tensor, Call, Mapping[str, Any]], Any]
"""``(x, keep, call, arguments by name)`` -> the results of a call; ``x`` counts where ``keep`` is True."""


def _moments(x: torch.Tensor, keep: torch.Tensor, dims: Iterable[int], less: float = 0) -> list[torch.Tensor]:
    """Variance and mean along some dimensions, which get size 1; ``less``: Bessel's correction."""
    dims = tuple(dims)
    count = keep.sum(dims, keepdim=True)
    mean = x.where(keep, 0).sum(dims, keepdim=True) / count
    return [((x - mean).where(keep, 0) ** 2).sum(dims, keepdim=True) / (count - less), mean]


def _mean(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> torch.Tensor:
    return _moments(x, keep, reduced_dims(call, x))[1]


def _variance(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> list[torch.Tensor]:
    less = named.get("correction", named.get("unbiased"))
    variance, mean = _moments(x, keep, reduced_dims(call, x), 1 if less is None else float(less))
    return [variance.sqrt() if call.name.startswith("std") else variance, mean]


def _median(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> torch.Tensor:
    dims = reduced_dims(call, x)
    rows, kept = (t.movedim(tuple(dims), tuple(range(-len(dims), 0))).flatten(-len(dims)) for t in (x, keep))
    middle = (kept.sum(-1, keepdim=True) - 1).clamp(min=0) // 2
    return rows.where(kept, math.inf).sort(-1).values.gather(-1, middle)


def _layer_norm(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> torch.Tensor:
    variance, mean = _moments(x, keep, range(x.dim() - len(named["normalized_shape"]), x.dim()))
    return _affine((x - mean) / (variance + named["eps"]).sqrt(), named["weight"], named["bias"])


def _rms_norm(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> torch.Tensor:
    square = _moments(x**2, keep, range(x.dim() - len(named["normalized_shape"]), x.dim()))[1]
    eps = torch.finfo(x.dtype).eps if named["eps"] is None else named["eps"]
    return _affine(x / (square + eps).sqrt(), named["weight"], None)


def _group_norm(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> torch.Tensor:
    grouped = (x.shape[0], named["group"], -1)
    variance, mean = _moments(x.reshape(grouped), keep.reshape(grouped), (2,))
    normed = ((x.reshape(grouped) - mean) / (variance + named["eps"]).sqrt()).reshape(x.shape)
    return _of_channels(normed, named)


def _batch_norm(x: torch.Tensor, keep: torch.Tensor, call: Call, named: Mapping[str, Any]) -> Any:
    """As called by instance norm: the network is in evaluation mode, so batch norm itself does not average."""
    if not named.get("training"):
        return call.result
    variance, mean = _moments(x, keep, (dim for dim in range(x.dim()) if dim != 1))
    return _of_channels((x - mean) / (variance + named["eps"]).sqrt(), named)


def _of_channels(x: torch.Tensor, named: Mapping[str, Any]) -> torch.Tensor:
    column = (-1, *[1] * (x.dim() - 2))
    return _affine(x, *(None if p is None else p.reshape(column) for p in (named["weight"], named["bias"])))


def _affine(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _without(neutral: float) -> Average:
    """Calls in which one value makes an element count for nothing."""
    return lambda x, keep, call, named: call.function(x.where(keep, neutral), *call.args[1:], **call.kwargs)


def _unless_two(average: Average) -> Average:
    """``max`` of a tensor; that of two tensors compares them element by element."""
    return lambda x, keep, call, named: call.result if len(call.inputs) > 1 else average(x, keep, call, named)


AVERAGES: dict[str, Average] = {
    "mean": _mean,
    "median": _median,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variance),
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    **dict.fromkeys(("max", "amax"), _unless_two(_without(-math.inf))),
    **dict.fromkeys(("min", "amin"), _unless_two(_without(math.inf))),
    **dict.fromkeys(("logsumexp", "_softmax", "_log_softmax", "_safe_softmax"), _without(-math.inf)),
    **dict.fromkeys(("prod", "cumprod", "all"), _without(1)),
}
"""Operations that average over channels or compare them. Sums, matrix products and euclidean norms need but zeros."""
