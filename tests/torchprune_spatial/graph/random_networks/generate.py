"""Random networks. A generator of random numbers makes all choices: that of `random`, or that of hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .builder import Builder, DoesNotFit
from .network import Network, randomize
from .recipes import ALL, SIMPLE
from .recipes.moving import tokens

IMAGES = {1: (4,), 2: (4, 4), 3: (2, 2, 2)}


def random_network(random: Random, recipes: tuple[int, int] = (2, 10), simple: bool = False) -> Network:
    """A network in evaluation mode with values that are all different.

    Args:
        random: makes the choices.
        recipes: the smallest and the largest number of recipes that are followed.
        simple: only what Torch-Pruning itself prunes well: one image, one output.
    """
    b = Builder(random)
    rank = 2 if simple else b.choose((2, 2, 2, 2, 1, 3))
    b.input("map", (1, b.choose((1, 3)), *IMAGES[rank]))
    if not simple and b.chance(0.3):
        b.input(*b.choose((("map", (1, 2, *IMAGES[rank])), ("tokens", (1, 4, 3)), ("vector", (1, 3)))))
    b.convolution("input0", b.width())
    if not simple and b.chance(0.4):
        tokens(b)
    count = random.randint(*recipes)
    for _ in range(4 * count):
        if followed(b, b.choose(SIMPLE if simple else ALL)):
            count -= 1
        if count == 0:
            break
    _finish(b, simple)
    net = b.net.eval()
    randomize(net, seed=random.randrange(1000))
    return net


def followed(b: Builder, recipe: Callable[[Builder], None]) -> bool:
    """Whether the recipe found tensors that it can take; if it broke off later, what it did stays."""
    try:
        recipe(b)
    except DoesNotFit:
        return False
    return True


def _finish(b: Builder, simple: bool) -> None:
    """Layers that read the last tensors make the outputs; sometimes a tensor is an output itself."""
    read = {source for step in b.net.steps for source in step.sources}
    unread = [name for name in b.tensors if name not in read and name not in b.net.shapes]
    for name in unread if simple or b.chance(0.7) else unread[-1:]:
        try:
            b.net.outputs.append(b.projected(name, b.choose((1, 2, 3))))
        except DoesNotFit:  # too many elements
            b.net.outputs.append(name)
    if not simple and b.chance(0.15):
        b.net.outputs.append(b.choose([name for name in b.tensors if name not in b.net.shapes]))
    if len(b.net.outputs) > 1 or b.chance(0.1):
        b.net.returns = b.choose(("tuple", "dict"))
