import sys
from pathlib import Path

import pytest

from resolution_scaling.nni import Tuner, register_tuner, search, unregister_tuner
from resolution_scaling.nni.tuners import TPE, Implementation, find_tuner, tuner_names

from ..joint_search.search_module import Searched, flops


class Cautious(Tuner):
    """NNI loads its class from the file beside this one."""

    name = "Cautious"

    def direction(self):
        return {}  # its class has no optimize_mode

    def arguments(self, *, seed, max_trials, concurrency):
        return {"patience": max_trials}

    def implementation(self, generation):
        return Implementation("cautious_tuner.CautiousTuner", Path(__file__).parent)


@pytest.fixture
def _cautious():
    register_tuner(Cautious)
    yield
    unregister_tuner("Cautious")


def arguments(name, seed=3, max_trials=20, concurrency=1):
    return find_tuner(name).arguments(seed=seed, max_trials=max_trials, concurrency=concurrency)


def test_the_arguments_that_searches_give():
    assert arguments("TPE") == arguments("Random") == {"seed": 3}
    assert arguments("GridSearch") == {}
    assert arguments("Evolution", max_trials=30, concurrency=2) == {"population_size": 10}
    assert arguments("Evolution", max_trials=3, concurrency=4) == {"population_size": 5}
    assert all(find_tuner(name).direction() == {"optimize_mode": "maximize"} for name in tuner_names())


def test_the_class_that_nni_loads():
    """NNI 3.0's own TPE can be killed by trials that run at once."""
    ours = find_tuner("tpe").implementation(3)
    assert ours.class_name == "steady_tpe.SteadyTPE"
    assert (ours.code_directory / "steady_tpe.py").is_file()
    assert find_tuner("TPE").implementation(2) is None
    assert find_tuner("Evolution").implementation(3) is None


def test_no_module_of_nnis_process_is_shadowed():
    """NNI adds the folder to the path: there is nothing in it but the class."""
    folder = find_tuner("TPE").implementation(3).code_directory
    assert {file.name for file in folder.glob("*.py")} == {"__init__.py", "steady_tpe.py"}


def test_other_tuners_of_nni_can_be_named():
    tuner = find_tuner("Hyperband")
    assert (tuner.name, tuner.implementation(3), tuner.failed_status) == ("Hyperband", None, 1)


@pytest.mark.usefixtures("_cautious")
def test_a_tuner_is_registered_once():
    assert isinstance(find_tuner("cautious"), Cautious)
    assert tuner_names() == ["Anneal", "Cautious", "Evolution", "GridSearch", "Random", "SMAC", "TPE"]
    with pytest.raises(ValueError, match="there is a tuner 'Cautious' already"):
        register_tuner(Cautious)
    assert register_tuner(Cautious, replace=True) is Cautious


@pytest.mark.parametrize("tuner", [Cautious(), int, "Cautious"])
def test_only_classes_of_tuners_are_registered(tuner):
    with pytest.raises(TypeError, match="expected a subclass of Tuner"):
        register_tuner(tuner)


@pytest.mark.parametrize("attributes", [{}, {"name": ""}, {"name": "two words"}, {"name": 3}])
def test_names_of_tuners_are_words(attributes):
    with pytest.raises(ValueError, match=r"name of Mine is .*; expected a word such as 'TPE'"):
        register_tuner(type("Mine", (Tuner,), attributes))


def test_registering_decorates_a_class():
    @register_tuner
    class Halving(Tuner):
        name = "Halving"

    assert isinstance(find_tuner("halving"), Halving)
    assert unregister_tuner("Halving") is Halving
    assert "Halving" not in tuner_names()


def test_unknown_tuners_cannot_be_unregistered():
    with pytest.raises(ValueError, match="unknown tuner 'Cautious'; known are 'Anneal', 'Evolution'"):
        unregister_tuner("Cautious")


@pytest.mark.usefixtures("_cautious")
def test_a_search_finds_a_tuner_from_outside(port, tmp_path):
    """It asks for the first choices, then for the last: the unchanged network, then half of it at half its size."""
    pytest.importorskip("nni")
    result = search(
        Searched,
        pruning={"narrow": [0.5]},
        size=[8],
        tuner="Cautious",
        max_trials=2,
        output=tmp_path / "search",
        port=port,
    )
    found = {(row["pruning"], row["resolution"]): (row["status"], row["flops"]) for row in result.rows}
    assert found == {
        ("none", "keep"): ("succeeded", flops(8, 16, 16)),
        ("narrow 0.5", "8 px"): ("succeeded", flops(4, 16, 8)),
    }


@pytest.mark.parametrize("tuner", [TPE(), Cautious()])
def test_nni_can_load_the_classes(tuner, monkeypatch):
    """By its own function, which its tuner process calls."""
    factory = pytest.importorskip("nni.tools.package_utils.tuner_factory")
    monkeypatch.setattr(sys, "path", list(sys.path))
    implementation = tuner.implementation(3)
    given = {
        "codeDirectory": str(implementation.code_directory),
        "className": implementation.class_name,
        "classArgs": tuner.direction() | tuner.arguments(seed=0, max_trials=4, concurrency=1),
    }
    made = factory.create_customized_class_instance(given)
    made.update_search_space({"x": {"_type": "choice", "_value": [1, 2]}})
    assert made.generate_parameters(0)["x"] in (1, 2)
    assert f"{type(made).__module__}.{type(made).__name__}" == implementation.class_name
