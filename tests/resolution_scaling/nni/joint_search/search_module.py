"""A network that is searched in the tests, in a file of its own so that trials can import it."""

import os

import torch
import torch.nn as nn

from resolution_scaling.nni.algorithms.registry import Algorithm, register_algorithm


def network(channels=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def flops(channels, size, low):
    """By hand: two a multiplication; the first convolution works on the full image, the second on the reduced maps."""
    return 2 * 9 * (channels * size**2 + 16 * channels * low**2)


def narrow(model, config_list, module_class, factor=None):
    """Keep the first channels of the first convolution."""
    first, second = model[0], model[2]
    ratio = 1 - 1 / factor if factor else config_list[0]["sparsity"]
    kept = round(first.out_channels * (1 - ratio))
    model[0] = nn.Conv2d(1, kept, 3, padding=1, bias=False, device=first.weight.device)
    model[2] = nn.Conv2d(kept, 16, 3, padding=1, bias=False, device=first.weight.device)
    if not first.weight.is_meta:
        model[0].weight.data.copy_(first.weight.data[:kept])
        model[2].weight.data.copy_(second.weight.data[:, :kept])
    return model


def blind(model, config_list, module_class):
    """Like those of NNI: it cannot tell beforehand what it leaves."""
    return narrow(model, config_list, module_class)


for algorithm in (Algorithm("narrow", narrow, narrow), Algorithm("blind", blind)):
    register_algorithm(algorithm, replace=True)


class Searched:
    """The score is the number of channels left, and the epochs trained; so that a result tells what was done."""

    calls: list[str] = []

    @classmethod
    def model(cls):
        return network()

    @classmethod
    def dummy_input(cls):
        return torch.rand(1, 1, 16, 16)

    @classmethod
    def evaluator(cls):
        return cls.evaluate

    @classmethod
    def evaluate(cls, model):
        cls.calls.append("evaluate")
        return model(torch.rand(2, 1, 16, 16)).shape[0] / 2 * model[0].out_channels / 8

    @classmethod
    def optimizer_factory(cls):
        return lambda parameters: torch.optim.SGD(parameters, 0.1)

    @classmethod
    def criterion(cls):
        return nn.functional.mse_loss

    @classmethod
    def sparsifying_trainer(cls, compress_algorithm_name):
        return cls.train

    @classmethod
    def post_compress_finetuning_trainer(cls, compress_algorithm_name):
        return cls.train

    @classmethod
    def train(cls, model, optimizer, criterion, epoch):
        cls.calls.append(f"epoch {epoch}")

    @classmethod
    def post_compress_finetuning_epochs(cls, compress_algorithm_name):
        cls.calls.append(f"epochs of {compress_algorithm_name}")
        return 2


class Faulty(Searched):
    """Gives NaN where the network is scaled, and ends the process where it keeps six channels."""

    @classmethod
    def evaluate(cls, model):
        if model[0].out_channels == 6:
            os._exit(3)
        return float("nan") if type(model[0]) is not nn.Conv2d else 1.0


class Talkative(Searched):
    """Its evaluator gives text."""

    @classmethod
    def evaluate(cls, model):
        return "very good"
