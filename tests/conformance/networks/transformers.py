"""transformers: vision backbones, segmentation, depth and super-resolution, from small configurations.

A line is a name, the class of the network, the class of its configuration, and arguments of the configuration.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from torch import nn

from ..network import Network


def _make(model: str, configuration: str, arguments: dict[str, Any]) -> nn.Module:
    transformers = importlib.import_module("transformers")
    nested = {
        key: getattr(transformers, value.pop("configuration"))(**value)
        for key, value in ((key, dict(value)) for key, value in arguments.items() if isinstance(value, dict))
        if "configuration" in value
    }
    return getattr(transformers, model)(getattr(transformers, configuration)(**{**arguments, **nested}))


def _line(name: str, model: str, configuration: str, example: Any = (3, 64, 64), **arguments: Any) -> Network:
    if isinstance(example, tuple):
        example = {"pixel_values": example}
    return Network("transformers", name, partial(_make, model, configuration, arguments), example)


VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
DINO = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 56, "patch_size": 14}
SWIN = {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
# fmt: off
NETWORKS = [
    _line("ViT", "ViTForImageClassification", "ViTConfig", (3, 32, 32), **VIT),
    _line("DeiT", "DeiTForImageClassification", "DeiTConfig", (3, 32, 32), **VIT),
    _line("BEiT", "BeitForImageClassification", "BeitConfig", (3, 32, 32), **VIT),
    _line("Data2VecVision", "Data2VecVisionForImageClassification", "Data2VecVisionConfig", (3, 32, 32), **VIT),
    _line("YOLOS", "YolosForObjectDetection", "YolosConfig", (3, 32, 32),
          **{**VIT, "image_size": [32, 32], "num_detection_tokens": 5}),
    _line("ViT MSN", "ViTMSNForImageClassification", "ViTMSNConfig", (3, 32, 32), **VIT),
    _line("CLIP vision", "CLIPVisionModelWithProjection", "CLIPVisionConfig", (3, 32, 32), projection_dim=16, **VIT),
    _line("SigLIP vision", "SiglipVisionModel", "SiglipVisionConfig", (3, 32, 32), **VIT),
    _line("DINOv2", "Dinov2ForImageClassification", "Dinov2Config", (3, 56, 56), **DINO),
    _line("DINOv2 SwiGLU", "Dinov2ForImageClassification", "Dinov2Config", (3, 56, 56), use_swiglu_ffn=True, **DINO),
    _line("DINOv2 registers", "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", (3, 56, 56),
          **DINO),
    _line("DINOv3", "DINOv3ViTModel", "DINOv3ViTConfig", (3, 32, 32), num_register_tokens=2, **VIT),
    _line("I-JEPA", "IJepaForImageClassification", "IJepaConfig", (3, 32, 32), **VIT),
    _line("Swin", "SwinForImageClassification", "SwinConfig", **SWIN),
    _line("Swin V2", "Swinv2ForImageClassification", "Swinv2Config", **SWIN),
    _line("Swin2SR", "Swin2SRForImageSuperResolution", "Swin2SRConfig", (3, 32, 32), image_size=32, embed_dim=24,
          depths=[2], num_heads=[2], window_size=8, upscale=2),
    _line("SegFormer", "SegformerForSemanticSegmentation", "SegformerConfig", depths=[1, 1, 1, 1],
          hidden_sizes=[8, 16, 32, 64], decoder_hidden_size=32),
    _line("PVT", "PvtForImageClassification", "PvtConfig", image_size=64, depths=[1, 1, 1, 1],
          hidden_sizes=[8, 16, 40, 64]),
    _line("PVT V2", "PvtV2ForImageClassification", "PvtV2Config", image_size=64, depths=[1, 1, 1, 1],
          hidden_sizes=[8, 16, 40, 64]),
    _line("GLPN", "GLPNForDepthEstimation", "GLPNConfig", depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 8],
          hidden_sizes=[8, 16, 32, 64], decoder_hidden_size=16),
    _line("ConvNeXt", "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16, 24, 32],
          depths=[1, 1, 2, 1]),
    _line("ConvNeXt V2", "ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[8, 16, 24, 32],
          depths=[1, 1, 2, 1]),
    _line("ResNet", "ResNetForImageClassification", "ResNetConfig", embedding_size=16, hidden_sizes=[16, 32, 48, 64],
          depths=[1, 1, 1, 1]),
    _line("RegNet", "RegNetForImageClassification", "RegNetConfig", embedding_size=8, hidden_sizes=[16, 32, 48, 64],
          depths=[1, 1, 1, 1], groups_width=8),
    _line("MobileNetV1", "MobileNetV1ForImageClassification", "MobileNetV1Config", depth_multiplier=0.25),
    _line("MobileNetV2", "MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", depth_multiplier=0.35),
    _line("EfficientNet", "EfficientNetForImageClassification", "EfficientNetConfig", width_coefficient=0.5,
          depth_coefficient=0.5, hidden_dim=640),
    _line("MobileViT", "MobileViTForSemanticSegmentation", "MobileViTConfig", hidden_sizes=[16, 24, 32],
          neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64]),
    _line("MobileViT V2", "MobileViTV2ForImageClassification", "MobileViTV2Config", width_multiplier=0.5),
    _line("LeViT", "LevitForImageClassification", "LevitConfig", image_size=64, hidden_sizes=[16, 32, 48],
          num_attention_heads=[2, 4, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    _line("PoolFormer", "PoolFormerForImageClassification", "PoolFormerConfig", hidden_sizes=[8, 16, 24, 32],
          depths=[1, 1, 1, 1]),
    _line("FocalNet", "FocalNetForImageClassification", "FocalNetConfig", image_size=64, embed_dim=16,
          depths=[1, 1, 1, 1] ),
    _line("Hiera", "HieraForImageClassification", "HieraConfig", image_size=[64, 64], embed_dim=16, depths=[1, 1, 2, 1],
          num_heads=[1, 2, 4, 8]),
    _line("SwiftFormer", "SwiftFormerForImageClassification", "SwiftFormerConfig", embed_dims=[16, 24, 32, 48],
          depths=[1, 1, 1, 1]),
    _line("CvT", "CvtForImageClassification", "CvtConfig", embed_dim=[16, 32, 48], num_heads=[1, 2, 4],
          depth=[1, 2, 3] ),
    _line("BiT", "BitForImageClassification", "BitConfig", embedding_size=16, hidden_sizes=[32, 64, 96, 128],
          depths=[1, 1, 1, 1], num_groups=8),
    _line("DPT", "DPTForDepthEstimation", "DPTConfig", (3, 32, 32), **{**VIT, "num_hidden_layers": 4},
          backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16, is_hybrid=False),
    _line("DPT segmentation", "DPTForSemanticSegmentation", "DPTConfig", (3, 32, 32), **{**VIT, "num_hidden_layers": 4},
          backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16, is_hybrid=False,
          use_auxiliary_head=False),
    _line("Depth Anything", "DepthAnythingForDepthEstimation", "DepthAnythingConfig", (3, 56, 56),
          depth_estimation_type="metric", max_depth=10, patch_size=14, reassemble_hidden_size=32,
          neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16, head_hidden_size=8,
             backbone_config={"configuration": "Dinov2Config", "out_indices": [1, 2, 3, 4],
             "reshape_hidden_states": False, **DINO}),
    _line("UperNet Swin", "UperNetForSemanticSegmentation", "UperNetConfig", hidden_size=32, use_auxiliary_head=False,
             backbone_config={"configuration": "SwinConfig", "out_indices": [1, 2, 3, 4], **SWIN, "depths": [1, 1, 1,
             1], "num_heads": [2, 2, 4, 4]}),
    _line("UperNet ConvNeXt", "UperNetForSemanticSegmentation", "UperNetConfig", hidden_size=32,
          use_auxiliary_head=False, backbone_config={"configuration": "ConvNextConfig", "out_indices": [1, 2, 3, 4],
             "hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4}),
    _line("Mask2Former Swin", "Mask2FormerForUniversalSegmentation", "Mask2FormerConfig", feature_size=32,
          mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2,
          num_attention_heads=2, dim_feedforward=32, num_queries=5, backbone_config={"configuration": "SwinConfig",
             "out_indices": [1, 2, 3, 4], **SWIN, "depths": [1] * 4, "num_heads": [2, 2, 4, 4]}),
    _line("MaskFormer Swin", "MaskFormerForInstanceSegmentation", "MaskFormerConfig", fpn_feature_size=32,
          mask_feature_size=32, backbone_config={"configuration": "SwinConfig", "out_indices": [1, 2, 3, 4], **SWIN,
             "depths": [1] * 4, "num_heads": [2, 2, 4, 4]}, decoder_config={"configuration": "DetrConfig",
             "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 5}),
    _line("DETR", "DetrForObjectDetection", "DetrConfig", d_model=16, encoder_layers=1, decoder_layers=1,
          encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5,
          use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
             backbone_config={"configuration": "ResNetConfig", "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64],
             "depths": [1] * 4, "out_features": ["stage4"]}),
    _line("SAM vision encoder", "SamVisionModel", "SamVisionConfig", (3, 64, 64), hidden_size=32, output_channels=16,
          num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8, window_size=4,
          global_attn_indexes=[1], num_pos_feats=8, mlp_dim=64),
    _line("VitMatte", "VitMatteForImageMatting", "VitMatteConfig", (4, 64, 64), hidden_size=32,
          fusion_hidden_sizes=[32, 16, 8, 8], convstream_hidden_sizes=[8, 12, 16],
             backbone_config={"configuration": "VitDetConfig", "hidden_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 4, "image_size": 64, "num_channels": 4, "patch_size": 16,
             "out_features": ["stage2"]}),
]
# fmt: on
