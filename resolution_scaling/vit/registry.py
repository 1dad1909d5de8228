"""The registry of families of vision transformers; everything that handles them asks it."""

from __future__ import annotations

from typing import TypeVar

import torch.nn as nn

from .families.timm_vit import TimmViT
from .families.torchvision_swin import TorchvisionSwin
from .families.torchvision_vit import TorchvisionViT
from .family import ViTFamily
from .sizes import TokenSizes

VIT_FAMILIES: dict[str, ViTFamily] = {
    family.name: family for family in (TorchvisionViT(), TorchvisionSwin(), TimmViT())
}
"""The families by name. The family that was registered last is asked first."""

FamilyClass = TypeVar("FamilyClass", bound=type[ViTFamily])


def register_vit_family(family: FamilyClass) -> FamilyClass:
    """Add a family of vision transformers to those that can be scaled. Can be used as a decorator.

    `unregister_vit_family` removes the family again.

    Args:
        family: a subclass of `ViTFamily`, which is called without arguments.

    Returns:
        The class.

    Raises:
        TypeError: it is not such a class.
        ValueError: it has no name, or another family has the same name.
    """
    if not (isinstance(family, type) and issubclass(family, ViTFamily)):
        raise TypeError(f"family is {family!r}; expected a subclass of ViTFamily (the class, not an instance)")
    name = getattr(family, "name", "")
    if not name or name in VIT_FAMILIES:
        known = ", ".join(map(repr, VIT_FAMILIES))
        raise ValueError(
            f"name of {family.__name__} is {name!r}; expected a name that no other family has (there are {known}): "
            "rename it, or remove the other one by unregister_vit_family"
        )
    VIT_FAMILIES[name] = family()
    return family


def unregister_vit_family(name: str) -> None:
    """Remove a family from those that can be scaled.

    Raises:
        ValueError: no family has this name.
    """
    if name not in VIT_FAMILIES:
        raise ValueError(f"no family is named {name!r}; known are {', '.join(map(repr, VIT_FAMILIES))}")
    del VIT_FAMILIES[name]


def find_vit_family(model: nn.Module) -> ViTFamily | None:
    """The family of a model; None if no family recognises it."""
    return next((family for family in reversed(VIT_FAMILIES.values()) if family.recognizes(model)), None)


def vit_family(model: nn.Module) -> ViTFamily:
    """The family of a model.

    Raises:
        TypeError: no family recognises it.
    """
    family = find_vit_family(model)
    if family is None:
        raise TypeError(
            f"{type(model).__name__} is not a vision transformer of a known family ({', '.join(VIT_FAMILIES)}). Pass "
            "the transformer itself, not a module around it. Other models of timm are built at another size by "
            "timm.create_model(..., img_size=...); register_vit_family adds a family"
        )
    return family


def is_vit(model: nn.Module) -> bool:
    """Whether a model is a vision transformer that `scale_vit` can scale."""
    return find_vit_family(model) is not None


def token_sizes(model: nn.Module) -> TokenSizes:
    """The image size, the grid and the patch size at which a vision transformer works now.

    Raises:
        TypeError: the model is not a vision transformer of a known family.
    """
    return vit_family(model).token_sizes(model)
