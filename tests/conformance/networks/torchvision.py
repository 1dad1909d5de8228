"""torchvision: classification, segmentation, detection backbones, optical flow and video.

A line is the size of the images, the names that ``torchvision.models.get_model`` knows, and arguments for all of these.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from ..network import Network, calling


def _lines(size: int, names: str, **arguments: Any) -> list[Network]:
    make = "torchvision.models:get_model"
    return [
        Network("torchvision", name, calling(make, name, weights=None, **arguments), (3, size, size))
        for name in names.split()
    ]


def _line(name: str, example: Any, batch: int = 2, **arguments: Any) -> Network:
    make = calling("torchvision.models:get_model", name, weights=None, **arguments)
    return Network("torchvision", name, make, example, batch)


def _backbone(detector: str) -> nn.Module:
    models = importlib.import_module("torchvision.models.detection")
    return getattr(models, detector)(weights=None, weights_backbone=None).backbone


NETWORKS = [
    *_lines(
        64,
        """resnet18 resnet50 resnext50_32x4d densenet121 mobilenet_v2 mobilenet_v3_small efficientnet_b0 convnext_tiny
        shufflenet_v2_x1_0 squeezenet1_1 mnasnet0_5 regnet_y_400mf""",
    ),
    *_lines(32, "vgg11_bn"),
    *_lines(64, "googlenet", aux_logits=False, init_weights=False),
    *_lines(96, "inception_v3", aux_logits=False, init_weights=False),
    *_lines(64, "fcn_resnet50 deeplabv3_resnet50 lraspp_mobilenet_v3_large", weights_backbone=None),
    *_lines(32, "swin_t"),
    *_lines(32, "vit_b_16", image_size=32),
    # since then
    *_lines(64, "efficientnet_v2_s regnet_x_400mf shufflenet_v2_x0_5"),
    *_lines(64, "deeplabv3_mobilenet_v3_large", weights_backbone=None),
    *_lines(64, "swin_v2_t"),
    _line("maxvit_t", (3, 224, 224), 1),
    *[
        Network("torchvision", f"{name} backbone", lambda name=name: _backbone(name))
        for name in ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "retinanet_resnet50_fpn_v2")
    ],
    Network(
        "torchvision",
        "ssdlite320_mobilenet_v3_large backbone",
        lambda: _backbone("ssdlite320_mobilenet_v3_large"),
        (3, 128, 128),
    ),
    _line("raft_small", {"image1": (3, 128, 128), "image2": (3, 128, 128), "num_flow_updates": 2}, 1),
    *[_line(name, (3, 8, 32, 32)) for name in ("r3d_18", "mc3_18", "r2plus1d_18")],
    _line("s3d", (3, 16, 224, 224), 1),
    _line("mvit_v2_s", (3, 16, 224, 224), 1),
    _line("swin3d_t", (3, 4, 32, 32)),
]
