"""Whether outputs are logits, values or probabilities."""

import pytest
import torch
from torch.utils._pytree import tree_leaves_with_path

from torchprune_spatial.budget.probabilities import READINGS, reading_of, target_of, target_planes

GRID = (6, 5)


def logits_of(labels, classes):
    """What a trained network gives for labels: the right class well above the others."""
    return 8 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1) - 4 + torch.rand(len(labels), classes, *GRID)


@pytest.fixture
def labels():
    torch.manual_seed(0)
    return torch.randint(0, 3, (2, *GRID))


def test_probabilities_are_values_whatever_the_target():
    assert reading_of([torch.rand(2, 1, *GRID)], [None]) == "values"


def test_images_of_any_range_are_values():
    torch.manual_seed(0)
    for scale in (1.0, 255.0, 4.0):
        target = scale * (torch.rand(2, 3, *GRID) - 0.3)
        assert reading_of([target + 0.05 * scale * torch.randn_like(target)], [target]) == "values"


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask.float(),
        lambda mask: mask,
        lambda mask: mask.squeeze(1).float(),
        lambda mask: mask.squeeze(1).long(),
        lambda mask: mask.byte() * 255,
        lambda mask: {"mask": mask.float(), "weight": torch.ones(3)},
    ],
    ids=["float", "bool", "no channel", "labels", "0 and 255", "in a dict"],
)
def test_binary_logits(form):
    torch.manual_seed(0)
    mask = torch.rand(2, 1, *GRID) > 0.7
    logits = 6.0 * mask - 3 + torch.rand(2, 1, *GRID)
    assert reading_of([logits], [form(mask)]) == "sigmoid"


def test_classes(labels):
    void = labels.clone()
    void[0, 0, 0], void[1, 2, 2] = 255, -100
    for target in (labels, void, labels.unsqueeze(1)):
        assert reading_of([logits_of(labels, 3)], [target]) == "softmax"
    assert reading_of([logits_of(labels, 3).log_softmax(1)], [labels]) == "softmax"  # of probabilities, once more


def test_labels_of_images():
    torch.manual_seed(0)
    labels = torch.tensor([0, 4, 2, 2])
    logits = 9.0 * torch.nn.functional.one_hot(labels, 5) - 4 + torch.rand(4, 5)
    assert reading_of([logits], [labels]) == "softmax"


def test_overlapping_regions(labels):
    planes = torch.stack([labels > 0, labels > 1], 1)
    assert reading_of([8.0 * planes - 4], [planes]) == "sigmoid"


def test_a_smaller_output_is_compared_with_a_smaller_target(labels):
    large = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert reading_of([logits_of(labels, 3)], [large]) == "softmax"


def test_without_a_target():
    torch.manual_seed(0)
    wide = 5 * torch.randn(2, 3, *GRID)
    assert reading_of([wide], [None]) is None
    assert reading_of([wide], [[{"boxes": torch.rand(3, 4)}, {"boxes": torch.rand(1, 4)}]]) is None
    assert reading_of([wide.log_softmax(1)], [None]) == "softmax"
    assert reading_of([wide.tanh()], [None]) == "values"


def test_where_the_target_is_known(labels):
    void = labels.clone()
    void[0, 0, 0] = 255
    ideal, known, are_labels = target_planes(torch.zeros(2, 3, *GRID), void)
    assert are_labels
    assert known[:, 0].sum() == labels.numel() - 1
    assert not known[0, :, 0, 0].any()
    assert torch.equal(ideal.argmax(1)[known[:, 0]], labels[known[:, 0]])


@pytest.mark.parametrize("target", [torch.full((2, *GRID), 7), torch.rand(2, 4, *GRID), torch.rand(3, 3, *GRID)])
def test_targets_that_do_not_fit(target):
    """A label that is no channel, another number of channels, another number of images."""
    assert target_planes(torch.zeros(2, 3, *GRID), target) is None


def test_channels_last():
    """Classes of tokens: ``[batch, tokens, classes]``, and of pixels with the classes last."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 5, (8, 64))
    logits = 9.0 * torch.nn.functional.one_hot(tokens, 5) - 4 + torch.rand(8, 64, 5)
    assert reading_of([logits], [tokens]) == "softmax over the last dimension"
    assert READINGS["softmax over the last dimension"](logits).shape == (8, 5, 64)
    pixels = torch.randint(0, 3, (2, *GRID))
    assert reading_of([logits_of(pixels, 3).movedim(1, -1)], [pixels]) == "softmax over the last dimension"


def test_labels_are_never_values():
    """After a few steps of training logits are still small, and nearer to the one-hot labels than probabilities are."""
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (8, *GRID))
    weak = 0.6 * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) - 0.1 + 0.2 * torch.randn(8, 4, *GRID)
    assert reading_of([weak], [labels]) in ("sigmoid", "softmax")


def test_close_calls_are_not_decided():
    """Squared errors: values 16 in one half, a sigmoid (5.5 - 0.996)^2 = 20.3 in the other. Neither is clear."""
    half = torch.ones(2, 1, *GRID)
    outputs, target = torch.cat([5 * half, 5.5 * half], 3), torch.cat([half, 5.5 * half], 3)
    assert reading_of([outputs], [target]) is None
    assert reading_of([outputs / 2], [target / 2]) == "values"  # so small that it hardly matters


def test_255_is_void_or_the_object_by_all_batches():
    """A batch without objects holds 0 and 255 alone; another shows that 255 is void."""
    first, second = torch.tensor([[[0, 255]]]), torch.tensor([[[0, 1]]])
    _, known, _ = target_planes(torch.zeros(1, 1, 1, 2), first)
    assert known.tolist() == [[[[True, False]]]]
    ideal, known, _ = target_planes(torch.zeros(1, 1, 1, 2), first, mask_255=True)
    assert (ideal.tolist(), known.all().item()) == ([[[[0.0, 1.0]]]], True)
    logits = [torch.tensor([[[[-5.0, 3.4]]]]), torch.tensor([[[[-5.0, 5.0]]]])]
    assert reading_of(logits, [first, second]) == "sigmoid"


def test_targets_of_several_outputs():
    """By key; otherwise each output is compared with the target to which it comes nearest, whatever the order."""
    torch.manual_seed(0)
    depth, mask = 5 + 15 * torch.rand(2, 1, *GRID), torch.rand(2, 1, *GRID) > 0.5
    outputs = {"depth": depth + 0.1, "mask": 8.0 * mask - 4}
    paths = [path for path, _ in tree_leaves_with_path(outputs)]
    assert target_of(paths, 0, {"mask": mask, "depth": depth}) is depth
    both = (mask, depth)
    assert target_of(paths, 0, both) is both
    for target in (both, (depth, mask), {"a": depth, "b": mask, "weight": torch.ones(3)}):
        assert reading_of([outputs["depth"]], [target]) == "values"
        assert reading_of([outputs["mask"]], [target]) == "sigmoid"


def test_values_up_to_255_with_a_mask_of_0_and_255_as_target():
    torch.manual_seed(0)
    mask = (torch.rand(4, 1, *GRID) > 0.7).float()
    assert reading_of([255 * mask + 8 * torch.randn(mask.shape)], [(255 * mask).byte()]) == "values"
    assert reading_of([9 * mask - 4], [(255 * mask).byte()]) == "sigmoid"
