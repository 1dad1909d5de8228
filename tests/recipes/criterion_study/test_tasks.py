import pytest
import torch

from recipes.criterion_study.tasks import TASKS
from recipes.datasets.digits import load_digits


@pytest.mark.parametrize("task", TASKS)
def test_digits_lie_where_the_corners_say(task):
    images = TASKS[task]().images(6, 0)
    digits, labels = (part[:6] for part in load_digits())
    assert images.inputs.shape == images.targets.shape == images.masks.shape == (6, 1, 64, 64)
    assert torch.equal(images.labels, labels)
    assert torch.equal(images.crops(images.masks.float())[:, 0], (digits > 0.5).float())
    assert torch.equal(images.masks.sum((1, 2, 3)), (digits > 0.5).sum((1, 2)))  # nothing elsewhere
    assert 0 <= images.targets.min() <= images.targets.max() <= 1
    inside = images.targets[images.masks]
    assert inside.min() > 0.5


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_changes_noise_and_holes_alone(task):
    first, again, other = (TASKS[task]().images(4, seed) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    for name in ("targets", "masks", "corners", "labels"):
        assert torch.equal(getattr(first, name), getattr(other, name))


def test_inpainting_greys_squares_and_leaves_the_rest():
    images = TASKS["inpainting"]().images(8, 0)
    changed = images.inputs != images.targets
    assert (images.inputs[changed] == 0.5).all()
    assert 0.05 < changed.float().mean() < 12 * 8 * 8 / 64**2


def test_parts_are_consecutive():
    images = TASKS["denoising"]().images(10, 0)
    first, second = images.split(3, 5)
    assert torch.equal(torch.cat([first.inputs, second.inputs]), images.inputs[:8])
    assert torch.equal(second.labels, images.labels[3:8])
