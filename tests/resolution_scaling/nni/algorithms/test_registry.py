import pytest

from resolution_scaling.nni import Algorithm, algorithm_names, find_algorithm, register_algorithm, unregister_algorithm
from resolution_scaling.nni.algorithms.module_class import check_module_class, dummy_input_of


def halve(model, config_list, module_class):
    return model


@pytest.fixture
def _registered():
    register_algorithm(Algorithm("halve_it", halve))
    yield
    if "halve_it" in algorithm_names():
        unregister_algorithm("halve_it")


@pytest.mark.usefixtures("_registered")
def test_registration_has_a_way_back():
    before = find_algorithm("halve_it")
    assert unregister_algorithm("halve_it") is before
    assert "halve_it" not in algorithm_names()
    with pytest.raises(ValueError, match="unknown algorithm 'halve_it'"):
        unregister_algorithm("halve_it")
    register_algorithm(before)
    assert find_algorithm("halve_it") is before


@pytest.mark.usefixtures("_registered")
def test_a_name_is_taken_once():
    another = Algorithm("halve_it", lambda *arguments: None)
    with pytest.raises(ValueError, match="there is an algorithm 'halve_it' already"):
        register_algorithm(another)
    register_algorithm(another, replace=True)
    assert find_algorithm("halve_it") is another
    with pytest.raises(ValueError, match="expected a word such as 'my_algorithm'"):
        register_algorithm(Algorithm("halve it", halve))


class WithInput:
    @classmethod
    def dummy_input(cls):
        return "an input"


class GivesNone:
    @classmethod
    def dummy_input(cls):
        return None


def test_the_dummy_input_is_optional_unless_there_is_a_reason():
    assert dummy_input_of(WithInput) == dummy_input_of(WithInput, "the test needs") == "an input"
    for module_class in (object, GivesNone):
        assert dummy_input_of(module_class) is None
        with pytest.raises(TypeError, match=r"has no dummy_input\(\), which the test needs. Add to it:\n    @classm"):
            dummy_input_of(module_class, "the test needs")


def test_what_is_no_class_is_refused():
    with pytest.raises(TypeError, match=r"module_class is .*expected your class itself"):
        check_module_class(WithInput())
    with pytest.raises(TypeError, match=r"WithInput lacks the class method model\(\); it needs model, evaluator"):
        check_module_class(WithInput)
