"""Layers of which the operations are not followed, or not only."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
import torch.nn as nn

from .following import Following, tensors_in
from .notes import Attribute, Factor, Relation, Terms
from .parameters import Axes, has_storage
from .sizes import Sizes

WHOLE = (nn.RNNBase, nn.RNNCellBase, nn.EmbeddingBag, nn.Bilinear)
"""Layers whose channels are all left alone."""


class OpaqueLayer:
    """A layer that the user describes: its operations are not followed.

    Its labels are axes of their own, ``"<name>.in"`` and ``"<name>.out"``.
    """

    def __init__(self, following: Following, axes: Axes, name: str, same: bool):
        self.following, self.axes, self.name, self.same = following, axes, name, same
        self._inputs: list[torch.Tensor] = []

    def before(self, module: nn.Module, args: Any) -> Any:
        """Take the labels of the input, and give the layer one without labels."""
        x = tensors_in(args)[0]
        self._inputs = self._of_channels(x, self.following.get(x), "in")
        with torch.utils._python_dispatch._disable_current_modes():
            bare = x.clone()
        return tuple(bare if value is x else value for value in args)

    def after(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Label the output."""
        with torch.utils._python_dispatch._disable_current_modes():
            output = output.clone()
        if self.same:
            tracks = self._inputs
            if tracks:
                self.axes[f"{self.name}.out", 0] = self.axes[f"{self.name}.in", 0]
        else:
            labels = self.axes.get((f"{self.name}.out", 0))
            if labels is None:
                labels = self.following.classes.new(output.shape[1])
                self.axes[f"{self.name}.out", 0] = labels
            tracks = [labels.reshape([-1 if dim == 1 else 1 for dim in range(output.dim())])]
        self.following.set(output, tracks)
        return output

    def _of_channels(self, x: torch.Tensor, tracks: list[torch.Tensor], side: str) -> list[torch.Tensor]:
        key = (f"{self.name}.{side}", 0)
        if key not in self.axes:
            self.axes[key] = self.following.classes.new(x.shape[1])
        column = self.axes[key].reshape([-1 if dim == 1 else 1 for dim in range(x.dim())])
        if not tracks:
            self.following.freeze(column, "it meets channels that no layer makes")
        for track in tracks:
            self.following.classes.unite(track, column)
        return [self.following.classes.of(column)]


class WholeLayer:
    """A layer whose channels are left alone: recurrent cells."""

    def __init__(self, following: Following, axes: Axes, name: str):
        self.following, self.axes, self.name = following, axes, name

    def before(self, module: nn.Module, args: Any) -> None:
        """Freeze its weights and what it reads."""
        why = f"{type(module).__name__} is left whole"
        for key, labels in self.axes.items():
            if key[0].startswith(f"{self.name}."):
                self.following.classes.freeze(labels, why)
        for tensor in tensors_in(args):
            for track in self.following.get(tensor) if has_storage(tensor) else ():
                self.following.classes.freeze(track, why)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Its outputs have no labels."""
        for tensor in tensors_in(output):
            if has_storage(tensor):
                self.following.set(tensor, [])


class AttentionLayer:
    """``nn.MultiheadAttention``: its operations are followed, but the sizes in PyTorch's own code cannot be seen.

    All heads keep equally many channels, queries, keys and values together as many as the layer reads, and the queries
    are divided by the root of the size of a head.
    """

    def __init__(self, sizes: Sizes, axes: Axes, name: str):
        self.sizes, self.axes, self.name = sizes, axes, name

    def after(self, module: nn.MultiheadAttention, *_: Any) -> None:
        """Note what the code demands, once."""
        heads = module.num_heads
        separate = [f"{letter}_proj_weight" for letter in "qkv"]
        names = ["in_proj_weight"] if module.in_proj_weight is not None else separate
        made = [self.axes.get((self._key(name), 0)) for name in names]
        if any(labels is None for labels in made):
            return
        rows = torch.cat([labels for labels in made if labels is not None]).reshape(3 * heads, -1)
        self.sizes.following.equal(rows)
        for attribute, labels in (
            ("head_dim", rows[0]),
            ("embed_dim", rows[:heads].flatten()),
            ("embed_dim", self.axes.get((self._key(names[0]), 1))),
            ("kdim", self.axes.get((self._key(names[len(names) // 2]), 1))),
            ("vdim", self.axes.get((self._key(names[-1]), 1))),
        ):
            known = Attribute(self.name, attribute)
            self.sizes.numbers.values[known] = getattr(module, attribute)
            if labels is not None:
                self.sizes.relations.append(Relation(labels, {(known,): Fraction(1)}))
        head_dim: Terms = {(Attribute(self.name, "head_dim"),): Fraction(1)}
        queries = rows[:heads].flatten()
        self.sizes.factors.append(Factor(queries, [queries], [], head_dim, -0.5, self.name))

    def _key(self, name: str) -> str:
        return f"{self.name}.{name}" if self.name else name
