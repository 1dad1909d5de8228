"""Where Torch-Pruning's own graph is right, a `ChannelGraph` finds the same groups."""

import warnings

import pytest

from .networks import NETWORKS
from .same_groups import differences


@pytest.mark.parametrize("name", ["torchvision resnet18", "torchvision mobilenet_v2", "monai SegResNet"])
def test_the_groups_are_the_same(name):
    pytest.importorskip(NETWORKS[name].library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(differences(NETWORKS[name].build(), NETWORKS[name].inputs())) == []
