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


def test_search_is_a_function_also_after_everything_was_imported():
    assert run("""
        import_everything()
        from resolution_scaling.nni import search, resume_search
        print(type(search).__name__, type(resume_search).__name__)
    """) == ["function function"]


def test_without_nni_doors_say_what_to_install():
    out = run("""
        import sys
        sys.modules["nni"] = None  # as if it were not installed
        import resolution_scaling.nni.autocompress, resolution_scaling.nni.experiment
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
    """)
    assert all("pip install" in line and "nni3]" in line for line in out)
    starts = ("ResolutionScaler needs NNI 3.0", "AutoCompressionExperiment needs NNI:", "TrialExperiment needs NNI:")
    assert [line.startswith(start) for line, start in zip(out, (*starts, "the search needs NNI"), strict=True)] == [
        True
    ] * 4


# Registration


def test_each_package_registers_its_own_algorithms():
    first, second = run("""
        print(" ".join(algorithm for algorithm in resolution_scaling.nni.algorithm_names()))
        import resolution_scaling.nni.autocompress
        print(" ".join(algorithm for algorithm in resolution_scaling.nni.algorithm_names()))
    """)
    ours = {"resolution", "spatial_mask", "thinet", "weight_sum", "apoz", "mean_activation"}
    nni = {"level", "l1", "l2", "fpgm", "slim", "taylorfo", "qat", "dorefa", "bnn"}
    installed = importlib.util.find_spec("nni") is not None
    assert ours <= set(first.split())
    assert nni <= set(second.split()) if installed else set(second.split()) == ours


def test_importing_the_modules_of_a_package_registers_nothing():
    """But what the package's own import registers."""
    pytest.importorskip("nni")
    before, after = run("""
        import resolution_scaling.nni.algorithms.pruners
        print(resolution_scaling.nni.algorithm_names())
        import_everything()
        print(resolution_scaling.nni.algorithm_names())
    """)
    assert before == after


# NNI's own modules


def test_importing_leaves_nni_as_it_was():
    pytest.importorskip("nni")
    before = """
        import nni.experiment
        try:
            import nni.compression.speedup, nni.compression.pruning, nni.compression.quantization  # NNI 3.0
        except ImportError:
            import nni.algorithms.compression.pytorch.auto_compress, nni.compression.pytorch.speedup
        from tests.resolution_scaling.nni.functions_of_nni import changed_since, functions_of_nni
        before = functions_of_nni()
    """
    out = run("import_everything()\nprint(len(before), changed_since(before))", before)
    count, changed = out[-1].split(" ", 1)
    assert int(count) > 1000
    assert changed == "[]"
