"""One network and one importance for all the pictures."""

import pytest

from torchprune_spatial import SpatialMaskImportance

from ..networks import calibration, plain_net


@pytest.fixture(scope="module")
def net():
    return plain_net().eval()


@pytest.fixture(scope="module")
def importance():
    return SpatialMaskImportance(calibration())
