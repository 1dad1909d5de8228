"""Judging saved pictures."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread


def assert_shows(path, figure, colors):
    """A PNG has the size of its figure, and pixels of each of the colours in which the data are drawn."""
    pixels = imread(path)[..., :3]
    width, height = (round(150 * inches) for inches in figure.get_size_inches())
    assert pixels.shape == (height, width, 3)
    for color in colors:
        assert np.isclose(pixels, to_rgb(color), atol=1 / 255).all(-1).any(), color
