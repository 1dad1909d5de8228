"""Smaller networks on which a check still fails."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from .network import Network


def on_smallest(check: Callable[..., None], net: Network, *args: Any) -> None:
    """Run a check; if it fails, run it on ever smaller networks as long as it does.

    Raises:
        AssertionError: with the smallest network that fails, and why.
    """
    error = _error(check, net, *args)
    while error is not None:
        last = error
        for candidate in smaller(net):
            error = _error(check, candidate, *args)
            if error is not None:
                net = candidate
                break
        else:
            raise AssertionError(f"{net}\n{type(last).__name__}: {last}") from last


def _error(check: Callable[..., None], *args: Any) -> Exception | None:
    try:
        check(*args)
    except Exception as error:
        return error
    return None


def smaller(net: Network) -> Iterator[Network]:
    """The network without one of its outputs, without an input, or without one of its steps."""
    outputs = [[name for name in net.outputs if name != left_out] for left_out in net.outputs]
    for names in [*outputs, *([name] for name in net.outputs)]:
        if names and names != net.outputs:
            yield living(copy.deepcopy(net), names)
    everything = living(copy.deepcopy(net), net.outputs)
    if len(everything.steps) < len(net.steps):
        yield everything
    shapes = {name: labels.shape for name, labels in net.follow()[1].items()}
    for step in net.steps:
        for source in step.sources:
            if shapes[source] == shapes[step.target]:
                shorter = copy.deepcopy(net)
                shorter.steps = [other for other in shorter.steps if other.target != step.target]
                for other in shorter.steps:
                    other.sources = tuple(source if name == step.target else name for name in other.sources)
                yield living(shorter, [source if name == step.target else name for name in shorter.outputs])


def living(net: Network, outputs: list[str]) -> Network:
    """Only what the given outputs need: steps, and their layers. Inputs stay."""
    net.outputs, needed, steps = list(dict.fromkeys(outputs)), set(outputs), []
    for step in reversed(net.steps):
        if step.target in needed:
            steps.append(step)
            needed |= set(step.sources)
    used = {name for step in steps for name in step.operation.needs()}
    for name in [*dict(net.named_children()), *net._parameters]:
        if name not in used:
            delattr(net, name)
    net.steps = steps[::-1]
    return net
