"""One forward pass without arithmetic: every operator that runs, its cost, and the memory that it touches."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..ground.calls import Forward, call_model, tensors_in
from ..ground.meta import fake_copy, meta_copy, on_meta
from .operators import STAND_INS, folds, is_counted_whole, is_creation, operator_cost, visible_outputs


@dataclass(frozen=True)
class Operator:
    """One call of an operator in the forward pass.

    Attributes:
        name: its name in PyTorch's dispatcher, such as ``"convolution"``, ``"addmm"``, ``"add_"``.
        modules: names of the modules in which it runs, outermost first.
        macs: multiply-accumulates of a convolution or matrix product.
        elementwise_flops: all other arithmetic, roughly; None if the arithmetic of the operator is not known.
        inputs, outputs: the activations that it reads and writes, by their numbers in the trace, without weights and
            constants.
        touched: bytes that are read or written, for each of these activations. An activation that is both input and
            output, such as the ``x`` of ``x += y``, counts once.
        folds: whether compilers fold it into the operator before it, because it is a norm or element-wise.
    """

    name: str
    modules: tuple[str, ...]
    macs: int
    elementwise_flops: int | None
    inputs: frozenset[int]
    outputs: frozenset[int]
    touched: dict[int, int]
    folds: bool

    @property
    def bytes(self) -> int:
        """Bytes of activations that are read and written."""
        return sum(self.touched.values())

    @property
    def flops(self) -> int:
        """2 x `macs`."""
        return 2 * self.macs


@dataclass(frozen=True)
class Trace:
    """The operators of one forward pass.

    Attributes:
        operators: all operators in the order in which they run, without those that only give a view of memory.
        sizes: bytes of each activation, by its number.
        inputs, outputs: the activations that the caller holds before the pass, and after it.
        peak_bytes: the largest sum of activations that exist at one time, inputs included, as Python and PyTorch free
            them.
        peak_operator: index of the operator that runs at the peak.
        where: ``"meta"``, or ``"fake"`` if the network could not run on the meta device.
    """

    operators: list[Operator]
    sizes: dict[int, int]
    inputs: frozenset[int]
    outputs: frozenset[int]
    peak_bytes: int
    peak_operator: int
    where: str


def trace(model: nn.Module, inputs: Any, forward: Forward = call_model, dtype: torch.dtype | None = None) -> Trace:
    """Run a copy of the network without weights once, in evaluation mode, and record every operator.

    Args:
        model: the network, on any device; it is neither run, moved nor changed.
        inputs: example inputs, of which only the shapes matter; they may be on the meta device.
        forward: ``(model, inputs)`` -> outputs.
        dtype: dtype of weights and floating-point inputs; None keeps that of each.

    Raises:
        ValueError: the network runs neither on the meta device nor on fake tensors.
    """
    try:
        return _trace_on_meta(model, inputs, forward, dtype)
    except Exception as on_meta_error:
        try:
            return _trace_fake(model, inputs, forward, dtype)
        except Exception as on_fake_error:
            raise ValueError(_refusal(model, on_meta_error, on_fake_error)) from on_meta_error


def _refusal(model: nn.Module, on_meta_error: Exception, on_fake_error: Exception) -> str:
    on_meta, on_fake = (
        f"{(str(error).splitlines() or ['no message'])[0]} ({type(error).__name__})"
        for error in (on_meta_error, on_fake_error)
    )
    return (
        f"{type(model).__name__} cannot run on the meta device, where costs are counted from shapes alone: {on_meta}; "
        f"nor on fake tensors: {on_fake}. Inputs must have the shape (with the batch) and the dtype that it takes, and "
        "its forward must not look at the values of tensors: if it does, profile the part that does not, with "
        "forward=lambda model, inputs: ..."
    )


def _trace_on_meta(model: nn.Module, inputs: Any, forward: Forward, dtype: torch.dtype | None) -> Trace:
    model, inputs = meta_copy(model, inputs, dtype=dtype)
    with on_meta():
        return _run(model, inputs, forward, "meta")


def _trace_fake(model: nn.Module, inputs: Any, forward: Forward, dtype: torch.dtype | None) -> Trace:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model, inputs = fake_copy(mode, model, inputs, dtype=dtype)
    with mode:
        return _run(model, inputs, forward, "fake")


def _run(model: nn.Module, inputs: Any, forward: Forward, where: str) -> Trace:
    model.eval()
    recorder = _Recorder(model)
    # Only in inference mode do composite operators such as attention reach the recorder whole. Under no_grad alone,
    # attention on these devices is decomposed and writes its [queries, keys] scores.
    with torch.inference_mode(), _no_fast_path(), recorder:
        held = recorder.hold(inputs)
        outputs = forward(model, inputs)
        return Trace(
            operators=recorder.operators,
            sizes=recorder.sizes,
            inputs=held,
            outputs=recorder.numbers(outputs),
            peak_bytes=recorder.peak_bytes,
            peak_operator=recorder.peak_operator,
            where=where,
        )


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Make ``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` run operators that the recorder can see."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class _Recorder(TorchDispatchMode):
    """Records the operators that PyTorch's dispatcher runs.

    Memory is tracked by storages: views cost nothing, and in-place operators create nothing. A storage that no recorded
    operator created is a weight or a constant.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.operators: list[Operator] = []
        self.sizes: dict[int, int] = {}
        self.live_bytes = self.peak_bytes = self.peak_operator = 0
        self._numbers: dict[int, int | None] = {}  # by the storage's address, while it exists; None is a constant
        self._modules: list[str] = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self._modules.append(name))
            module.register_forward_hook(self._leave, always_call=True)

    def _leave(self, *_: Any) -> None:
        self._modules.pop()

    def hold(self, inputs: Any) -> frozenset[int]:
        """Track the inputs, which exist from the start; returns their numbers."""
        return _activations(self._made(tensor) for tensor in tensors_in(inputs))

    def numbers(self, tensors: Any) -> frozenset[int]:
        """The numbers of the activations among these tensors."""
        return _activations(self._met(tensor) for tensor in tensors_in(tensors))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_counted_whole(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        stand_in = STAND_INS.get(func._schema.name)
        result = func(*args, **kwargs) if stand_in is None or _has_data(args[0]) else stand_in(*args, **kwargs)
        if not func.is_view and torch.Tag.inplace_view not in func.tags and (made := tensors_in(result)):
            self._record(func, args, kwargs, made)
        return result

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[torch.Tensor]) -> None:
        read = tensors_in((args, kwargs))
        if all(tensor.device != made[0].device for tensor in read) and read:
            self._follow(made[0], None)  # a constant that is moved to the device of the others
            return
        inputs = {tensor: self._met(tensor) for tensor in read}
        if not func._schema.is_mutable and all(self._is_known(tensor) for tensor in made):
            return  # a view that the operator's schema does not declare
        numbers = {tensor: self._made(tensor) for tensor in made}
        if is_creation(func):
            return
        macs, elementwise_flops = operator_cost(func, args, kwargs, made[0])
        outputs = {tensor: numbers[tensor] for tensor in visible_outputs(func, made)}
        operator = Operator(
            name=func._schema.name.removeprefix("aten::"),
            modules=tuple(self._modules),
            macs=macs,
            elementwise_flops=elementwise_flops,
            inputs=_activations(inputs.values()),
            outputs=_activations(outputs.values()),
            touched=_touched(inputs | outputs),
            folds=folds(func),
        )
        self.operators.append(operator)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._numbers

    def _met(self, tensor: torch.Tensor) -> int | None:
        """The number of the activation that an operator reads; None for a constant."""
        if not self._is_known(tensor):
            self._follow(tensor, None)
        return self._numbers[tensor.untyped_storage()._cdata]

    def _made(self, tensor: torch.Tensor) -> int | None:
        """The number of the activation that an operator writes; a new one unless it writes in place."""
        if not self._is_known(tensor):
            number = len(self.sizes)
            self.sizes[number] = tensor.untyped_storage().nbytes()
            self._follow(tensor, number)
        return self._numbers[tensor.untyped_storage()._cdata]

    def _follow(self, tensor: torch.Tensor, number: int | None) -> None:
        """Track a storage until it is freed."""
        storage = tensor.untyped_storage()
        self._numbers[storage._cdata] = number
        weakref.finalize(storage, self._freed, storage._cdata, number)
        if number is not None:
            self.live_bytes += self.sizes[number]
            if self.live_bytes > self.peak_bytes:
                self.peak_bytes, self.peak_operator = self.live_bytes, len(self.operators)

    def _freed(self, address: int, number: int | None) -> None:
        self._numbers.pop(address, None)
        if number is not None:
            self.live_bytes -= self.sizes[number]


def _activations(numbers: Iterable[int | None]) -> frozenset[int]:
    """The numbers without the constants."""
    return frozenset(number for number in numbers if number is not None)


def _has_data(tensor: torch.Tensor) -> bool:
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def _touched(numbers: dict[torch.Tensor, int | None]) -> dict[int, int]:
    """Bytes of each activation that these tensors view: equal views count once, and no more than its size counts."""
    views: dict[int, dict[Any, int]] = {}
    capacity: dict[int, int] = {}
    for tensor, number in numbers.items():
        if number is not None:
            key = (tensor.storage_offset(), tensor.shape, tensor.stride())
            views.setdefault(number, {})[key] = tensor.numel() * tensor.element_size()
            capacity[number] = tensor.untyped_storage().nbytes()
    return {number: min(sum(shown.values()), capacity[number]) for number, shown in views.items()}
