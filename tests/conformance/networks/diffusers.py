"""diffusers: the denoisers and autoencoders of diffusion models, small versions.

A line is a name, the class, what it is called with, and arguments of the class.
"""

from __future__ import annotations

from typing import Any

import torch

from ..network import Network, calling


def _line(name: str, kind: str, example: dict[str, Any], **arguments: Any) -> Network:
    return Network("diffusers", name, calling(f"diffusers:{kind}", **arguments), {**example, "return_dict": False})


IMAGE = (3, 32, 32)
LATENT = (4, 16, 16)
STEP = torch.tensor([10])
CROSS = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}
STABLE = {**CROSS, "sample_size": 16, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
VAE = {
    "block_out_channels": (16, 32),
    "norm_num_groups": 4,
    "sample_size": 32,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}

# fmt: off
NETWORKS = [
    _line("UNet2DModel", "UNet2DModel", {"sample": IMAGE, "timestep": STEP}, sample_size=32,
          block_out_channels=(16, 32), layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
          up_block_types=("AttnUpBlock2D", "UpBlock2D"), norm_num_groups=4),
    _line("UNet2DModel resnet sampling", "UNet2DModel", {"sample": IMAGE, "timestep": STEP}, sample_size=32,
          block_out_channels=(16, 32), layers_per_block=1, down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"),
          up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D"), norm_num_groups=4,
          resnet_time_scale_shift="scale_shift"),
    _line("UNet2DConditionModel", "UNet2DConditionModel",
          {"sample": LATENT, "timestep": STEP, "encoder_hidden_states": (5, 24)}, **STABLE),
    _line("UNet2DConditionModel linear projection", "UNet2DConditionModel",
          {"sample": LATENT, "timestep": STEP, "encoder_hidden_states": (5, 24)}, use_linear_projection=True, **STABLE),
    _line("UNet3DConditionModel", "UNet3DConditionModel",
          {"sample": (4, 2, 16, 16), "timestep": STEP, "encoder_hidden_states": (5, 24)}, sample_size=16,
          block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24, norm_num_groups=4,
          attention_head_dim=8, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
          up_block_types=("UpBlock3D", "CrossAttnUpBlock3D")),
    _line("ControlNetModel", "ControlNetModel",
          {"sample": LATENT, "timestep": STEP, "encoder_hidden_states": (5, 24), "controlnet_cond": (3, 32, 32)},
          conditioning_embedding_out_channels=(8, 16), **CROSS),
    _line("AutoencoderKL", "AutoencoderKL", {"sample": IMAGE}, **VAE),
    _line("AutoencoderTiny", "AutoencoderTiny", {"sample": IMAGE}, encoder_block_out_channels=(16, 16),
          decoder_block_out_channels=(16, 16), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)),
    _line("AutoencoderDC", "AutoencoderDC", {"sample": IMAGE}, latent_channels=4, attention_head_dim=8,
          encoder_block_types=("ResBlock", "EfficientViTBlock"), decoder_block_types=("ResBlock", "EfficientViTBlock"),
          encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), encoder_layers_per_block=(1, 1),
          decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,))),
    _line("VQModel", "VQModel", {"sample": IMAGE}, **{**VAE, "latent_channels": 3}, num_vq_embeddings=16),
    _line("DiTTransformer2DModel", "DiTTransformer2DModel",
          {"hidden_states": LATENT, "timestep": torch.tensor([1, 2]), "class_labels": torch.tensor([1, 2])},
          num_attention_heads=2, attention_head_dim=16, num_layers=2, sample_size=16, num_embeds_ada_norm=10,
          out_channels=8),
    _line("PixArtTransformer2DModel", "PixArtTransformer2DModel",
          {"hidden_states": LATENT, "timestep": torch.tensor([1, 2]), "encoder_hidden_states": (5, 24)},
          num_attention_heads=2, attention_head_dim=16, num_layers=2, sample_size=16, caption_channels=24,
          cross_attention_dim=32, use_additional_conditions=False),
    _line("SD3Transformer2DModel", "SD3Transformer2DModel", {"hidden_states": LATENT, "timestep": torch.tensor([1, 2]),
             "encoder_hidden_states": (5, 24), "pooled_projections": (16,)}, sample_size=16, patch_size=2,
          in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=24,
          caption_projection_dim=32, pooled_projection_dim=16, out_channels=4),
    _line("SanaTransformer2DModel", "SanaTransformer2DModel",
          {"hidden_states": LATENT, "timestep": torch.tensor([1, 2]), "encoder_hidden_states": (5, 24)}, in_channels=4,
          out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_cross_attention_heads=2,
          cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=24, sample_size=16, patch_size=1),
    Network("diffusers", "UVit2DModel", calling("diffusers:UVit2DModel", hidden_size=32, cond_embed_dim=16,
               micro_cond_encode_dim=8, micro_cond_embed_dim=40, encoder_hidden_size=24, vocab_size=24,
               codebook_size=16, in_channels=32, block_out_channels=32, num_hidden_layers=2, num_attention_heads=2,
               block_num_heads=2, intermediate_size=64, sample_size=16), {"input_ids": torch.arange(512).reshape(2, 16,
               16) % 16, "encoder_hidden_states": (5, 24), "pooled_text_emb": (16,), "micro_conds": (5,)}),
]
# fmt: on
