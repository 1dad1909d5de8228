"""The mode in which places are followed through a forward pass."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from ...graph.labels.following import tensors_in
from ...graph.labels.parameters import has_storage
from ...graph.labels.rules import Call
from ...graph.labels.steps import base_name
from ...graph.labels.storages import storage_key
from ...graph.labels.trace import IN_PLACE_VIEWS, defaults
from .places import Places
from .rules import RULES, copy, same


class Placing(TorchDispatchMode):
    """Applies the rule of each operation that runs."""

    def __init__(self, places: Places):
        super().__init__()
        self._places = places

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, full_name = kwargs or {}, function._schema.name.split("::")[1]
        name = base_name(full_name)
        if name not in RULES and function._can_decompose():
            with self:
                return function.decompose(*args, **kwargs)
        result = function(*args, **kwargs)
        inputs, outputs = tensors_in((args, kwargs)), [t for t in tensors_in(result) if has_storage(t)]
        if not inputs or not outputs or not has_storage(inputs[0]):
            return result
        rule = RULES.get(name, same)
        if all(storage_key(output) == storage_key(inputs[0]) for output in outputs):
            if not full_name.endswith("_") or full_name in IN_PLACE_VIEWS:
                return result  # a view
            rule = copy if name == "copy" else same
        args = (*args, *defaults(function._schema.arguments[len(args) :], kwargs))
        found = rule(self._places, Call(name, args, kwargs, result, function))
        for output in outputs:
            self._places.set(output, found if found is not None and found.dim() == output.dim() else None)
        return result
