"""What a family of vision transformers implements, so that its models can be scaled."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch.nn as nn

from .sizes import TokenSizes


class Dimensions(NamedTuple):
    """The dimensions of a vision transformer with equal blocks."""

    hidden: int
    """Channels of a token."""
    mlp: int
    """Hidden units in the MLP of a block."""
    depth: int
    """Number of blocks."""
    heads: int
    """Attention heads of a block."""


class ViTFamily:
    """How one family of vision transformers is recognised, measured and resized. Subclass it, and register the class.

    `recognizes`, `token_sizes` and `resize` are required. Undoing needs no method: `scale_vit` records every parameter,
    buffer, module and attribute that `resize` replaces. `dimensions` and `rebuild` let `scale_model` build smaller
    networks of the family.

    The models are typed `Any`, because a family reads attributes that only its own library knows.

    Example:
        >>> @register_vit_family
        ... class MyFamily(ViTFamily):
        ...     name = "my ViT"
        ...     def recognizes(self, model): return isinstance(model, MyViT)
        ...     def token_sizes(self, model): return TokenSizes(model.image_size, model.grid, model.patch_size)
        ...     def resize(self, model, sizes): ...
    """

    name: ClassVar[str]
    """What the family is called in messages; unique in the registry."""

    def recognizes(self, model: nn.Module) -> bool:
        """Whether a model belongs to the family. This must not fail, or import a library, for any other model."""
        raise NotImplementedError

    def token_sizes(self, model: Any) -> TokenSizes:
        """The image size, the grid and the patch size at which a model of the family works now."""
        raise NotImplementedError

    def patch_can_change(self, model: Any) -> bool:
        """Whether `resize` can change the patch size of a model; by default it can."""
        return True

    def resize(self, model: Any, sizes: TokenSizes) -> None:
        """Change a model to other sizes, in place.

        Assign new parameters and attributes; do not write into existing tensors, because that could not be undone.
        `resampling` has functions for position and patch embeddings.

        Args:
            model: a model of the family. It has its original weights, even if it was scaled before.
            sizes: they fit each other, and differ from those of now.
        """
        raise NotImplementedError

    def dimensions(self, model: Any) -> Dimensions:
        """The dimensions of a model.

        Raises:
            TypeError: models of the family have no such dimensions.
        """
        raise TypeError(f"the family {self.name!r} has no blocks of equal dimensions")

    def rebuild(self, model: Any, dimensions: Dimensions) -> nn.Module:
        """Build a new network with other dimensions, all else like ``model``, at its image and patch size of now.

        It is initialised as its library does it, on the current default device.

        Raises:
            TypeError: models of the family cannot be built with other dimensions.
        """
        raise TypeError(f"the family {self.name!r} cannot be built with other dimensions")
