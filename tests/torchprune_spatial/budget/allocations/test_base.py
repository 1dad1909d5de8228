"""An allocation from outside the package: one class, found by its name."""

import pytest
import torch_pruning as tp

from torchprune_spatial.budget import ALLOCATIONS, Allocation, prune_to, register_allocation, unregister_allocation
from torchprune_spatial.budget.allocations import Step

from ...networks import plain_net
from ...pruning import EXAMPLE


def test_one_is_added_and_removed():
    @register_allocation
    class LastFirst(Allocation):
        """Removes all that it may from the last group, then from the one before."""

        name = "last_first"

        def order(self, work):
            return [
                Step(name, kept)
                for name in sorted(work.groups, reverse=True)
                for kept in work.groups[name].kept_counts(work.round_to, work.max_pruning_ratio)
            ]

    try:
        model = plain_net()  # widths 6 and 8
        importance = tp.importance.GroupMagnitudeImportance()
        prune_to(model, EXAMPLE, importance, compression=2, allocation="last_first", ignored_layers=[model[5]])
        assert model[0].out_channels == 6
        assert model[3].out_channels < 8
    finally:
        unregister_allocation("last_first")
    assert "last_first" not in ALLOCATIONS


def test_all_of_the_package_are_there():
    assert sorted(ALLOCATIONS) == ["cost", "global", "isomorphic", "sensitivity", "uniform"]
    assert all(allocation.name == name for name, allocation in ALLOCATIONS.items())


@pytest.mark.parametrize("name", ["cost", "two words", None])
def test_names(name):
    with pytest.raises(ValueError, match="name of Mine is"):
        register_allocation(type("Mine", (Allocation,), {"name": name}))


def test_what_is_not_there_cannot_be_taken_out():
    with pytest.raises(ValueError, match="no allocation is named 'magic'; known are"):
        unregister_allocation("magic")


@pytest.mark.parametrize("allocation", [int, "uniform", None])
def test_only_allocations_are_registered(allocation):
    with pytest.raises(TypeError, match="expected a subclass of Allocation"):
        register_allocation(allocation)
