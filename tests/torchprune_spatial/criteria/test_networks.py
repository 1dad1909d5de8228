"""One network of each kind that people prune: it is pruned by half and its outputs keep their shapes."""

import copy

import pytest
import timm
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.calibration.measurements import RegionMeans

from ..pruning import prune


def tv(name, **options):
    return torchvision.models.get_model(name, weights=None, **options)


NETWORKS = {
    "resnet18": lambda: tv("resnet18"),
    "resnext50": lambda: tv("resnext50_32x4d"),
    "mobilenet_v3_small": lambda: tv("mobilenet_v3_small"),
    "densenet121": lambda: tv("densenet121"),
    "convnext_tiny": lambda: tv("convnext_tiny"),
    "vgg11": lambda: tv("vgg11"),
    "fcn_resnet50": lambda: tv("fcn_resnet50", weights_backbone=None, aux_loss=True),
    "lraspp": lambda: tv("lraspp_mobilenet_v3_large", weights_backbone=None),
    "timm efficientnet": lambda: timm.create_model("efficientnet_b0"),
    "timm features": lambda: timm.create_model("resnet18", features_only=True),
}


def shapes(output):
    return [tensor.shape for tensor in tp.utils.flatten_as_list(output)]


@pytest.mark.parametrize("name", NETWORKS)
def test_prunes_and_keeps_the_outputs(name):
    example = torch.randn(1, 3, 64, 64)
    model = NETWORKS[name]().eval()
    dense = copy.deepcopy(model)
    loader = [(torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)) for _ in range(2)]
    prune(model, SpatialMaskImportance(loader), example)
    assert shapes(model(example)) == shapes(dense(example))
    parameters = [sum(p.numel() for p in m.parameters()) for m in (model, dense)]
    assert parameters[0] < 0.75 * parameters[1]


@pytest.mark.parametrize("image_size", [(64, 64), (32, 64)])
def test_a_vision_transformer_ranks_its_mlp_by_token_position(image_size):
    """Class token left out, tokens on the grid of the image: one hidden neuron per half of the image."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=image_size, depth=1).eval()
    image = torch.randn(2, 3, *image_size)
    target = torch.zeros(2, 1, *image_size)
    target[..., : image_size[1] // 2] = 1
    graph = tp.DependencyGraph().build_dependency(model, image)
    statistics = SpatialMaskImportance([(image, target)]).statistics(graph)
    hidden = []
    model.blocks[0].mlp.fc2.register_forward_pre_hook(lambda layer, args: hidden.append(args[0].detach()))
    model(image)
    rows, columns = image_size[0] // 16, image_size[1] // 16
    grid = hidden[0][:, 1:].abs().unflatten(1, (rows, columns)).double()
    expected = torch.stack([grid[:, :, : columns // 2].mean((0, 1, 2)), grid[:, :, columns // 2 :].mean((0, 1, 2))])
    means = statistics.values[RegionMeans()][model.blocks[0].mlp.fc2][:-1]
    torch.testing.assert_close(means, expected, rtol=1e-5, atol=1e-7)


def test_a_u_net_with_transposed_convolutions_and_concatenation():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList([self.block(1, 8), self.block(8, 16), self.block(16, 32)])
            self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
            self.merge = nn.ModuleList([self.block(32, 16), self.block(16, 8)])
            self.head = nn.Conv2d(8, 2, 1)

        @staticmethod
        def block(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU(), nn.Conv2d(o, o, 3, padding=1)
            )

        def forward(self, x):
            skips = []
            for level in self.down:
                x = level(x if not skips else nn.functional.max_pool2d(x, 2))
                skips.append(x)
            skips.pop()
            for up, merge in zip(self.up, self.merge, strict=True):
                x = merge(torch.cat([skips.pop(), up(x)], 1))
            return self.head(x)

    model, example = UNet(), torch.randn(1, 1, 32, 32)
    loader = [(torch.randn(2, 1, 32, 32), torch.rand(2, 1, 32, 32)) for _ in range(2)]
    prune(model, SpatialMaskImportance(loader), example)
    assert model(example).shape == (1, 2, 32, 32)
    assert [up.out_channels for up in model.up] == [8, 4]


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes(dims):
    convolution, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"MaxPool{dims}d")
    model = nn.Sequential(
        *(convolution(1, 8, 3, padding=1), nn.ReLU(), pool(2)),
        *(convolution(8, 8, 3, padding=1), nn.ReLU(), convolution(8, 2, 3, padding=1)),
    )
    image = torch.randn(2, 1, *[8] * dims)
    target = torch.zeros_like(image)
    target[:, :, 2:6] = 1
    graph = tp.DependencyGraph().build_dependency(model, image)
    means = SpatialMaskImportance([(image, target)]).statistics(graph).values[RegionMeans()][model[3]]
    with torch.no_grad():
        pooled = model[:3](image).double()  # the object covers cells 1 and 2 of 4 of the first axis, and these wholly
    inside, outside = pooled[:, :, [1, 2]], pooled[:, :, [0, 3]]
    axes = (0, *range(2, dims + 2))
    torch.testing.assert_close(means[:2], torch.stack([inside.mean(axes), outside.mean(axes)]), rtol=1e-5, atol=1e-7)
    prune(model, SpatialMaskImportance([(image, target)]), image[:1])
    assert (model[0].out_channels, model[3].out_channels, model[5].out_channels) == (4, 4, 2)
