"""Detectors: their boxes depend on values, so their backbone is what is scaled, and what is counted."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection

import resolution_scaling as rs

BUILDERS = {
    "RetinaNet": detection.retinanet_resnet50_fpn,
    "FCOS": detection.fcos_resnet50_fpn,
    "SSDlite": detection.ssdlite320_mobilenet_v3_large,
    "Faster R-CNN": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
}


def build(name):
    torch.manual_seed(0)
    sizes = {} if name == "SSDlite" else {"min_size": 256, "max_size": 256}
    return BUILDERS[name](weights=None, weights_backbone=None, **sizes).eval()


@pytest.mark.parametrize("name", BUILDERS)
def test_detector_finds_boxes_with_a_backbone_at_lower_resolution(name):
    detector, image = build(name), torch.rand(3, 256, 256)
    features = detector.backbone(image[None])
    scaled = copy.copy(detector)
    scaled._modules = dict(detector._modules)
    scaled.backbone = rs.scale_resolution(detector.backbone, 128, input_size=256)
    low = scaled.backbone(image[None])
    assert {key: x.shape for key, x in low.items()} == {key: x.shape for key, x in features.items()}
    ratio = rs.profile(scaled.backbone, (1, 3, 256, 256)).macs / rs.profile(detector.backbone, (1, 3, 256, 256)).macs
    assert 0.25 < ratio < 0.29  # a quarter, and what the first convolution and the coarsest levels keep
    with torch.no_grad():
        boxes = scaled([image])[0]["boxes"]
    assert boxes.shape[1] == 4
    rs.undo_scaling(scaled.backbone)
    again = scaled.backbone(image[None])
    assert all(torch.equal(again[key], x) for key, x in features.items())


@pytest.mark.parametrize("name", ["RetinaNet", "FCOS"])
def test_all_but_the_choice_of_boxes_is_counted(name):
    detector, image = build(name), torch.rand(1, 3, 192, 256)

    def forward(model, image):
        return model.head(list(model.backbone(image).values()))

    with FlopCounterMode(display=False) as counter:
        forward(detector, image)
    assert rs.profile(detector, (1, 3, 192, 256), forward=forward).flops == counter.get_total_flops()


def test_refusals_say_what_to_do():
    detector = build("RetinaNet")
    before = copy.deepcopy(detector.state_dict())
    with pytest.raises(ValueError, match="scale the part that does not: its backbone"):
        rs.scale_resolution(detector, 128)
    with pytest.raises(ValueError, match="forward=lambda model, inputs"):
        rs.profile(detector, [(1, 3, 192, 256)])
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
