"""The networks: how each is built with random weights, and how it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Network:
    """A network of a library.

    Attributes:
        library: the name of the Python package.
        name: its name there.
        kind: ``"convolutional"``, ``"tokens"``, ``"segmentation"`` or ``"diffusion"``.
        arguments: for the library's function that makes it.
        size: height and width of the images, in pixels.
        kept: ends of the names of parameters that no channel runs along, such as tables of relative positions.
        unwrapped: the dimension of the channels in parameters where that is not the last, by name.
        not_linear: why pruned and masked differ, where the layers do not show it.
    """

    library: str
    name: str
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    kept: tuple[str, ...] = ()
    unwrapped: dict[str, int] = field(default_factory=dict)
    not_linear: str = ""

    def __str__(self) -> str:
        return f"{self.library} {self.name}"

    def build(self) -> nn.Module:
        """The network in evaluation mode, with random weights, also where the library starts with zeros."""
        torch.manual_seed(0)
        model = BUILDERS[self.library](self)
        for parameter in model.parameters():
            if parameter.ndim <= 1 and (parameter == parameter.flatten()[0]).all():
                nn.init.uniform_(parameter.data, -0.1, 0.1) if parameter.flatten()[0] == 0 else nn.init.uniform_(
                    parameter.data, 0.5, 1.5
                )
        return model.eval()

    def images(self, batch: int = 2) -> torch.Tensor:
        return torch.randn(batch, 3, self.size, self.size)

    def inputs(self, images: torch.Tensor) -> Any:
        """What the network is called with, as Torch-Pruning's ``example_inputs``."""
        if self.kind == "diffusion":
            return {"sample": images, "timestep": torch.tensor([10]), "return_dict": False}
        return images

    def options(self, model: nn.Module) -> dict[str, Any]:
        """Options for the pruner that tell what it cannot know about the parameters."""
        return {
            "ignored_layers": [p for name, p in model.named_parameters() if name.endswith(self.kept)]
            if self.kept
            else [],
            "unwrapped_parameters": [(model.get_parameter(name), dim) for name, dim in self.unwrapped.items()],
        }


def _torchvision(network: Network) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    return models.get_model(network.name, weights=None, **network.arguments)


def _timm(network: Network) -> nn.Module:
    return importlib.import_module("timm").create_model(network.name, pretrained=False, **network.arguments)


def _segmentation_models(network: Network) -> nn.Module:
    smp = importlib.import_module("segmentation_models_pytorch")
    architecture, encoder = network.name.split()
    return getattr(smp, architecture)(encoder, encoder_weights=None, classes=2)


def _diffusers(network: Network) -> nn.Module:
    return getattr(importlib.import_module("diffusers"), network.name)(**network.arguments)


