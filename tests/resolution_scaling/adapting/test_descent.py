import copy

import torch
import torch.nn.functional as F
from torch import nn

from resolution_scaling.adapting.recalibration import recalibrate
from resolution_scaling.cnn.reduction import reduce_after_first_conv

from .small_network import images, labelled, network


def test_parameters_descend_by_sgd_with_momentum():
    model = network().eval()
    recalibrate(model, labelled(), statistics=False, parameters=["classifier"], epochs=2, lr=0.1)
    plain = network().eval()
    optimizer = torch.optim.SGD(plain[9].parameters(), lr=0.1, momentum=0.9)
    for batch, labels in labelled() * 2:
        optimizer.zero_grad()
        F.cross_entropy(plain(batch), labels).backward()
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


def test_distillation_brings_outputs_near_those_of_the_reference():
    reference = network().eval()
    model = reduce_after_first_conv(copy.deepcopy(reference), 8, 16)
    nn.init.ones_(model[5].weight)

    def distance():
        with torch.no_grad():
            return sum((model(batch).softmax(1) - reference(batch).softmax(1)).square().sum() for batch in images())

    before = distance()
    recalibrate(model, images(), reference, statistics=False, parameters=["norm"], epochs=20, lr=0.05)
    assert distance() < before / 4


def test_a_loss_of_ones_own():
    def squared(output, target):
        return (output - target).square().mean()

    model, reference = network(), network(seed=1)
    recalibrate(model, images(), reference, statistics=False, parameters=["9"], loss=squared, lr=1e-30)
    assert torch.allclose(model[9].weight, network()[9].weight)
