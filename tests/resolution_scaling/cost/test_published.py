"""The cost model against published figures, and against PyTorch's own counter."""

import csv
import functools
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, get_model_weights, list_models

from resolution_scaling.cost.profiling import profile

TIMM = list(csv.DictReader(line for line in (Path(__file__).parent / "timm_costs.csv").open() if line[0] != "#"))
A_FEW_OF_TIMM = ("convnext_atto", "levit_128s", "resnet34", "vit_small_r26_s32_224")
TORCHVISION = [*list_models(torchvision.models), *list_models(torchvision.models.segmentation)]
A_FEW_OF_TORCHVISION = ("mobilenet_v3_small", "resnet50", "shufflenet_v2_x0_5", "swin_t", "vit_b_32")
A_FEW_OF_TORCHVISION += ("lraspp_mobilenet_v3_large",)


def some(names, few):
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names]


@functools.lru_cache(maxsize=1)
def torchvision_model(name, image_px):
    options = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
    if name.startswith("vit_"):
        options |= {"image_size": image_px}
    if name in list_models(torchvision.models.segmentation):
        options |= {"weights_backbone": None}
        options |= {} if name.startswith("lraspp") else {"aux_loss": True}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # regnets compute their widths by tensors
        return get_model(name, **options)


@pytest.mark.parametrize("name", some(TORCHVISION, A_FEW_OF_TORCHVISION))
def test_torchvision(name):
    """GMACs that stand with the weights, to their three digits or 0.1 %."""
    for weights in get_model_weights(name):
        preprocessing = weights.transforms()
        image_px = (getattr(preprocessing, "crop_size", None) or preprocessing.resize_size)[0]
        model = torchvision_model(name, image_px if name.startswith("vit_") else None)
        report = profile(model, (1, 3, image_px, image_px))
        assert report.macs / 1e9 == pytest.approx(weights.meta["_ops"], rel=1e-3, abs=6e-4)
        assert report.by_module()[""].macs == report.macs
        assert not report.unknown_operators
        assert report.fused.peak_bytes <= report.peak_bytes
        assert report.fused.largest_operator_bytes <= report.largest_operator_bytes


@pytest.mark.parametrize("name", some([row["model"] for row in TIMM], A_FEW_OF_TIMM))
def test_timm(name):
    """GMACs of timm's results table within 3 %, or its two digits."""
    row = next(row for row in TIMM if row["model"] == name)
    model = timm.create_model(name)
    report = profile(model, (1, 3, int(row["image_px"]), int(row["image_px"])))
    assert report.macs / 1e9 == pytest.approx(float(row["gmacs"]), rel=0.03, abs=0.005)
    assert not report.unknown_operators


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "swin_t", "vit_b_32", "shufflenet_v2_x0_5"])
def test_flop_counter_with_gradients(name):
    """With gradients on, attention takes no path that hides work from it."""
    options = {"weights_backbone": None} if name.startswith("lraspp") else {}
    model = get_model(name, weights=None, **options).eval()
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # fused, PyTorch 2.6 misses it on CPUs
        model(torch.zeros(1, 3, 224, 224))
    assert profile(model, (1, 3, 224, 224)).flops == counter.get_total_flops()
