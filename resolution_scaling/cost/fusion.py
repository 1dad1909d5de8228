"""The fused view: the operator before norms and activations computes them too, as compilers and accelerators do."""

from __future__ import annotations

from dataclasses import replace

from .tracing import Operator, Trace


def fused(trace: Trace) -> Trace:
    """Fold each norm and element-wise operator into the operator that wrote its input.

    An operator folds if it reads one whole activation that no later operator reads, and writes one of the same size:
    then it needs no memory of its own. Additions of two branches do not fold, nor do norms at the start of a residual
    branch. Activations are freed after their last use, even if the Python code of a network holds them longer. The
    amount of arithmetic stays the same; it is attributed to the operator that does it now.
    """
    last_read = {number: index for index, operator in enumerate(trace.operators) for number in operator.inputs}
    held = trace.inputs | trace.outputs
    place: dict[int, int] = {}  # for each activation, the one in whose memory it is written
    maker: dict[int, int] = {}  # for each activation, the index of the operator that wrote it last
    operators: list[Operator] = []
    for index, operator in enumerate(trace.operators):
        source = _folded_source(operator, trace.sizes)
        if source is not None and source not in operator.outputs and (last_read[source] != index or source in held):
            source = None  # a later operator or the caller reads it
        operator = _moved(operator, place)
        source = None if source is None else place.get(source, source)
        if source in maker:
            before = operators[maker[source]]
            operators[maker[source]] = replace(
                before, elementwise_flops=_sum(before.elementwise_flops, operator.elementwise_flops)
            )
            place |= dict.fromkeys(trace.operators[index].outputs, source)
        else:
            maker |= dict.fromkeys(operator.outputs, len(operators))
            operators.append(operator)
    inputs, outputs = (
        frozenset(place.get(number, number) for number in ends) for ends in (trace.inputs, trace.outputs)
    )
    peak_bytes, peak_operator = _peak(operators, trace.sizes, inputs, outputs)
    return replace(
        trace,
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        peak_bytes=peak_bytes,
        peak_operator=peak_operator,
    )


def _folded_source(operator: Operator, sizes: dict[int, int]) -> int | None:
    """The one activation that an operator reads, if it writes one of the same size; else None."""
    if not operator.folds or len(operator.inputs) != 1 or len(operator.outputs) != 1:
        return None
    (source,), (result,) = operator.inputs, operator.outputs
    whole = operator.touched[source] == sizes[source] == operator.touched[result] == sizes[result]
    return source if whole else None


def _moved(operator: Operator, place: dict[int, int]) -> Operator:
    touched: dict[int, int] = {}
    for number, size in operator.touched.items():
        number = place.get(number, number)
        touched[number] = max(size, touched.get(number, 0))
    inputs, outputs = (frozenset(place.get(n, n) for n in numbers) for numbers in (operator.inputs, operator.outputs))
    return replace(operator, inputs=inputs, outputs=outputs, touched=touched)


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _peak(
    operators: list[Operator], sizes: dict[int, int], inputs: frozenset[int], outputs: frozenset[int]
) -> tuple[int, int]:
    """Largest sum of bytes of activations that exist at one time, and the index of the operator that runs then.

    An activation exists from the first to the last operator that touches it.
    """
    first = {number: index for index, operator in reversed([*enumerate(operators)]) for number in operator.touched}
    last = {number: index for index, operator in enumerate(operators) for number in operator.touched}
    first |= dict.fromkeys(inputs, 0)
    last |= dict.fromkeys(inputs | outputs, len(operators))
    change = [0] * (len(operators) + 1)
    for number, start in first.items():
        change[start] += sizes[number]
        if last[number] < len(operators):
            change[last[number] + 1] -= sizes[number]
    live = peak = where = 0
    for index, difference in enumerate(change):
        live += difference
        if live > peak:
            peak, where = live, index
    return peak, where
