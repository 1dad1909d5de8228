"""The filters of a layer that are kept, in the forms in which a user can give them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn as nn

from ..record.pruning_record import PruningRecord

Kept = PruningRecord | Mapping[str, torch.Tensor] | float
"""The record of a pruning; indices by layer, as `PruningRecord.kept_out`; or the fraction of Algorithm 1."""


def fraction_of(kept: Kept) -> float | None:
    """The fraction of Algorithm 1, if ``kept`` is one; else None.

    Raises:
        ValueError: it is a number outside 0..1.
    """
    if not isinstance(kept, (int, float)) or isinstance(kept, bool):
        return None
    if not 0 <= kept <= 1:
        raise ValueError(f"kept is {kept!r}; expected a fraction of the filters in 0..1, or a PruningRecord")
    return kept


def kept_mask(kept: Kept, layer: str, filters: int, model: nn.Module) -> torch.Tensor:
    """What a record, or its indices, keep of a layer: ``[filters]`` bool.

    Args:
        kept: not a fraction.
        layer: name of the layer.
        filters: number of filters that the layer has in the model.
        model: the network as it was before pruning.

    Raises:
        TypeError, ValueError: ``kept`` is of another type, does not have the layer, or does not fit the model.
    """
    before = "model must be the network as it was before pruning: keep copy.deepcopy(model), and pass that"
    if isinstance(kept, PruningRecord):
        had = len(kept.masks()[f"{layer}.out"]) if layer in kept.kept_out else filters
        if had != filters or (kept.model is model and kept.compression != 1):
            raise ValueError(f"model is pruned already ({layer!r} has {filters} of {had} filters); {before}")
        kept = kept.kept_out
    if not isinstance(kept, Mapping):
        raise TypeError(
            f"kept is a {type(kept).__name__}; expected a PruningRecord, a dict of the indices that each layer keeps, "
            "or the fraction of Algorithm 1, as 0.3"
        )
    if layer not in kept:
        raise ValueError(f"kept has no layer {layer!r}; it has {', '.join(map(repr, kept))}")
    indices = torch.as_tensor(kept[layer]).long().cpu()
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < filters:
        raise ValueError(
            f"kept[{layer!r}] holds the index {int(indices.max() if indices.max() >= filters else indices.min())}, "
            f"but the layer has {filters} filters; {before}"
        )
    return torch.zeros(filters, dtype=torch.bool).index_fill_(0, indices, True)
