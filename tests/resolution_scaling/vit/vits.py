"""Small vision transformers of both libraries, and what can be seen of them."""

import timm
import torch
import torch.nn as nn
from torchvision.models import SwinTransformer, VisionTransformer

from resolution_scaling.vit.registry import token_sizes

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
TIMM_SWIN = {"embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 5}


def torchvision_vit(**kwargs):
    sizes = {"image_size": 224, "patch_size": 16, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
    model = VisionTransformer(**(sizes | kwargs), num_classes=5)
    nn.init.normal_(model.heads[0].weight)  # torchvision starts with zeros, which would hide every difference
    return model.eval()


def torchvision_swin():
    return SwinTransformer([4, 4], 12, [2, 2], [1, 2], [7, 7], num_classes=5).eval()


def timm_vit(name="vit_tiny_patch16_224", **kwargs):
    return timm.create_model(name, **(TINY | kwargs)).eval()


MODELS = {
    "torchvision ViT": torchvision_vit,
    "timm ViT": timm_vit,
    "no class token": lambda: timm_vit(class_token=False, global_pool="avg"),
    "register tokens": lambda: timm_vit(reg_tokens=4),
    "registers without position": lambda: timm_vit(reg_tokens=4, no_embed_class=True),
    "dynamic size": lambda: timm_vit(dynamic_img_size=True),
    "DeiT": lambda: timm_vit("deit_tiny_patch16_224"),
    "distilled DeiT": lambda: timm_vit("deit_tiny_distilled_patch16_224"),
    "rotary (EVA)": lambda: timm_vit("eva02_tiny_patch14_224"),
    "relative positions (BEiT)": lambda: timm_vit("beit_base_patch16_224"),
    "relative positions": lambda: timm_vit("vit_relpos_small_patch16_224"),
    "Swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", **TIMM_SWIN).eval(),
    "Swin V2": lambda: timm.create_model("swinv2_tiny_window8_256", **TIMM_SWIN).eval(),
}


def tensors(model):
    return {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def attributes(model):
    """Everything plain that the modules hold."""
    return {
        (path, name): repr(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, (int, float, str, tuple, list, type(None)))
    }


def assert_same(model, expected):
    assert expected.keys() == tensors(model).keys()
    for name, tensor in tensors(model).items():
        assert torch.equal(tensor, expected[name]), name


@torch.no_grad()
def logits(model):
    generator = torch.Generator().manual_seed(3)
    height, width = token_sizes(model).image_size
    return model(torch.randn(2, 3, height, width, generator=generator))
