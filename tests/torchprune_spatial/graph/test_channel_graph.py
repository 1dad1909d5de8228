"""`ChannelGraph`: its groups, and what it says of a network."""

import torch
from torch import nn

from torchprune_spatial.graph.channel_graph import ChannelGraph


def test_layers_whose_outputs_are_joined_have_groups_of_their_own():
    """A norm and a depthwise convolution after a concatenation do not make one group of it."""

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
            self.norm, self.depthwise, self.last = (
                nn.BatchNorm2d(24),
                nn.Conv2d(24, 24, 3, groups=24),
                nn.Conv2d(24, 2, 1),
            )

        def forward(self, x):
            return self.last(self.depthwise(self.norm(torch.cat([self.one(x), self.other(x)], 1))))

    net = Joined()
    graph = ChannelGraph().build_dependency(net, torch.rand(1, 3, 8, 8))
    assert {(group[0].dep.target.module, len(group[0].idxs)) for group in graph.get_all_groups()} == {
        (net.one, 8),
        (net.other, 16),
    }
