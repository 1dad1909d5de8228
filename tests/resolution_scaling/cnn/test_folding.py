import copy

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from resolution_scaling.cnn.folding import fold_first_batch_norm
from resolution_scaling.cnn.reduction import reduce_after_first_conv

from .networks import same_padded_net, slow, small_net, state


def unlike_new(model):
    """Batch norms with other statistics than those of a new network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize(
    ("build", "folded"),
    [
        (small_net, {"1": nn.Identity}),
        slow(tv.resnet18, {"bn1": nn.Identity}),
        (same_padded_net, {"1": nn.Sequential}),  # the activation stays
        slow(
            lambda: timm.create_model("repvgg_a0"),
            {"stem.conv_kxk.bn": nn.Sequential, "stem.conv_1x1.bn": nn.Sequential},
        ),
    ],
)
@pytest.mark.parametrize("first", ["fold", "reduce"])
def test_folding_is_the_same_function(build, folded, first):
    model, image = unlike_new(build()), torch.rand(2, 3, 64, 64)
    plain = reduce_after_first_conv(copy.deepcopy(model), 40, 64)
    if first == "fold":
        reduce_after_first_conv(fold_first_batch_norm(model, 64), 40, 64)
    else:
        fold_first_batch_norm(reduce_after_first_conv(model, 40, 64), 64)
    torch.testing.assert_close(model(image), plain(image), rtol=1e-3, atol=1e-4)
    assert {name: type(model.get_submodule(name)) for name in folded} == folded


def test_what_cannot_fold_stays():
    class Shared(nn.Module):
        """The convolution is read by a norm and by the sum."""

        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, image):
            x = self.first(image)
            return x + self.norm(x)

    for model, text in (
        (small_net(), "training mode"),
        (tv.convnext_tiny().eval(), "no batch norm that reads the output of its first convolution"),
        (unlike_new(Shared()), "first of Shared is read by more than norm"),
    ):
        before = state(model)
        with pytest.raises(ValueError, match=text):
            fold_first_batch_norm(model, 64)
        assert state(model) == before
