"""Small CNNs of several kinds, and all that can be seen of a network."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import nn

from tests.unets import ResUNet


class Denoiser(nn.Module):
    """DnCNN: what the network gives is added to the image."""

    def __init__(self, channels=2):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1)),
        )

    def forward(self, image):
        return image + self.body(image)


class TwoMaps(nn.Module):
    """Outputs in a mapping: logits at full and half size, their labels, and a score of the image."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, image):
        logits = self.head(self.stem(image))
        small = F.avg_pool2d(logits, 2)
        return {"maps": [logits, small], "labels": logits.argmax(1, keepdim=True), "score": logits.mean((2, 3))}


def fcn():
    return tv.segmentation.fcn_resnet50(weights=None, weights_backbone=None)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def same_padded_net():
    """With timm's own classes of convolution and batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(timm.layers.Conv2dSame(3, 8, 3, stride=2, bias=False), timm.layers.BatchNormAct2d(8)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


BUILDERS = [  # network, shape of its input
    (small_net, (2, 3, 32, 32)),
    (lambda: ResUNet(4), (2, 1, 32, 32)),
    (Denoiser, (2, 2, 32, 32)),
    (same_padded_net, (2, 3, 32, 32)),
]


def state(model):
    """All that can be seen of a network: classes, attributes, flags, hooks, tensors."""
    return [
        (name, type(m), m.extra_repr(), m.training, sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ] + [(name, id(t), t._version) for name, t in [*model.named_parameters(), *model.named_buffers()]]
