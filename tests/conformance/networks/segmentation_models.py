"""segmentation-models-pytorch: its decoders on three encoders, as far as the two combine."""

from __future__ import annotations

from ..network import Network, calling

ENCODERS = ("resnet18", "mobilenet_v2", "timm-efficientnet-b0", "mit_b0")
DECODERS = (
    "Unet",
    "UnetPlusPlus",
    "FPN",
    "DeepLabV3Plus",
    "MAnet",
    "PAN",
    "Linknet",
    "PSPNet",
    "DeepLabV3",
    "UPerNet",
    "Segformer",
)
APART = {
    ("UnetPlusPlus", "mit_b0"),
    ("Linknet", "mit_b0"),
    ("DeepLabV3", "mit_b0"),
    ("DeepLabV3Plus", "mit_b0"),
    ("PAN", "mit_b0"),
}
"""What the library does not combine."""


def _network(decoder: str, encoder: str, size: int, **arguments: object) -> Network:
    make = calling(f"segmentation_models_pytorch:{decoder}", encoder, encoder_weights=None, classes=2, **arguments)
    return Network("segmentation_models_pytorch", f"{decoder} {encoder}", make, (3, size, size))


NETWORKS = [
    *[
        _network(decoder, encoder, 128 if decoder == "PAN" else 64)
        for decoder in DECODERS
        for encoder in ENCODERS
        if (decoder, encoder) not in APART
    ],
    _network("DPT", "tu-vit_tiny_patch16_224", 64, dynamic_img_size=True),
    _network("Unet", "tu-convnext_atto", 64, encoder_depth=4, decoder_channels=(128, 64, 32, 16)),
]
