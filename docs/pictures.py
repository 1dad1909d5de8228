"""The figures of criterion.md: the network of ``make demo``, pruned to a tenth of its parameters.

Trains it in a minute or two; the second time it is read from ``--run``.
"""

import argparse
import copy
from pathlib import Path

from recipes.experiments.training import Hardware
from recipes.hologram_pruning.experiment import PRESETS, HologramPruning
from torchprune_spatial import SpatialMaskImportance, prune_to, report

LAYERS = ("encoder.1.2", "decoder.1.2")
"""The last layers of the second level, on the way down and up: 16 filters each."""
GRIDS = (32, 16)
"""Those on which the filters of the first and of the second level are read."""


def draw(run: Path, output: Path) -> list[Path]:
    """Train, prune, draw; returns the files."""
    experiment = HologramPruning(PRESETS["smoke"], 0, Hardware("cpu"), run)
    experiment.run([])
    base, example_inputs = experiment.base, experiment.test[:1][0]
    importance = SpatialMaskImportance(experiment.calibration)
    record = prune_to(copy.deepcopy(base), example_inputs, importance, compression=10)

    output.mkdir(parents=True, exist_ok=True)
    files = [output / f"{name}.png" for name in ("regions", "responses", "maps", "channels")]
    of_network = importance, base, example_inputs
    report.plot_regions(importance, GRIDS, path=files[0])
    report.plot_region_responses(*of_network, LAYERS, record, path=files[1])
    report.plot_activation_maps(*of_network, LAYERS[0], record, filters=2, path=files[2])
    report.plot_kept_channels(record, files[3])
    return files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=Path("results/pictures"), help="where the network is kept"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/pictures"), help="folder of the figures"
    )
    options = parser.parse_args()
    print(*draw(options.run, options.output), sep="\n")
