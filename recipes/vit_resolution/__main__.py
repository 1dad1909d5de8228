"""Fewer tokens against smaller networks, by training (sections 3.3 and 4.2 of the resolution-scaling paper).

A vision transformer is trained on each grid of tokens, and on two of the grids also with other patches. Smaller
networks on the full grid are trained to compare: they have the FLOPs of these two grids by a smaller hidden size,
smaller MLPs, fewer blocks, or a smaller hidden size and smaller MLPs (hybrid). Everything is written to the output
folder, and a run that was stopped continues from there.
"""

from __future__ import annotations

from filelock import FileLock

from ..experiments.classification import open_experiment, parse_arguments, seeds_of
from ..experiments.command_line import explaining_exits, show_report
from .experiment import PRESETS
from .report import write_report


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments("vit_resolution", "vit", __doc__, PRESETS, arguments)
    with explaining_exits(options.output), FileLock(options.output / ".lock", timeout=0):
        preset = PRESETS[options.preset]
        experiment = open_experiment(options, preset, whole_images=True)
        rivals, missing = preset.rivals(experiment.data.classes)
        results = experiment.run(preset.variants(rivals), seeds_of(options))
        files = write_report(experiment, results, preset.network, rivals, missing, options.command)
    show_report(options.output, files)


if __name__ == "__main__":
    main()