BUILDERS: dict[str, Callable[[Network], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "segmentation_models_pytorch": _segmentation_models,
    "diffusers": _diffusers,
}


def _many(library: str, kind: str, names: str, size: int = 64, **arguments: Any) -> list[Network]:
    return [Network(library, name, kind, arguments, size) for name in names.split()]


TORCHVISION = [
    *_many(
        "torchvision",
        "convolutional",
        """resnet18 resnet50 resnext50_32x4d densenet121 mobilenet_v2 mobilenet_v3_small efficientnet_b0 convnext_tiny
        shufflenet_v2_x1_0 squeezenet1_1 mnasnet0_5 regnet_y_400mf""",
    ),
    *_many("torchvision", "convolutional", "vgg11_bn", size=32),
    *_many("torchvision", "convolutional", "googlenet", aux_logits=False, init_weights=False),
    *_many("torchvision", "convolutional", "inception_v3", size=96, aux_logits=False, init_weights=False),
    *_many(
        "torchvision",
        "segmentation",
        "fcn_resnet50 deeplabv3_resnet50 lraspp_mobilenet_v3_large",
        weights_backbone=None,
    ),
    *_many("torchvision", "tokens", "swin_t", size=32),
    *_many("torchvision", "tokens", "vit_b_16", size=32, image_size=32),
]

TIMM_CONVOLUTIONAL = [
    *_many("timm", "convolutional", "densenet121", block_config=(3, 3, 3, 3)),
    *_many(
        "timm",
        "convolutional",
        """resnet26 resnet50d seresnet50 resnext50_32x4d regnety_004 mobilenetv3_small_100 efficientnet_b0 mixnet_s
        convnext_atto convnextv2_atto dla34 hrnet_w18_small repvgg_a0 ghostnet_100 nf_regnet_b0 cspresnet50 xception41
        vovnet39a res2net50_26w_4s selecsls42 mobileone_s0 fbnetc_100 rexnet_100 ese_vovnet19b_dw skresnet18
        resnest14d darknet53 tresnet_m focalnet_tiny_srf inception_next_atto mambaout_femto starnet_s1 hardcorenas_a
        gernet_s repghostnet_050 lcnet_050 tinynet_e""",
    ),
]

TIMM_TOKENS = [
    *_many(
        "timm",
        "tokens",
        """vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_relpos_small_patch16_224
        vit_small_patch16_rope_224 flexivit_small beit_base_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224
        convit_tiny deit3_small_patch16_224""",
        size=32,
        img_size=32,
        depth=2,
    ),
    *_many("timm", "tokens", "mixer_s16_224 gmlp_s16_224 resmlp_12_224", size=32, img_size=32),
    *_many("timm", "tokens", "eva02_tiny_patch14_224", size=28, img_size=28, depth=2),
    Network("timm", "swin_tiny_patch4_window7_224", "tokens", {"img_size": 64, "window_size": 2}, kept=("bias_table",)),
    Network("timm", "pit_ti_224", "tokens", {"img_size": 64}, unwrapped={"pos_embed": 1}),
    *_many("timm", "tokens", "swinv2_tiny_window8_256", img_size=64, window_size=2),
    *_many(
        "timm",
        "tokens",
        "pvt_v2_b0 mobilevit_xxs edgenext_xx_small poolformer_s12 caformer_s18 davit_tiny tiny_vit_5m_224",
    ),
    *_many(
        "timm",
        "tokens",
        """twins_pcpvt_small twins_svt_small visformer_tiny levit_128s maxvit_tiny_tf_224
        nest_tiny""",
        img_size=64,
    ),
]

SEGMENTATION = [
    Network("segmentation_models_pytorch", f"{name} {encoder}", "segmentation", size=128 if name == "PAN" else 64)
    for name in ("Unet", "UnetPlusPlus", "FPN", "DeepLabV3Plus", "MAnet", "PAN", "Linknet", "PSPNet")
    for encoder in ("resnet18", "mobilenet_v2")
]

DIFFUSION = [
    Network(
        "diffusers",
        "UNet2DModel",
        "diffusion",
        {
            "sample_size": 32,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 4,
        },
        size=32,
    )
]

NETWORKS = {
    str(network): network for network in TORCHVISION + TIMM_CONVOLUTIONAL + TIMM_TOKENS + SEGMENTATION + DIFFUSION
}

ENDLESS = ("TimeoutError", "MemoryError")
"""A group that grows without end: which limit it meets first depends on the machine."""

TORCH_PRUNING_FAILURES: dict[str, tuple[str, ...]] = {
    "torchvision shufflenet_v2_x1_0": ("ZeroDivisionError",),
    "torchvision swin_t": ENDLESS,
    "timm rexnet_100": ENDLESS,
    "timm focalnet_tiny_srf": ENDLESS,
    "timm eva02_tiny_patch14_224": ("nothing is pruned",),
    "timm pit_ti_224": ("IndexError",),
    "timm twins_svt_small": ("ZeroDivisionError",),
    "timm visformer_tiny": ENDLESS,
    "timm maxvit_tiny_tf_224": ENDLESS,
    "timm nest_tiny": ENDLESS,
    "segmentation_models_pytorch MAnet resnet18": ENDLESS,
    "segmentation_models_pytorch MAnet mobilenet_v2": ENDLESS,
}
"""Networks that Torch-Pruning cannot prune by its own magnitude importance, whatever is ignored, with its errors."""
