"""MONAI: segmentation in two and three dimensions, autoencoders, registration and diffusion, small versions.

A line is a name, the class in ``monai.networks.nets``, the shape of the image, and arguments of the class.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from ..network import Network, calling


def _line(name: str, kind: str, example: Any, *args: Any, batch: int = 2, **arguments: Any) -> Network:
    return Network("monai", name, calling(f"monai.networks.nets:{kind}", *args, **arguments), example, batch)


SLICE = (1, 32, 32)
VOLUME = (1, 16, 16, 16)
LARGE_VOLUME = (1, 32, 32, 32)
STEP = torch.tensor([10])
UNET = {"in_channels": 1, "out_channels": 2, "channels": (8, 16, 32), "strides": (2, 2)}
DYN = {
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": [3] * 4,
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2] * 3,
    "filters": [8, 16, 24, 32],
}
LEVELS = {"num_res_blocks": 1, "channels": (16, 32), "attention_levels": (False, True), "norm_num_groups": 4}
TOKENS = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4}


def _dints() -> nn.Module:
    nets = importlib.import_module("monai.networks.nets")
    space = nets.TopologyInstance(channel_mul=0.25, num_blocks=3, num_depths=3, spatial_dims=2)
    return nets.DiNTS(space, 1, 2, spatial_dims=2)


# fmt: off
NETWORKS = [
    # U-Nets
    _line("UNet", "UNet", SLICE, 2, **UNET),
    _line("UNet residual", "UNet", SLICE, 2, num_res_units=2, **UNET),
    _line("UNet residual 3D", "UNet", VOLUME, 3, num_res_units=2, **UNET),
    _line("UNet batch norm 3D", "UNet", VOLUME, 3, num_res_units=2, norm="batch", **UNET),
    _line("BasicUNet", "BasicUNet", SLICE, 2, 1, 2, (8, 8, 16, 24, 32, 8)),
    _line("BasicUNet 3D", "BasicUNet", LARGE_VOLUME, 3, 1, 2, (8, 8, 16, 24, 32, 8)),
    _line("BasicUNet nontrainable", "BasicUNet", SLICE, 2, 1, 2, (8, 8, 16, 24, 32, 8), upsample="nontrainable"),
    _line("BasicUNetPlusPlus", "BasicUNetPlusPlus", SLICE, 2, 1, 2, (8, 8, 16, 24, 32, 8)),
    _line("BasicUNetPlusPlus deep supervision", "BasicUNetPlusPlus", SLICE, 2, 1, 2, (8, 8, 16, 24, 32, 8), True),
    _line("DynUNet", "DynUNet", SLICE, 2, **DYN),
    _line("DynUNet residual 3D", "DynUNet", VOLUME, 3, res_block=True, **DYN),
    _line("DynUNet deep supervision", "DynUNet", SLICE, 2, deep_supervision=True, **DYN),
    _line("AttentionUnet", "AttentionUnet", SLICE, 2, **UNET),
    _line("AttentionUnet 3D", "AttentionUnet", VOLUME, 3, **UNET),
    _line("SegResNet", "SegResNet", SLICE, 2, out_channels=2),
    _line("SegResNet 3D", "SegResNet", VOLUME, 3, out_channels=2),
    _line("SegResNet pixelshuffle", "SegResNet", SLICE, 2, out_channels=2, upsample_mode="pixelshuffle"),
    _line("SegResNetVAE", "SegResNetVAE", SLICE, SLICE[1:], vae_nz=16, spatial_dims=2),
    _line("SegResNetDS", "SegResNetDS", SLICE, 2, init_filters=8, blocks_down=(1, 1, 1)),
    _line("SegResNetDS 3D", "SegResNetDS", VOLUME, 3, init_filters=8, blocks_down=(1, 1, 1), dsdepth=2),
    _line("SegResNetDS2", "SegResNetDS2", SLICE, 2, init_filters=8, blocks_down=(1, 1, 1)),
    _line("VNet", "VNet", SLICE, 2, 1, 2),
    _line("VNet 3D", "VNet", VOLUME, 3, 1, 2),
    _line("MedNeXt", "MedNeXt", SLICE, 2, 8, blocks_down=(1, 1, 1, 1), blocks_bottleneck=1, blocks_up=(1, 1, 1, 1)),
    _line("MedNeXt 3D", "MedNeXt", VOLUME, 3, 8, blocks_down=(1, 1, 1, 1), blocks_bottleneck=1, blocks_up=(1, 1, 1, 1),
          kernel_size=3, use_residual_connection=True, global_resp_norm=True),
    _line("HighResNet", "HighResNet", SLICE, 2, 1, 2),
    _line("HighResNet 3D", "HighResNet", VOLUME, 3, 1, 2, channel_matching="project"),
    _line("FlexibleUNet efficientnet-b0", "FlexibleUNet", (3, 64, 64), 3, 2, "efficientnet-b0"),
    _line("FlexibleUNet resnet18 3D", "FlexibleUNet", LARGE_VOLUME, 1, 2, "resnet18", spatial_dims=3,
          decoder_channels=(32, 16, 16, 8, 8)),
    _line("Quicknat", "Quicknat", (1, 32, 32), 4, 1, 16),
    _line("HoVerNet", "HoVerNet", (3, 256, 256), batch=1),
    _line("AHNet", "AHNet", (1, 128, 128), (1, 1, 1, 1), 2, 1, 2),
    _line("AHNet 3D", "AHNet", LARGE_VOLUME, (1, 1, 1, 1), 3, 1, 2, psp_block_num=0, batch=1),
    Network("monai", "DiNTS", _dints, SLICE),
    _line("DAF3D", "DAF3D", LARGE_VOLUME, 1, 2, batch=1),
    # transformers
    _line("UNETR", "UNETR", SLICE, 1, 2, 32, 8, num_heads=4, hidden_size=48, mlp_dim=96, spatial_dims=2),
    _line("UNETR 3D", "UNETR", (1, 16, 16, 16), 1, 2, 16, 8, num_heads=4, hidden_size=48, mlp_dim=96),
    _line("SwinUNETR", "SwinUNETR", (1, 64, 64), 1, 2, depths=(1, 1, 1, 1), feature_size=12, spatial_dims=2),
    _line("SwinUNETR 3D", "SwinUNETR", (1, 64, 64, 64), 1, 2, depths=(1, 1, 1, 1), feature_size=12, batch=1),
    _line("SwinUNETR v2", "SwinUNETR", (1, 64, 64), 1, 2, depths=(1, 1, 1, 1), feature_size=12, spatial_dims=2,
          use_v2=True),
    _line("ViT", "ViT", SLICE, 1, 32, 8, num_layers=2, spatial_dims=2, classification=True, **TOKENS),
    _line("ViT 3D", "ViT", VOLUME, 1, 16, 8, num_layers=2, pos_embed_type="sincos", **TOKENS),
    _line("ViTAutoEnc", "ViTAutoEnc", SLICE, 1, 32, 4, num_layers=2, spatial_dims=2, **TOKENS),
    _line("MaskedAutoEncoderViT", "MaskedAutoEncoderViT", SLICE, 1, 32, 8, num_layers=2, spatial_dims=2,
          decoder_hidden_size=32, decoder_mlp_dim=32, decoder_num_layers=1, decoder_num_heads=4, **TOKENS),
    # autoencoders
    _line("AutoEncoder", "AutoEncoder", SLICE, 2, 1, 1, (8, 16, 32), (2, 2, 2), num_res_units=1),
    _line("AutoEncoder 3D", "AutoEncoder", VOLUME, 3, 1, 1, (8, 16, 32), (2, 2, 1), inter_channels=(16, 16),
          inter_dilations=(1, 2)),
    _line("VarAutoEncoder", "VarAutoEncoder", SLICE, 2, SLICE, 1, 16, (8, 16), (2, 2), use_mean_at_inference=True),
    _line("VQVAE", "VQVAE", SLICE, 2, 1, 1, (16, 32), 1, (16, 32), ((2, 4, 1, 1),) * 2, ((2, 4, 1, 1, 0),) * 2, 16, 8),
    _line("AutoencoderKL", "AutoencoderKL", SLICE, 2, latent_channels=3, **LEVELS),
    _line("SPADENet", "SPADENet", {"seg": (3, 32, 32), "x": SLICE}, 2, 1, 1, 3, [32, 32], [16, 32], 16, True, 16),
    # classifiers
    _line("DenseNet", "DenseNet", SLICE, 2, 1, 2, 16, 8, (2, 2, 2)),
    _line("DenseNet 3D", "DenseNet", VOLUME, 3, 1, 2, 16, 8, (2, 2)),
    _line("ResNet 3D", "ResNet", VOLUME, "basic", [1, 1, 1, 1], [8, 16, 24, 32], 3, 1, num_classes=2),
    _line("SEResNet50", "SEResNet50", (3, 32, 32), layers=(1, 1, 1, 1), spatial_dims=2, in_channels=3, num_classes=4),
    _line("SEResNext50 3D", "SEResNext50", VOLUME, layers=(1, 1, 1, 1), spatial_dims=3, in_channels=1, num_classes=4),
    _line("EfficientNetBN", "EfficientNetBN", (3, 64, 64), "efficientnet-b0", False),
    _line("Classifier", "Classifier", SLICE, SLICE, 4, (8, 16), (2, 2)),
    # registration
    _line("VoxelMorphUNet", "VoxelMorphUNet", (2, 32, 32), 2, 2, 8, (8, 16, 16, 16, 24, 24), (8, 8)),
    _line("VoxelMorph", "VoxelMorph", [SLICE, SLICE], spatial_dims=2),
    _line("RegUNet", "RegUNet", (2, 32, 32), 2, 2, 8, 3, out_channels=2),
    _line("LocalNet", "LocalNet", VOLUME, 3, 1, 8, (0, 1, 2)),
    _line("GlobalNet", "GlobalNet", SLICE, [32, 32], 2, 1, 8, 3),
    # diffusion
    _line("DiffusionModelUNet", "DiffusionModelUNet", {"x": SLICE, "timesteps": STEP}, 2, 1, 1, num_head_channels=8,
          **LEVELS),
    _line("DiffusionModelUNet 3D", "DiffusionModelUNet", {"x": (1, 8, 8, 8), "timesteps": STEP}, 3, 1, 1,
          num_head_channels=8, **LEVELS),
    _line("DiffusionModelUNet conditioned", "DiffusionModelUNet", {"x": SLICE, "timesteps": STEP, "context": (4, 16)},
          2, 1, 1, num_head_channels=8, with_conditioning=True, cross_attention_dim=16, **LEVELS),
    _line("SPADEDiffusionModelUNet", "SPADEDiffusionModelUNet", {"x": SLICE, "timesteps": STEP, "seg": (3, 32, 32)}, 2,
          1, 1, 3, num_head_channels=8, spade_intermediate_channels=16, **LEVELS),
    _line("PatchDiscriminator", "PatchDiscriminator", SLICE, 2, 8, 1),
]
# fmt: on
