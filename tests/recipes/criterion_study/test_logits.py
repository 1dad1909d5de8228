"""Networks of the study give logits: without an argument they are allocated as with a sigmoid given by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

from recipes.criterion_study.criteria import interpolative
from recipes.criterion_study.tasks import TASKS
from recipes.networks.unet import ResUNet
from torchprune_spatial import InterpolativeImportance, prune_to


@pytest.mark.parametrize("name", ["segmentation", "hologram"])
def test_logits_are_allocated_as_probabilities(name):
    torch.manual_seed(0)
    images = TASKS[name]().images(40, 0)
    model = ResUNet(4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for inputs, targets in zip(images.inputs.split(8), images.targets.split(8), strict=True):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(inputs), targets).backward()
            optimizer.step()
    model.eval()
    assert model(images.inputs[:8]).min() < -1.5  # logits: no probabilities
    batches = [(images.inputs[:8], images.targets[:8], images.masks[:8].float())]
    kept = []
    for importance in (InterpolativeImportance(batches), interpolative(batches)):
        pruned = copy.deepcopy(model)
        record = prune_to(pruned, images.inputs[:1], importance, compression=4, ignored_layers=[pruned.output])
        kept.append({layer: channels.tolist() for layer, channels in record.kept_out.items()})
    assert kept[0] == kept[1]
