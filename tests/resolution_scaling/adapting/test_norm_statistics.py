import copy

import torch
import torch.nn.functional as F

from resolution_scaling.adapting.norm_statistics import moments_of, replaced, together
from resolution_scaling.adapting.recalibration import recalibrate

from .small_network import images, network, tensors


def test_moments_are_those_of_all_batches_at_once():
    maps = torch.randn(10, 3, 4, 5) * 2 + 100
    first, *others = maps.split([1, 4, 2, 3])
    moments = moments_of(first)
    for part in others:
        moments = together(moments, moments_of(part))
    values = maps.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean, values.mean(1))
    torch.testing.assert_close(replaced(moments)[1], values.var(1))
    assert moments.positions == 200


def test_without_a_reference_the_statistics_are_those_of_the_images():
    model = network()
    first, second = images(2)
    recalibrate(model, [first, second])
    torch.manual_seed(0)
    plain = network()
    maps = [plain[0](batch).detach() for batch in (first, second)]
    torch.testing.assert_close(model[1].running_mean, torch.cat(maps).mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, torch.cat(maps).transpose(0, 1).flatten(1).var(1))
    normed = [  # each batch by its own statistics
        F.batch_norm(m, m.mean((0, 2, 3)), m.transpose(0, 1).flatten(1).var(1), plain[1].weight, plain[1].bias)
        for m in maps
    ]
    deeper = torch.cat([plain[4](n.relu()) for n in normed])
    torch.testing.assert_close(model[5].running_mean, deeper.mean((0, 2, 3)))
    torch.testing.assert_close(model[5].running_var, deeper.transpose(0, 1).flatten(1).var(1))


def test_with_a_reference_the_statistics_move_as_the_images_do():
    model, (batch,) = network(), images(1)
    recalibrate(model, [batch], model, size=8)
    plain = network()
    small = F.interpolate(batch, (8, 8), mode="bilinear", antialias=True)
    low, full = (plain[0](x).transpose(0, 1).flatten(1) for x in (small, batch))
    old_mean, old_var = plain[1].running_mean, plain[1].running_var
    full_std, old_std = (full.var(1) + 1e-5).sqrt(), (old_var + 1e-5).sqrt()
    torch.testing.assert_close(model[1].running_mean, old_mean + (low.mean(1) - full.mean(1)) / full_std * old_std)
    torch.testing.assert_close(model[1].running_var, old_var * (low.var(1) + 1e-5) / (full.var(1) + 1e-5))


def test_layers_behind_are_measured_behind_adapted_ones():
    model, (batch,) = network(), images(1)
    recalibrate(model, [batch], model, size=8)
    plain = network().eval()
    small = F.interpolate(batch, (8, 8), mode="bilinear", antialias=True)
    before = plain[:5](batch).transpose(0, 1).flatten(1)  # as the network was, at full size
    plain[1].load_state_dict(model[1].state_dict())
    now = plain[:5](small).transpose(0, 1).flatten(1)  # as it is now, at the small one
    std, old_std = (before.var(1) + 1e-5).sqrt(), (plain[5].running_var + 1e-5).sqrt()
    expected = plain[5].running_mean + (now.mean(1) - before.mean(1)) / std * old_std
    torch.testing.assert_close(model[5].running_mean, expected)


def test_the_same_resolution_moves_nothing():
    model = network()
    before = tensors(model)
    recalibrate(model, images(), copy.deepcopy(model))
    assert all(torch.allclose(before[name], tensor, rtol=1e-6) for name, tensor in tensors(model).items())
