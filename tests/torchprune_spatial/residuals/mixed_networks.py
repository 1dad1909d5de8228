"""Networks with residual additions, and pruning them while the channels that are left are counted."""

import copy
import functools
import warnings

import torch
import torch.nn.functional as F
import torch_pruning as tp
import torchvision
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial.residuals.channel_scatter import (
    CUSTOMIZED_PRUNERS,
    ChannelScatter,
)

PRUNER = CUSTOMIZED_PRUNERS[ChannelScatter]


def build(name):
    """A network with lively norms, in eval mode, and an input for it."""
    torch.manual_seed(0)
    return copy.deepcopy(built(name))


@functools.cache
def built(name):
    if name == "unet":
        return ResUNet(4).eval(), torch.rand(2, 1, 16, 16)
    model, image = getattr(torchvision.models, name)(num_classes=5), torch.randn(2, 3, 48, 48)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = None
    model(torch.randn(4, 3, 48, 48))
    return model.eval(), image


def scatters(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, ChannelScatter)}


def make_pruner(model, image, importance, **options):
    options.setdefault("pruning_ratio", 0.6)
    return tp.pruner.BasePruner(model, image, importance, customized_pruners=CUSTOMIZED_PRUNERS, **options)


class Tally:
    """Prunes groups and keeps count of the filters and norm channels of the original that are left."""

    PRODUCERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)

    def __init__(self, pruner):
        self.graph = pruner.DG
        self.kept, self.names = {}, {}
        for name, module in pruner.model.named_modules():
            if isinstance(module, self.PRODUCERS):
                self.names[module], self.kept[name] = name, list(range(channels_of(module)))

    def prune(self, groups):
        for group in groups:
            for dep, idxs in group:
                if dep.target.module in self.names and self.graph.is_out_channel_pruning_fn(dep.handler):
                    name = self.names[dep.target.module]
                    self.kept[name] = [c for i, c in enumerate(self.kept[name]) if i not in idxs]
            group.prune()

    def masked(self, original):
        """The original with the other filters and norm channels at zero."""
        masked = copy.deepcopy(original)
        for name, kept in self.kept.items():
            module = masked.get_submodule(name)
            removed = [c for c in range(channels_of(module)) if c not in kept]
            with torch.no_grad():
                weight = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
                weight[removed] = 0
                if module.bias is not None:
                    module.bias[removed] = 0
        return masked


def channels_of(module):
    return module.num_features if isinstance(module, nn.BatchNorm2d) else module.out_channels


def step(pruner, tally):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(outputs of the network|reads these channels).*")
        tally.prune(pruner.step(interactive=True))


class Chain(nn.Module):
    """``b(a(x)) + a(x)``, then ``c(·) + ·``, then the output: six channels everywhere."""

    def __init__(self, after=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.after, self.output = after(), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = F.relu(self.b(x)) + x
        x += F.relu(self.c(x))
        return self.output(F.relu(self.after(x)))


IMAGE = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def norm():
    layer = nn.BatchNorm2d(6)
    nn.init.uniform_(layer.bias, 0.5, 1)
    return layer


class Net(nn.Module):
    """Convolutions a, b, c of 4 channels, a depthwise one, a gate and an output, put together by a function."""

    def __init__(self, program):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.depthwise, self.gate = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)
        self.output, self.linear = nn.Conv2d(4, 1, 1), nn.Linear(4, 4)
        self.parameter, self.unused = nn.Parameter(torch.randn(1, 4, 8, 8)), nn.Parameter(torch.ones(2))
        self.program = program

    def forward(self, x):
        return self.program(self, x)
