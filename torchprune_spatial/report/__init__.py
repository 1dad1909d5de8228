"""Pictures of a pruning: how filters respond in each region, which are kept, and where the regions lie.

Figures are matplotlib's, and know nothing of ``pyplot``. Colours are Okabe and Ito's, for the colour-blind; what they
tell is told by shapes too. Example:

    >>> from torchprune_spatial import report
    >>> base = copy.deepcopy(model)
    >>> record = prune_to(model, example_inputs, importance, compression=10)
    >>> report.plot_kept_channels(record, "channels.png")
    >>> report.plot_region_responses(importance, base, example_inputs, "encoder.0", record, path="responses.png")
    >>> report.plot_activation_maps(importance, base, example_inputs, "encoder.0", record, path="maps.png")
    >>> report.plot_regions(importance, grids=["encoder.0", 8], model=base, path="regions.png")
"""

from .region_images import plot_activation_maps, plot_regions
from .region_responses import plot_kept_channels, plot_region_responses

__all__ = ["plot_activation_maps", "plot_kept_channels", "plot_region_responses", "plot_regions"]
