"""What Torch-Pruning's magnitude importance prunes, ours prunes; where Torch-Pruning fails, its error is on record."""

import pytest

from .__main__ import run_apart
from .outcome import PRUNES, outcomes
from .table import best
from .zoo import NETWORKS, TORCH_PRUNING_FAILURES

ONE_OF_EACH_KIND = (
    "torchvision resnet18",
    "timm vit_tiny_patch16_224",
    "segmentation_models_pytorch Unet resnet18",
    "diffusers UNet2DModel",
)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_one_network_of_each_kind(name):
    pytest.importorskip(NETWORKS[name].library)
    assert_conforms(name, dict(outcomes(NETWORKS[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    pytest.importorskip(NETWORKS[name].library)
    assert_conforms(name, run_apart(name))


def assert_conforms(name, results):
    if name in TORCH_PRUNING_FAILURES:  # when this no longer fails, take it off the list
        assert best(results, "magnitude").startswith(TORCH_PRUNING_FAILURES[name])
        return
    assert best(results, "magnitude") == PRUNES
    assert best(results, "ours") == PRUNES
    if results["magnitude"] == PRUNES:  # then without advice
        assert results["ours"] == PRUNES
    if results["check"] == "fine":
        assert results["magnitude"] == PRUNES
    assert results["masked"].startswith(("equal", "not exact"))


@pytest.mark.parametrize("name", TORCH_PRUNING_FAILURES)
def test_known_failures_are_of_networks_in_the_zoo(name):
    assert name in NETWORKS
