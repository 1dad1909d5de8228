"""spandrel: restoration and super-resolution, small versions, upscaling by 2 where they upscale.

A line is a name, ``module:class`` in ``spandrel.architectures``, the shape of the image, and arguments of the class.
"""

from __future__ import annotations

from typing import Any

from ..network import Network, calling


def _line(name: str, path: str, example: Any, batch: int = 2, **arguments: Any) -> Network:
    return Network("spandrel", name, calling(f"spandrel.architectures.{path}", **arguments), example, batch)


RGB = (3, 32, 32)
SMALL = (3, 16, 16)
WINDOWS = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "upsampler": "pixelshuffle", "upscale": 2}

# fmt: off
NETWORKS = [
    # convolutional
    _line("RRDBNet", "ESRGAN:ESRGAN", SMALL, num_filters=16, num_blocks=2, scale=2),
    _line("RRDBNet plus", "ESRGAN:ESRGAN", SMALL, num_filters=16, num_blocks=2, scale=2, plus=True),
    _line("RRDBNet unshuffle", "ESRGAN:ESRGAN", SMALL, in_nc=12, num_filters=16, num_blocks=2, scale=4,
          shuffle_factor=2 ),
    _line("SRVGGNetCompact", "Compact:Compact", SMALL, num_feat=16, num_conv=4, upscale=2),
    _line("UpCunet2x", "RealCUGAN:UpCunet2x", (3, 20, 20)),
    _line("UpCunet2x pro", "RealCUGAN:UpCunet2x", (3, 20, 20), pro=True),
    _line("UpCunet2x_fast", "RealCUGAN:UpCunet2x_fast", (3, 40, 40)),
    _line("UpCunet3x", "RealCUGAN:UpCunet3x", (3, 20, 20)),
    _line("UpCunet4x", "RealCUGAN:UpCunet4x", (3, 20, 20)),
    _line("DRUNet", "DRUNet:DRUNet", RGB, in_nc=3, out_nc=3, nc=[16, 16, 24, 32], nb=1),
    _line("FBCNN", "FBCNN:FBCNN", RGB, nc=[16, 16, 24, 512], nb=1),
    _line("DnCNN", "DnCNN:DnCNN", (1, 32, 32), nc=16, nb=6),
    _line("FDnCNN", "DnCNN:DnCNN", (1, 32, 32), nc=16, nb=6, act_mode="R", mode="FDnCNN"),
    _line("RCAN", "RCAN:RCAN", SMALL, scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4),
    _line("NAFNet", "NAFNet:NAFNet", RGB, width=16, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    _line("KBNet_s", "KBNet:KBNet_s", RGB, width=16, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    _line("SPAN", "SPAN:SPAN", SMALL, num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    _line("SAFMN", "SAFMN:SAFMN", RGB, dim=16, n_blocks=2, upscaling_factor=2),
    _line("SAFMN BCIE", "SAFMNBCIE:SAFMNBCIE", RGB, dim=16, n_blocks=2, num_layers=2),
    _line("SwiftSRGAN", "SwiftSRGAN:SwiftSRGAN", SMALL, num_channels=16, num_blocks=2, upscale_factor=2),
    _line("MoSR", "MoSR:MoSR", SMALL, upscale=2, n_block=2, dim=16),
    _line("MoESR", "MoESR:MoESR", SMALL, scale=2, dim=16, n_blocks=2, n_block=1, upsample_dim=16),
    _line("PLKSR", "PLKSR:PLKSR", SMALL, dim=16, n_blocks=2, upscaling_factor=2),
    _line("RealPLKSR", "PLKSR:RealPLKSR", SMALL, dim=16, n_blocks=2, upscaling_factor=2),
    _line("RealPLKSR DySample", "PLKSR:RealPLKSR", SMALL, dim=16, n_blocks=2, upscaling_factor=2, dysample=True),
    _line("SeemoRe", "SeemoRe:SeemoRe", RGB, 1, scale=2, num_experts=2, num_layers=2, embedding_dim=16),
    _line("MixDehazeNet", "MixDehazeNet:MixDehazeNet", (3, 64, 64), embed_dims=[8, 16, 32, 16, 8]),
    _line("MMRealSR", "MMRealSR:MMRealSR", RGB, num_in_ch=3, num_out_ch=3, scale=4, num_feat=16, num_block=2,
          num_grow_ch=8, num_feats=[16, 16, 32, 32], num_blocks=[1, 1, 1, 1]),
    _line("DCTLSA", "DCTLSA:DCTLSA", RGB, nf=20, num_modules=6, upscale=2),
    _line("LaMa", "LaMa.__arch.LaMa:FFCResNetGenerator", [(3, 32, 32), (1, 32, 32)], input_nc=4, output_nc=3, ngf=8,
          n_blocks=2),
    _line("GFPGAN", "GFPGAN:GFPGAN", {"x": (3, 32, 32), "return_rgb": False, "randomize_noise": False}, out_size=32,
          num_style_feat=32, channel_multiplier=0.125, narrow=0.25),
    # windows and attention
    _line("SwinIR", "SwinIR:SwinIR", RGB, img_size=32, window_size=8, **WINDOWS),
    _line("SwinIR lightweight", "SwinIR:SwinIR", RGB, img_size=32, window_size=8,
          **{**WINDOWS, "upsampler": "pixelshuffledirect"}),
    _line("SwinIR denoise", "SwinIR:SwinIR", RGB, img_size=32, window_size=8,
          **{**WINDOWS, "upsampler": "", "upscale": 1} ),
    _line("Swin2SR", "Swin2SR:Swin2SR", RGB, img_size=32, window_size=8, **WINDOWS),
    _line("HAT", "HAT:HAT", RGB, img_size=32, window_size=8, compress_ratio=3, squeeze_factor=6, num_feat=16,
          **WINDOWS ),
    _line("DRCT", "DRCT:DRCT", RGB, img_size=32, window_size=8, gc=8, **WINDOWS),
    _line("ATD", "ATD:ATD", RGB, img_size=32, window_size=8, category_size=64, num_tokens=16, reducted_dim=4,
          **WINDOWS ),
    _line("GRL", "GRL:GRL", RGB, img_size=32, embed_dim=24, upscale=2, upsampler="pixelshuffle", depths=[2, 2],
          num_heads_window=[2, 2], num_heads_stripe=[2, 2], window_size=8, stripe_size=[8, 8]),
    _line("DAT", "DAT:DAT", RGB, img_size=32, embed_dim=24, depth=[2], num_heads=[2], split_size=[8, 8], upscale=2),
    _line("RGT", "RGT:RGT", RGB, img_size=32, embed_dim=24, depth=[2], num_heads=[2], split_size=[8, 8], upscale=2),
    _line("CRAFT", "CRAFT:CRAFT", RGB, window_size=16, embed_dim=24, depths=[2], num_heads=[2], upscale=2),
    _line("DITN", "DITN:DITN", RGB, dim=16, ITL_blocks=1, SAL_blocks=1, upscale=2),
    _line("OmniSR", "OmniSR:OmniSR", RGB, num_feat=16, block_num=1, res_num=1, up_scale=2),
    _line("FDAT", "FDAT:FDAT", RGB, scale=2, embed_dim=24, num_groups=1, depth_per_group=2, num_heads=2, mid_dim=16),
    _line("SCUNet", "SCUNet:SCUNet", (3, 64, 64), config=[1, 1, 1, 1, 1, 1, 1], dim=64, input_resolution=64),
    _line("Uformer", "Uformer:Uformer", (3, 128, 128), img_size=128, embed_dim=8, depths=[1] * 9),
    _line("FFTformer", "FFTformer:FFTformer", RGB, dim=16, num_blocks=[1, 1, 1], num_refinement_blocks=1),
    _line("KBNet_l", "KBNet:KBNet_l", RGB, dim=24, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1,
          ffn_expansion_factor=2),
    _line("RetinexFormer", "RetinexFormer:RetinexFormer", RGB, n_feat=16, stage=1),
    _line("HVI-CIDNet", "HVICIDNet:HVICIDNet", RGB, channels=[8, 8, 16, 32], heads=[1, 2, 2, 4]),
    _line("IPT", "IPT:IPT", (3, 24, 24), patch_size=24, n_feats=16, num_heads=4, num_layers=2, scale=[2]),
    _line("RestoreFormer", "RestoreFormer:RestoreFormer", (3, 64, 64), n_embed=64, embed_dim=32, ch=32,
          ch_mult=(1, 2, 4), num_res_blocks=1, attn_resolutions=(16,), resolution=64, z_channels=32, head_size=4),
    _line("AuraSR", "AuraSR:AuraSR", {"lowres_image": (3, 16, 16), "noise": (16,)}, dim=16, image_size=64,
          input_image_size=16, style_network={"dim_in": 16, "dim_out": 32, "depth": 2}, up_dim_mults=(1, 2, 2),
          down_dim_mults=(2,), full_attn=(False, True, True), attn_depths=(1, 1, 1), mid_attn_depth=1,
          self_attn_dim_head=16, self_attn_heads=2),
]
# fmt: on
