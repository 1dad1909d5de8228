"""segmentation-models-pytorch: its decoders on residual, depthwise and transformer encoders, as far as they combine."""

from __future__ import annotations

from ..network import Network, calling

DECODERS = {
    "Unet": "resnet18 mobilenet_v2 timm-efficientnet-b0 mit_b0",
    "UnetPlusPlus": "resnet18 mobilenet_v2",
    "FPN": "resnet18 mobilenet_v2 mit_b0",
    "DeepLabV3": "resnet18 timm-efficientnet-b0",
    "DeepLabV3Plus": "resnet18 mobilenet_v2",
    "MAnet": "resnet18 mobilenet_v2 mit_b0",
    "PAN": "resnet18 mobilenet_v2",
    "Linknet": "resnet18 mobilenet_v2",
    "PSPNet": "resnet18 mobilenet_v2 mit_b0",
    "UPerNet": "resnet18 mobilenet_v2 mit_b0",
    "Segformer": "resnet18 mobilenet_v2 mit_b0",
}
"""Names of encoders, by decoder."""


def _network(decoder: str, encoder: str, size: int, **arguments: object) -> Network:
    make = calling(f"segmentation_models_pytorch:{decoder}", encoder, encoder_weights=None, classes=2, **arguments)
    return Network("segmentation_models_pytorch", f"{decoder} {encoder}", make, (3, size, size))


NETWORKS = [
    *[
        _network(decoder, encoder, 128 if decoder == "PAN" else 64)
        for decoder, encoders in DECODERS.items()
        for encoder in encoders.split()
    ],
    _network("DPT", "tu-vit_tiny_patch16_224", 64, dynamic_img_size=True),
    _network("Unet", "tu-convnext_atto", 64, encoder_depth=4, decoder_channels=(128, 64, 32, 16)),
]
