"""The rules: for each operation of ATen, what it does to the labels of its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .following import OF_TRACKS, Following, Tracks, tensors_in
from .steps import base_name
from .storages import storage_key


@dataclass(frozen=True)
class Call:
    """A call of an operation.

    Attributes:
        name: the operation without its namespace and the underscore of its in-place form, such as ``"add"``.
        args, kwargs: its arguments, complete: those that were left out have their default.
        result: what it returned.
        function: the operation itself, to apply it to labels.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    function: Callable[..., Any]

    @property
    def inputs(self) -> list[torch.Tensor]:
        """The tensors among the arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    @property
    def named(self) -> dict[str, Any]:
        """The arguments by their names."""
        function: Any = self.function
        return dict(zip((a.name for a in function._schema.arguments), self.args, strict=False)) | self.kwargs

    @property
    def output(self) -> torch.Tensor:
        """The first tensor of the result."""
        return tensors_in(self.result)[0]


Rule = Callable[[Following, Call], None]
"""Reads the labels of the call's inputs (`Following.get`), unites or freezes them, and labels the result."""

RULES: dict[str, Rule] = {}
"""The rules by name of the operation; `register_rule` adds to them."""


def register_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations; a decorator.

    Operations without a rule freeze the labels that they touch, so that nothing is cut wrongly; they are named by
    `check_network`. A rule makes their channels prunable.

    Args:
        names: names of operations: of ATen without namespace (``"roll"``), of others with it (``"torchvision::nms"``).

    Raises:
        TypeError: there are no names, or it decorates something that cannot be called.

    Example:
        >>> @register_rule("my_ops::swish")
        ... def swish(following, call):
        ...     following.set(call.result, following.get(call.inputs[0]))
    """

    if not names:
        raise TypeError("names is empty; expected names of operations such as 'my_ops::swish'")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"names holds {name!r}; expected names of operations such as 'my_ops::swish'")

    def register(rule: Rule) -> Rule:
        if not callable(rule):
            raise TypeError(f"rule of {names[0]!r} is {rule!r}; expected a function of following and call")
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def rule_for(function: Any) -> Rule | None:
    """The rule of an operation; that of element-wise operations, if PyTorch says that it is one; None for others."""
    namespace, name = function._schema.name.split("::")
    name = base_name(name) if namespace in ("aten", "prims") else f"{namespace}::{name}"
    if name in RULES:
        return RULES[name]
    return RULES["add"] if torch.Tag.pointwise in function.tags else None


@register_rule(
    *(
        "add",
        "_softmax",
        "_log_softmax",
        "_safe_softmax",
        "dropout",
        "native_dropout",
        "where",
        "masked_fill",
        "cumsum",
    ),
    *("_prelu_kernel", "lerp", "addcmul", "addcdiv", "fill", "nan_to_num", "threshold", "hardtanh", "bernoulli"),
    *("rrelu_with_noise", "copysign", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("clone", "_to_copy", "alias", "detach", "lift_fresh", "normal", "uniform", "zero", "polar", "complex", "clamp"),
    "hardswish",
    *("_conj", "_conj_physical", "_neg_view", "resolve_conj", "resolve_neg", "tril", "triu", "celu", "cumprod"),
)
def elementwise(following: Following, call: Call) -> None:
    """Element by element: the labels of all tensors are united."""
    if "softmax" in call.name:
        dim = call.args[1] % max(1, call.output.dim())
        if any(track.shape[dim] > 1 for track in following.get(call.inputs[0])):
            following.averages.add("softmax")
    makers = linear_in(following, call) if call.name in LINEAR else None
    tracks = following.elementwise(call.inputs, call.output.shape)
    following.set([tensor for tensor in tensors_in(call.result) if tensor.shape == call.output.shape], tracks, makers)


LINEAR = ("mul", "div", "neg", "clone", "_to_copy", "add", "sub", "dropout", "native_dropout", "alias")
"""Element-wise operations of which the result can be a linear function of the weights of their inputs."""


def linear_in(following: Following, call: Call) -> torch.Tensor | None:
    """Of which weights the result of an operation is a linear function, if its inputs are; None if of none."""
    found = [following.storages.linear_in(tensor) for tensor in call.inputs]
    known = [makers for makers in found if makers is not None]
    if call.name in ("add", "sub"):  # a bias is scaled with its weight
        biases = [isinstance(tensor, torch.nn.Parameter) and tensor.dim() == 1 for tensor in call.inputs]
        if len(known) + sum(biases) < len(found) or any(not torch.equal(makers, known[0]) for makers in known):
            return None
    elif len(known) > 1:
        return None
    return known[0] if known else None


@register_rule("copy")
def copy(following: Following, call: Call) -> None:
    """The target takes the labels of the source."""
    target, source = call.inputs[:2]
    tracks = following.get(source)
    following.set(target, [t.reshape([1] * (target.dim() - t.dim()) + list(t.shape)) for t in tracks])


@register_rule("mm", "bmm")
def matrix_product(following: Following, call: Call) -> None:
    """``[..., m, k] @ [..., k, n]``."""
    storages = following.storages
    makers = [storages.makers(tensor) for tensor in call.inputs]
    of_weight = any(storage_key(tensor) in storages.parameters for tensor in call.inputs)
    tracks = following.contract(*call.inputs)
    known = [labels for labels in makers if labels is not None]
    if len(known) == 2:
        following.products.append((known[0], known[1]))
    following.set(call.result, tracks, OF_TRACKS if of_weight or not known else known[0])


@register_rule("addmm", "baddbmm", "addbmm")
def matrix_product_with_bias(following: Following, call: Call) -> None:
    """A matrix product with a summand."""
    bias, one, other = call.inputs
    tracks = following.contract(one, other)
    tracks = following.combine(call.output, tracks, bias, following.get(bias), call.output.shape)
    following.set(call.result, tracks, OF_TRACKS)


@register_rule("dot", "vdot", "mv")
def vector_product(following: Following, call: Call) -> None:
    """``[m, k] @ [k]`` and ``[k] @ [k]``."""
    one, other = call.inputs
    lines = [t for t in following.get(one) if t.shape[-1] > 1]
    rest = [t.squeeze(-1) for t in following.get(one) if t.shape[-1] == 1]
    if one.shape[-1] > 1:
        if one.dim() == 2:
            lines = [following.classes.unite_along(t, 0).squeeze(0) for t in lines]
        following.unite_sides(lines, following.get(other))
    if lines and one.dim() == 1:  # as a spectral norm, by which weights are divided
        following.averages.add("dot product")
    following.set(call.result, rest)


@register_rule("_cdist_forward", "_euclidean_dist", "cdist")
def distances(following: Following, call: Call) -> None:
    """Distances of all rows of ``[..., m, k]`` from all rows of ``[..., n, k]``: channels of both go together."""
    one, other = call.inputs
    following.set(call.result, following.contract(one, other.mT))


@register_rule(
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
    *("_batch_norm_with_update", "miopen_batch_norm", "batch_norm", "native_group_norm"),
)
def norm_of_channels(following: Following, call: Call) -> None:
    """Batch, instance and group norm: weights and statistics are combined with the channels."""
    x, column = call.inputs[0], (-1, *[1] * (call.inputs[0].dim() - 2))
    tracks = following.get(x)
    if call.name == "native_group_norm":
        groups = call.args[6]
        for track in tracks:
            flat = track.movedim(1, 0).reshape(track.shape[1], -1)
            if flat.shape[0] > 1 and groups < flat.shape[0]:  # else its groups are as many as its channels
                following.averages.add("group norm")
                following.equal(following.classes.unite_along(flat, 1).reshape(groups, -1))
    elif call.named.get("training") and any(set(_varying_of(track)) - {1} for track in tracks):
        following.averages.add("batch norm")  # of weights, to standardize them
    for tensor in call.inputs[1:]:
        tensor_tracks = [t.reshape(column) for t in following.get(tensor)]
        tracks = following.combine(x, tracks, tensor.reshape(column), tensor_tracks, x.shape)
    following.set(call.output, tracks)


@register_rule("native_layer_norm", "_fused_rms_norm", "_fused_rms_norm_backward")
def norm_of_last(following: Following, call: Call) -> None:
    """Norms over the last dimensions."""
    x, last = call.inputs[0], len(call.args[1])
    tracks = following.get(x)
    if any(dim >= x.dim() - last for track in tracks for dim in _varying_of(track)):
        following.averages.add("layer norm")
    makers = None
    for tensor in call.inputs[1:]:
        of_tensor = following.get(tensor)
        makers = of_tensor[0].reshape(-1) if of_tensor and makers is None else makers
        tracks = following.combine(x, tracks, tensor, of_tensor, x.shape)
    following.set(call.output, tracks, makers)


@register_rule("_weight_norm_interface")
def weight_norm(following: Following, call: Call) -> None:
    """Weights from a direction and a length."""
    direction, length = call.inputs
    tracks = following.combine(direction, following.get(direction), length, following.get(length), direction.shape)
    following.averages.add("weight norm")
    following.set(call.output, tracks)


@register_rule("embedding")
def embedding(following: Following, call: Call) -> None:
    """Rows of a table: the rows stay, the columns pass on."""
    tracks: Tracks = []
    for track in following.get(call.args[0]):
        if track.shape[0] > 1:
            following.freeze(track, "it is a row of a table that is looked up")
        else:
            tracks.append(track.reshape([1] * (call.output.dim() - 1) + [-1]))
    following.set(call.output, tracks)


@register_rule("glu")
def gated(following: Following, call: Call) -> None:
    """One half of the channels times the other half."""
    halves = call.inputs[0].chunk(2, call.args[1])
    following.set(call.output, following.elementwise(halves, call.output.shape))


@register_rule(
    *(
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_empty_strided",
        "_local_scalar_dense",
        "bernoulli_",
        "equal",
    ),
    *("is_nonzero", "_assert_async", "nonzero", "_assert_tensor_metadata", "arange", "linspace", "randperm", "rand"),
    *("randn", "randint", "bucketize", "searchsorted", "unique_dim", "_unique2", "isfinite", "item"),
)
def unlabelled(following: Following, call: Call) -> None:
    """New tensors that hold nothing of the inputs, and numbers read from them."""


def _varying_of(track: torch.Tensor) -> list[int]:
    return [dim for dim, size in enumerate(track.shape) if size > 1]
