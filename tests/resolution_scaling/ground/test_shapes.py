import pytest
import timm
import torchvision
from torch import nn

from resolution_scaling.cnn.reduction import reduce_after_first_conv
from resolution_scaling.ground.shapes import image_of, shape_copy


@pytest.mark.parametrize("in_channels", [1, 2, 3, 12])
def test_channels_are_those_of_this_network_and_not_of_its_pretrained_one(in_channels):
    """timm's record says 3 channels, whatever the network was built for."""
    network = timm.create_model("test_resnet", in_chans=in_channels)
    assert network.pretrained_cfg["input_size"] == (3, 160, 160)
    assert image_of(network) == (in_channels, (160, 160))


def test_pixels_that_become_channels_before_the_first_convolution():
    """TResNet rearranges 4 x 4 px of 3 channels into 48 channels."""
    network = timm.create_model("tresnet_m")
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == 48
    assert image_of(network) == (3, (224, 224))


def test_channels_of_other_networks_are_those_of_the_first_convolution():
    network = torchvision.models.resnet18()
    network.conv1 = nn.Conv2d(2, 64, 7, 2, 3)
    assert image_of(network) == (2, (224, 224))
    assert image_of(network, 96) == (2, (96, 96))


def test_what_is_given_counts():
    assert image_of(nn.Linear(2, 2), (8, 6), 5) == (5, (8, 6))
    with pytest.raises(ValueError, match="in_channels is 0; expected a whole number above 0"):
        image_of(nn.Conv2d(3, 4, 1), in_channels=0)
    with pytest.raises(ValueError, match=r"Linear has no Conv2d from which .*: pass in_channels"):
        image_of(nn.Linear(2, 2))


def test_looking_at_shapes_leaves_no_trace():
    class Caching(nn.Conv2d):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen

    model = nn.Sequential(Caching(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    reduce_after_first_conv(model, 16, 32)
    assert not hasattr(model[0], "seen")
    draft = shape_copy(model)
    assert draft[0].weight.is_meta
    assert not model[0].weight.is_meta
    assert model.training
    assert not draft.training
