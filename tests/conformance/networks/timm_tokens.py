"""timm: networks with attention or other mixing of tokens.

A line is the size of the images, the names that ``timm.create_model`` knows, and arguments for all of these.
"""

from __future__ import annotations

from typing import Any

from ..network import Network, calling
from .timm_convolutional import lines


def _line(size: int, name: str, arguments: dict[str, Any], **hints: Any) -> Network:
    make = calling("timm:create_model", name, pretrained=False, **arguments)
    return Network("timm", name, make, (3, size, size), **hints)


NETWORKS = [
    *lines(
        32,
        """vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_relpos_small_patch16_224
        vit_small_patch16_rope_224 flexivit_small beit_base_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224
        convit_tiny deit3_small_patch16_224""",
        img_size=32,
        depth=2,
    ),
    *lines(32, "mixer_s16_224 gmlp_s16_224 resmlp_12_224", img_size=32),
    *lines(28, "eva02_tiny_patch14_224", img_size=28, depth=2),
    _line(64, "swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, kept=("bias_table",)),
    _line(64, "pit_ti_224", {"img_size": 64}, unwrapped={"pos_embed": 1}),
    *lines(64, "swinv2_tiny_window8_256", img_size=64, window_size=2),
    *lines(64, "pvt_v2_b0 mobilevit_xxs edgenext_xx_small poolformer_s12 caformer_s18 davit_tiny tiny_vit_5m_224"),
    *lines(
        64,
        """twins_pcpvt_small twins_svt_small visformer_tiny levit_128s maxvit_tiny_tf_224
        nest_tiny""",
        img_size=64,
    ),
    # since then
    *lines(
        32,
        "vit_small_patch16_18x2_224 vit_wee_patch16_reg1_gap_256 vit_base_patch16_rope_reg1_gap_256",
        img_size=32,
        depth=2,
    ),
    *lines(32, "vit_pe_core_tiny_patch16_384 samvit_base_patch16_224", img_size=32, depth=2),
    *lines(28, "vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2", img_size=28, depth=2),
    *lines(64, "maxvit_rmlp_pico_rw_256 coatnet_pico_rw_224 coatnet_rmlp_nano_rw_224 hiera_tiny_224", img_size=64),
    *lines(64, "swinv2_cr_tiny_224 sequencer2d_s tnt_s_patch16_224", img_size=64),
    *lines(64, "efficientvit_b0 efficientvit_m0 mobilevitv2_050 fastvit_sa12 pvt_v2_b2_li nextvit_small"),
    *lines(64, "convformer_s18 poolformerv2_s12 shvit_s1 swiftformer_xs mvitv2_tiny fasternet_t0"),
    *lines(224, "efficientformer_l1 efficientformerv2_s0 crossvit_tiny_240 volo_d1_224 coat_tiny gcvit_xxtiny"),
]
