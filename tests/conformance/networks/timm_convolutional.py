"""timm: convolutional networks.

A line is the size of the images, the names that ``timm.create_model`` knows, and arguments for all of these.
"""

from __future__ import annotations

from typing import Any

from ..network import Network, calling


def lines(size: int, names: str, **arguments: Any) -> list[Network]:
    return [
        Network("timm", name, calling("timm:create_model", name, pretrained=False, **arguments), (3, size, size))
        for name in names.split()
    ]


NETWORKS = [
    *lines(64, "densenet121", block_config=(3, 3, 3, 3)),
    *lines(
        64,
        """resnet26 resnet50d seresnet50 resnext50_32x4d regnety_004 mobilenetv3_small_100 efficientnet_b0 mixnet_s
        convnext_atto convnextv2_atto dla34 hrnet_w18_small repvgg_a0 ghostnet_100 nf_regnet_b0 cspresnet50 xception41
        vovnet39a res2net50_26w_4s selecsls42 mobileone_s0 fbnetc_100 rexnet_100 ese_vovnet19b_dw skresnet18
        resnest14d darknet53 tresnet_m focalnet_tiny_srf inception_next_atto mambaout_femto starnet_s1 hardcorenas_a
        gernet_s repghostnet_050 lcnet_050 tinynet_e""",
    ),
    # since then
    *lines(64, "res2net50_14w_8s ghostnetv2_100 repvit_m0_9 mobilenetv4_conv_small resnetv2_50x1_bit csatv2"),
    *lines(64, "ecaresnet26t lambda_resnet26t cs3darknet_s hgnetv2_b0 convmixer_768_32 dpn48b regnetz_b16 fastvit_t8"),
    *lines(
        64, "gcresnext26ts rdnet_tiny efficientnet_cc_b0_4e convnext_zepto_rms efficientnet_lite0 resnetaa34d nfnet_l0"
    ),
    *lines(256, "botnet26t_256"),
]
