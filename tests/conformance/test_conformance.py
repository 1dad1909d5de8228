"""Networks of all kinds are pruned, and compute afterwards what they should."""

import pytest

from .__main__ import run_apart
from .networks import FAMILIES, NETWORKS
from .outcome import ours
from .table import PRUNES, right

OF_EACH_KIND = (
    "torchvision resnet18",
    "torchvision shufflenet_v2_x0_5",
    "timm vit_tiny_patch16_224",
    "timm regnety_004",
    "segmentation_models_pytorch Unet tu-convnext_atto",
    "spandrel RRDBNet",
    "spandrel UpCunet2x",
    "spandrel DRUNet",
    "spandrel LaMa",
    "spandrel SwinIR",
    "spandrel OmniSR",
    "monai UNet residual 3D",
    "monai DynUNet",
    "monai SegResNet",
    "monai AttentionUnet",
    "monai SwinUNETR",
    "transformers SegFormer",
    "transformers Swin",
    "transformers ConvNeXt",
    "diffusers UNet2DModel",
    "diffusers AutoencoderKL",
)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_one_network_of_each_kind(name):
    pytest.importorskip(NETWORKS[name].library)
    assert_conforms(dict(ours(NETWORKS[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    pytest.importorskip(NETWORKS[name].library)
    assert_conforms(run_apart(name))


def assert_conforms(results):
    assert results["ours"] == PRUNES
    assert right(results["masked"]), results["masked"]


def test_no_two_networks_have_the_same_name():
    assert len(NETWORKS) == sum(len(family.NETWORKS) for family in FAMILIES)
