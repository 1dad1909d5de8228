"""What `resolution_scaling.nni` and its rooms export, with NNI and without; what importing them leaves as it was."""

import importlib.util
import inspect
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOORS = {
    "resolution_scaling.nni": [
        "Algorithm",
        "ResolutionScaler",
        "Tuner",
        "register_algorithm",
        "resume_search",
        "search",
    ],
    "resolution_scaling.nni.autocompress": [
        "AbstractAutoCompressionModule",
        "AutoCompressionExperiment",
        "AutoCompressionSearchSpaceGenerator",
    ],
    "resolution_scaling.nni.experiment": ["TrialExperiment", "TrialRecord", "TrialResult"],
}
OURS = ["apoz", "interpolative", "mean_activation", "resolution", "spatial_mask", "thinet", "weight_sum"]
NAMES = [(door, name) for door, names in DOORS.items() for name in names]

EVERYTHING = """
    import importlib, pkgutil
    import resolution_scaling.nni, torchprune_spatial.nni

    def import_everything():
        for package in (resolution_scaling.nni, torchprune_spatial.nni):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                try:
                    importlib.import_module(module.name)
                except ImportError:  # of the other generation, or without NNI
                    pass
"""


def run(code, before=""):
    """The lines that a new process prints; ``before`` is run before anything of the packages is imported."""
    code = "".join(map(textwrap.dedent, (before, EVERYTHING, code)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_doors_list_their_names(door, name):
    module = importlib.import_module(door)
    assert name in module.__all__
    assert name in dir(module)


@pytest.mark.parametrize("door", DOORS)
def test_unknown_names_are_no_names(door):
    with pytest.raises(AttributeError, match=f"module '{door}' has no attribute 'nothing'"):
        importlib.import_module(door).nothing  # noqa: B018


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_doors_give_classes_and_functions(door, name):
    pytest.importorskip("nni.compression.base" if name == "ResolutionScaler" else "nni")
    found = getattr(importlib.import_module(door), name)
    assert inspect.isclass(found) or isinstance(found, types.FunctionType)


def test_without_nni_doors_say_what_to_install():
    before = """
        import sys
        sys.modules["nni"] = None  # as if it were not installed
    """
    algorithms, *errors = run(
        """
        import resolution_scaling.nni.autocompress, resolution_scaling.nni.experiment
        print(*resolution_scaling.nni.algorithm_names())
        def use(door, name):
            try:
                getattr(door, name)
            except ImportError as error:
                print(error)
        use(resolution_scaling.nni, "ResolutionScaler")
        use(resolution_scaling.nni.autocompress, "AutoCompressionExperiment")
        use(resolution_scaling.nni.experiment, "TrialExperiment")
        try:
            resolution_scaling.nni.search(object, size=[8], output="nowhere")
        except ImportError as error:
            print(error)
        """,
        before,
    )
    assert algorithms.split() == OURS
    assert all("pip install" in line and "nni3]" in line for line in errors)
    starts = ("ResolutionScaler needs NNI 3.0", "AutoCompressionExperiment needs NNI:", "TrialExperiment needs NNI:")
    for line, start in zip(errors, (*starts, "the search needs NNI"), strict=True):
        assert line.startswith(start)


def test_importing_registers_by_package_and_leaves_nni_as_it_was():
    """Algorithms are registered when their package is imported, not when one of its modules is."""
    pytest.importorskip("nni")
    before = """
        import nni.experiment
        try:
            import nni.compression.speedup, nni.compression.pruning, nni.compression.quantization  # NNI 3.0
        except ImportError:
            import nni.algorithms.compression.pytorch.auto_compress, nni.compression.pytorch.speedup
        from tests.resolution_scaling.nni.functions_of_nni import changed_since, functions_of_nni
        before = functions_of_nni()
        import resolution_scaling.nni
        print(*resolution_scaling.nni.algorithm_names())
        import resolution_scaling.nni.autocompress
        print(*resolution_scaling.nni.algorithm_names())
    """
    first, second, third, fourth, functions, count, changed = run(
        """
        print(*resolution_scaling.nni.algorithm_names())
        import_everything()
        print(*resolution_scaling.nni.algorithm_names())
        from resolution_scaling.nni import search, resume_search
        print(type(search).__name__, type(resume_search).__name__)
        print(len(before))
        print(changed_since(before))
        """,
        before,
    )
    assert first == "resolution"
    nni = {"level", "l1", "l2", "fpgm", "slim", "taylorfo", "qat", "dorefa", "bnn"}
    assert nni | {"resolution"} <= set(second.split())
    assert set(third.split()) == {*second.split(), *OURS}
    assert fourth == third
    assert functions == "function function"
    assert int(count) > 1000
    assert changed == "[]"
