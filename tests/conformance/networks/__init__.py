"""The networks, one file a library."""

from __future__ import annotations

from ..network import Network
from . import (
    diffusers,
    monai,
    segmentation_models,
    spandrel,
    timm_convolutional,
    timm_tokens,
    torchvision,
    transformers,
)

FAMILIES = (torchvision, timm_convolutional, timm_tokens, segmentation_models, spandrel, monai, transformers, diffusers)

NETWORKS: dict[str, Network] = {str(network): network for family in FAMILIES for network in family.NETWORKS}
