"""Pictures of a pruning: how filters respond in each region, which are kept, and where the regions lie.

The functions return figures of matplotlib that are not registered with ``pyplot``. The colours (Okabe and Ito's) can be
told apart by the colour-blind, and every difference of colour is one of shape too. Example:

    >>> from torchprune_spatial import report
    >>> base = copy.deepcopy(model)
    >>> record = prune_to(model, example_inputs, importance, compression=10)
    >>> report.plot_kept_channels(record, "channels.png")
    >>> report.plot_region_responses(importance, base, example_inputs, "encoder.0", record, path="responses.png")
    >>> report.plot_activation_maps(importance, base, example_inputs, "encoder.0", record, path="maps.png")
    >>> report.plot_regions(importance, grids=["encoder.0", 8], model=base, path="regions.png")
"""

from .activation_maps import plot_activation_maps
from .kept_channels import plot_kept_channels
from .region_responses import plot_region_responses
from .regions import plot_regions

__all__ = ["plot_activation_maps", "plot_kept_channels", "plot_region_responses", "plot_regions"]
