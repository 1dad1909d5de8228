"""Random image-to-image networks as short programs, which the tests run, follow symbolically and compute by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

BLOCKS = ("convolution", "residual", "concatenation", "depthwise", "down_up", "transposed")


class ProgramNet(nn.Module):
    """A network that runs instructions ``(operation, destination, *sources)`` on named tensors.

    ``operation`` is the name of a layer, or one of relu, add, cat, pool, up. The last instruction makes the output.
    """

    def __init__(self, blocks, width=4, norm=False, module_activations=False, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict()
        self.norm, self.module_activations = norm, module_activations
        self.program: list[tuple[str, ...]] = []
        x, channels = self._convolution("image", 2, width)
        for block in blocks:
            x, channels = getattr(self, "_" + block)(x, channels, width)
        self._layer("output", nn.Conv2d(channels, 3, 3, padding=1), x)

    def _layer(self, name, layer, source):
        self.layers[name] = layer
        return self._do(name, source)

    def _do(self, operation, *sources):
        destination = f"t{len(self.program)}"
        self.program.append((operation, destination, *sources))
        return destination

    def _activated(self, layer, source, channels):
        x = self._layer(f"layer{len(self.layers)}", layer, source)
        if self.norm:
            norm = nn.BatchNorm2d(channels)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            x = self._layer(f"norm{len(self.layers)}", norm, x)
        if self.module_activations:
            return self._layer(f"relu{len(self.layers)}", nn.ReLU(inplace=True), x), channels
        return self._do("relu", x), channels

    def _convolution(self, x, channels, width):
        return self._activated(nn.Conv2d(channels, width, 3, padding=1), x, width)

    def _residual(self, x, channels, width):
        y, _ = self._convolution(x, channels, width)
        y, _ = self._convolution(y, width, channels)
        return self._do("add", y, x), channels

    def _concatenation(self, x, channels, width):
        y, _ = self._convolution(x, channels, width)
        return self._do("cat", x, y), channels + width

    def _depthwise(self, x, channels, width):
        x, _ = self._activated(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), x, channels)
        return self._convolution(x, channels, width)

    def _down_up(self, x, channels, width):
        y, _ = self._convolution(self._do("pool", x), channels, channels)
        return self._do("add", self._do("up", y), x), channels

    def _transposed(self, x, channels, width):
        y, _ = self._convolution(self._do("pool", x), channels, width + 1)
        y, _ = self._activated(nn.ConvTranspose2d(width + 1, width, 2, stride=2), y, width)
        return self._do("cat", y, x), channels + width

    def forward(self, image):
        return self.run(image)[self.program[-1][1]]

    def run(self, image):
        """All the tensors of the program, by name."""
        tensors = {"image": image}
        for operation, destination, *sources in self.program:
            inputs = [tensors[source] for source in sources]
            if operation == "cat":
                tensors[destination] = torch.cat(inputs, 1)
            elif operation in FUNCTIONS:
                tensors[destination] = FUNCTIONS[operation](*inputs)
            else:
                layer = self.layers[operation]
                if isinstance(layer, nn.ReLU):  # in place, as in torchvision: keep what the program recorded before
                    inputs = [inputs[0].clone()]
                tensors[destination] = layer(*inputs)
        return tensors

    def readers(self):
        """Layers that read channels, with the name of the tensor that each reads."""
        for operation, _, *sources in self.program:
            if operation in self.layers and isinstance(self.layers[operation], CHANNEL_LAYERS):
                yield operation, sources[0]

    def channel_identities(self):
        """Which channel each channel of each tensor is: one identity from a filter to all who read it.

        Channels that are added are one identity, because they must be removed together. Returns identities by tensor.
        """
        parent: dict[int, int] = {}

        def find(i):
            return i if parent[i] == i else find(parent[i])

        def new(count):
            fresh = [len(parent) + i for i in range(count)]
            parent.update((i, i) for i in fresh)
            return fresh

        identities = {"image": new(2)}
        for operation, destination, *sources in self.program:
            inputs = [identities[source] for source in sources]
            layer = dict(self.layers.items()).get(operation)
            if operation == "add":
                for a, b in zip(*inputs, strict=True):
                    parent[find(a)] = find(b)
            if operation == "cat":
                identities[destination] = inputs[0] + inputs[1]
            elif isinstance(layer, CHANNEL_LAYERS) and layer.groups == 1:
                identities[destination] = new(layer.out_channels)
            else:
                identities[destination] = inputs[0]
        return {tensor: [find(i) for i in ids] for tensor, ids in identities.items()}

    def written_by(self, name):
        """Name of the tensor that a layer writes."""
        return next(destination for operation, destination, *_ in self.program if operation == name)


CHANNEL_LAYERS = (nn.Conv2d, nn.ConvTranspose2d)
FUNCTIONS = {
    "relu": F.relu,
    "add": torch.add,
    "pool": lambda x: F.max_pool2d(x, 2),
    "up": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
}

networks = st.builds(
    ProgramNet,
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    width=st.integers(2, 6),
    norm=st.booleans(),
    module_activations=st.booleans(),
    seed=st.integers(0, 2**16),
)


def calibration(images=4, size=8, batch=2, channels=2, seed=0):
    """Batches ``(image, target)`` whose targets hold a bright square at a random place."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(images, channels, size, size, generator=generator)
    target = 0.3 * torch.rand(images, 1, size, size, generator=generator)
    for picture in target:
        top, left = torch.randint(0, size - size // 2 + 1, (2,), generator=generator).tolist()
        picture[:, top : top + size // 2, left : left + size // 2] += 0.6
    return list(zip(image.split(batch), target.split(batch), strict=True))


def plain_net(activation=nn.ReLU):
    """Two hidden layers of 6 and 8 channels: names 0, 3 and output 5."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), activation(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, padding=1), activation(), nn.Conv2d(8, 1, 3, padding=1)),
    )
