"""Lower resolution against fewer filters, by training (sections 3.3 and 4.1 of the resolution-scaling paper).

A ResNet is trained in three ways: on random crops of each size K_train (RC); at full size, with its maps reduced after
the first convolution to those that K_train would give (FCR), so at a comparable training cost; and at full size with
fewer filters (width). Each is evaluated at many sizes K_eval. Validation images choose the size whose test accuracy
counts. Everything is written to the output folder, and a run that was stopped continues from there.
"""

from __future__ import annotations

from filelock import FileLock

from ..experiments.classification import open_experiment, parse_arguments, seeds_of
from ..experiments.command_line import explaining_exits, show_report
from .experiment import PRESETS
from .report import write_report


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments("resnet_resolution", "resnet", __doc__, PRESETS, arguments)
    with explaining_exits(options.output), FileLock(options.output / ".lock", timeout=0):
        preset = PRESETS[options.preset]
        experiment = open_experiment(options, preset)
        results = experiment.run(preset.variants(), seeds_of(options))
        files = write_report(experiment, results, options.command)
    show_report(options.output, files)


if __name__ == "__main__":
    main()
