"""A criterion from outside the package: one class, found by its name everywhere."""

import copy

import pytest
import torch_pruning as tp

import torchprune_spatial.nni  # noqa: F401  registers the criteria as algorithms
from resolution_scaling.nni import find_algorithm
from torchprune_spatial import CalibratedImportance, ChannelImportance, prune_to
from torchprune_spatial.calibration.measurements import MeanMagnitude
from torchprune_spatial.criteria import CRITERIA, register_criterion, unregister_criterion

from ..networks import calibration, plain_net
from ..pruning import EXAMPLE, group_of


@pytest.fixture
def quietest():
    """Keeps the channels with the lowest mean activation."""

    @register_criterion
    class QuietestImportance(CalibratedImportance):
        name = "quietest"

        def measurements(self):
            return [MeanMagnitude()]

        def score(self, group):
            means = self.values(group, MeanMagnitude())
            return None if means is None else (1 / (1 + means[0]), -means[0])

    yield QuietestImportance
    unregister_criterion("quietest")


def test_it_is_on_tp_importance_and_prunes(quietest):
    model, importance = plain_net(), tp.importance.QuietestImportance(calibration())
    means = tp.importance.MeanActivationImportance(calibration())(group_of(copy.deepcopy(model), "0"))
    record = prune_to(model, EXAMPLE, importance, compression=2, ignored_layers=[model[5]])
    kept = record.kept_out["0"].tolist()
    assert kept == sorted(means.argsort()[: len(kept)].tolist())


def test_nothing_is_left_of_it_afterwards():
    assert "quietest" not in CRITERIA
    assert not hasattr(tp.importance, "QuietestImportance")
    assert "QuietestImportance" not in tp.importance.__all__


def test_all_of_the_package_are_there():
    assert sorted(CRITERIA) == ["apoz", "interpolative", "mean_activation", "spatial_mask", "thinet", "weight_sum"]
    for name, criterion in CRITERIA.items():
        assert criterion.name == name
        assert getattr(tp.importance, criterion.__name__) is criterion
        assert find_algorithm(name).name == name


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "name of Mine is None; expected a word"),
        ({"name": "two words"}, "name of Mine is 'two words'"),
        ({"name": "apoz"}, "name of Mine is 'apoz', which is taken by APoZImportance"),
    ],
)
def test_names(attributes, message):
    with pytest.raises(ValueError, match=message):
        register_criterion(type("Mine", (ChannelImportance,), attributes))
    assert not hasattr(tp.importance, "Mine")


def test_a_class_of_torch_prunings_name_is_refused():
    kind = type("RandomImportance", (ChannelImportance,), {"name": "at_random"})
    with pytest.raises(ValueError, match=r"tp\.importance has a RandomImportance already"):
        register_criterion(kind)
    assert tp.importance.RandomImportance is not kind


@pytest.mark.parametrize("criterion", [int, tp.importance.RandomImportance, "apoz"])
def test_only_importances_of_ours_are_registered(criterion):
    with pytest.raises(TypeError, match="expected a subclass of ChannelImportance"):
        register_criterion(criterion)
