"""AutoCompress on the generation of NNI that is installed: the same tests, and the same module of a user, for both."""

import copy

import pytest
import torch
import torch.nn as nn

pytest.importorskip("nni")

from resolution_scaling.nni import Algorithm, find_algorithm, register_algorithm
from resolution_scaling.nni.algorithms import registry
from resolution_scaling.nni.algorithms.generation import NNI_3
from resolution_scaling.nni.autocompress import (
    AbstractAutoCompressionModule,
    AutoCompressionExperiment,
    AutoCompressionSearchSpaceGenerator,
)
from resolution_scaling.nni.autocompress.compact_space import decode
from resolution_scaling.nni.autocompress.trial import compress_and_evaluate
from resolution_scaling.nni.experiment import manager
from resolution_scaling.nni.experiment.trial import metric_of_trial

from ..calibrated_module import Calibrated
from ..example_module import Module, Network, Textual, train
from ..experiment.test_trial_experiment import ROOT, lines

CONVOLUTIONS = [{"op_types": ["Conv2d"], "op_names": ["conv1", "conv2"], "sparsity": 0.5}]
PARAMETERS = 8 * 9 + 8 + 2 * 8 + 16 * 8 * 9 + 16 + 2 * 16 + 16 * 16 * 9 + 16 + 2 * 16 + 2
SPARED = {"op_names": ["conv3"], "exclude": True}
NORMS = [{"op_types": ["BatchNorm2d"], "sparsity": 0.5}]
WEIGHTS = [{"op_types": ["Conv2d"], "quant_types": ["weight"], "quant_bits": 8}]
QUANTIZERS = ["qat", "dorefa", "bnn", *(["ptq", "lsq", "lsqplus"] if NNI_3 else ["naive"])]
RATIO = {"_type": "quniform", "_value": [0.2, 0.6, 0.1]}
SIZES = {"_type": "choice", "_value": [8, 12]}


def flops(first, second, third, low=16):
    """Of two images, by hand: convolutions of 9 taps on 16 px, the later ones on ``low`` px, and the last layer."""
    return 2 * 2 * (9 * first * 16**2 + 9 * (first * second + second * third) * low**2 + third * 2)


def choice(name, config_list, **parameters):
    """What a tuner would give for a configuration that leaves no choice."""
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config(name, config_list, **parameters)
    (space,) = generator.dumps()["algorithm_name"]["_value"]
    return {"algorithm_name": {k: v if k == "_name" else v["_value"][0] for k, v in space.items()}}


# One trial


@pytest.mark.parametrize(
    ("name", "config_list", "parameters", "expected"),
    [
        *((name, CONVOLUTIONS, {}, flops(4, 8, 16)) for name in ("l1", "l2", "fpgm", "taylorfo")),
        ("taylorfo", CONVOLUTIONS, {"sparsifying_training_batches": 3}, flops(4, 8, 16)),
        ("level", CONVOLUTIONS, {}, flops(8, 16, 16)),
        ("resolution", [], {"size": 8}, flops(8, 16, 16, low=8)),
        ("resolution", [], {"size": 12.0}, flops(8, 16, 16, low=12)),
        ("halve", [], {"share": 0.25}, flops(8, 16, 4)),
        *(((n, CONVOLUTIONS, {}, flops(4, 8, 16)) for n in ("apoz", "mean_activation")) if not NNI_3 else ()),
        *([("l1", CONVOLUTIONS, {"dependency_aware": True}, flops(4, 8, 16))] if not NNI_3 else []),
        *([("movement", CONVOLUTIONS, {"warmup_step": 1, "cooldown_begin_step": 6}, flops(4, 8, 16))] if NNI_3 else []),
    ],
)
def test_networks_are_really_smaller_after_a_trial(name, config_list, parameters, expected):
    metrics = compress_and_evaluate(Module, choice(name, config_list, **parameters))
    assert metrics["flops"] == expected
    assert 0 <= metrics["default"] <= 1
    assert metrics["parameter_count"] > 0


@pytest.mark.parametrize(("kind", "values"), [("choice", [0.25, 0.5]), ("uniform", [0.2, 0.6])])
@pytest.mark.parametrize("name", ["spatial_mask", "thinet", "weight_sum", "apoz", "mean_activation"])
def test_our_criteria_prune_what_a_searched_config_list_says(name, kind, values):
    """No other layers, and by no other ratio: the last convolution keeps its channels."""
    generator = AutoCompressionSearchSpaceGenerator()
    ratio = {"_type": kind, "_value": values}
    generator.add_config(name, [{"op_types": ["Conv2d"], "sparsity": ratio}, SPARED])
    (space,) = generator.dumps()["algorithm_name"]["_value"]
    searched = "config_list::Conv2d::::sparsity"
    assert space[searched] == ratio
    chosen = {"_name": name, searched: 0.25, "config_list::::conv3::exclude": True}
    assert space.keys() == chosen.keys()
    assert compress_and_evaluate(Calibrated, {"algorithm_name": chosen})["flops"] == flops(6, 12, 16)


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_our_criteria_work_on_the_whole_network_without_a_config_list():
    metrics = compress_and_evaluate(Calibrated, choice("spatial_mask", [], compression=2))
    assert metrics["parameter_count"] == pytest.approx(PARAMETERS / 2, rel=0.02)


@pytest.mark.parametrize(
    "parameters", [{"sparsifying_training_epochs": 2}, *([{"training_steps": 6}] if NNI_3 else [])]
)
def test_slim_takes_the_channels_of_small_batch_norms_out(parameters):
    """Half of the 24 channels of the two batch norms; NNI 2.10.1 ranks them together, 3.0 layer by layer."""
    network = find_algorithm("slim").compress(Module.model(), NORMS, Module, **parameters)
    first, second = network.bn1.num_features, network.bn2.num_features
    assert first + second == 12
    assert (network.conv1.out_channels, network.conv2.out_channels) == (first, second)
    assert network.conv3.in_channels == second


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantizers_run(name):
    bits = [{**WEIGHTS[0], "quant_bits": 1 if name == "bnn" and not NNI_3 else 8}]
    metrics = compress_and_evaluate(Module, choice(name, bits))
    assert 0 <= metrics["default"] <= 1
    assert metrics["flops"] == flops(8, 16, 16)
    assert metrics["parameter_count"] == PARAMETERS
    assert "memory_bytes" not in metrics  # that depends on how the bits are stored


def test_quantized_networks_compute_with_quantized_weights(monkeypatch):
    """Eight bits are at most 256 values; the third convolution has 2,304 weights."""
    network = find_algorithm("qat").compress(Module.model(), WEIGHTS, Module).eval()
    distinct = []

    def convolution(image, weight, *arguments):
        distinct.append(weight.unique().numel())
        return torch.conv2d(image, weight, *arguments)

    monkeypatch.setattr(nn.functional, "conv2d", convolution)
    network(torch.rand(1, 1, 16, 16))
    assert distinct[-1] <= 256


@pytest.mark.skipif(not NNI_3, reason="NNI 2.10.1 quantizes without training too")
def test_quantizers_of_nni_3_need_fine_tuning():
    with pytest.raises(
        ValueError, match=r"'qat' of NNI 3.0 quantizes while it is fine-tuned, and Untrained gives no ep"
    ):
        find_algorithm("qat").compress(Module.model(), WEIGHTS, Untrained)


def test_level_keeps_pruned_weights_at_zero_while_the_network_is_fine_tuned():
    network = find_algorithm("level").compress(Module.model(), CONVOLUTIONS, Module)
    train(network, torch.optim.SGD(network.parameters(), 0.1), nn.CrossEntropyLoss(), 0)
    network(torch.rand(1, 1, 16, 16))
    assert (network.conv2.weight == 0).float().mean() == pytest.approx(0.5)


def test_l1_keeps_the_filters_with_the_largest_sums():
    model = Module.model()
    sums = model.conv1.weight.abs().sum((1, 2, 3))
    kept = sums.topk(4).indices.sort().values
    network = find_algorithm("l1").compress(model, CONVOLUTIONS, Module)
    assert torch.equal(network.conv1.weight, model.conv1.weight[kept])
    assert torch.equal(network.bn1.weight, model.bn1.weight[kept])


def test_excluded_layers_are_left():
    config_list = [{"op_types": ["Conv2d"], "sparsity": 0.5}, SPARED]
    network = find_algorithm("l1").compress(Module.model(), config_list, Module)
    assert (network.conv1.out_channels, network.conv2.out_channels, network.conv3.out_channels) == (4, 8, 16)


@pytest.mark.parametrize("name", ["l1", "resolution"])
def test_a_network_that_cannot_be_compressed_is_as_it_was(name):
    model = Module.model().train()
    before = copy.deepcopy(model.state_dict())
    config_list, parameters = (
        ([], {"size": 32}) if name == "resolution" else ([{"op_types": ["Conv3d"], "sparsity": 0.5}], {})
    )
    with pytest.raises(ValueError, match="size" if name == "resolution" else "fits no layer"):
        find_algorithm(name).compress(model, config_list, Module, **parameters)
    assert type(model.conv1) is nn.Conv2d
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Untraceable(Network):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Untrained(Module):
    @classmethod
    def post_compress_finetuning_epochs(cls, compress_algorithm_name):
        return 0


def test_a_network_that_nni_cannot_speed_up_is_named():
    if not NNI_3:
        pytest.skip("NNI 2.10.1 traces by running the network")
    with pytest.raises(RuntimeError, match=r"NNI 3.0 pruned Untraceable by 'l1', but could not speed it up"):
        find_algorithm("l1").compress(Untraceable(), CONVOLUTIONS, Module)


def test_trainers_that_are_missing_are_named():
    class Without(Module):
        @classmethod
        def sparsifying_trainer(cls, compress_algorithm_name):
            return None

    with pytest.raises(TypeError, match=r"Without.sparsifying_trainer\('taylorfo'\) gave None"):
        find_algorithm("taylorfo").compress(Module.model(), CONVOLUTIONS, Without)


def test_fine_tuning_gets_its_arguments_by_position_in_the_order_of_nni():
    seen = []

    class Positional(Module):
        @classmethod
        def post_compress_finetuning_trainer(cls, compress_algorithm_name):
            return lambda *arguments: seen.append((compress_algorithm_name, *arguments))

        @classmethod
        def post_compress_finetuning_epochs(cls, compress_algorithm_name):
            return 2

    compress_and_evaluate(Positional, choice("resolution", [], size=8))
    assert [(name, epoch) for name, _, _, _, epoch in seen] == [("resolution", 0), ("resolution", 1)]
    _, model, optimizer, criterion, _ = seen[0]
    assert isinstance(model, Network)
    assert isinstance(optimizer, torch.optim.SGD)
    assert isinstance(criterion, nn.CrossEntropyLoss)


def test_sparsifying_trainers_get_theirs_by_name():
    seen = []

    class ByName(Untrained):
        @classmethod
        def sparsifying_trainer(cls, compress_algorithm_name):
            train = Module.sparsifying_trainer(compress_algorithm_name)

            def trainer(model, optimizer, criterion, epoch):
                seen.append((optimizer.param_groups[0]["momentum"], epoch))
                train(model, optimizer, criterion, epoch)

            return trainer

    find_algorithm("slim").compress(Module.model(), NORMS, ByName, sparsifying_training_epochs=3)
    assert seen == [(0.9, 0), (0.9, 1), (0.9, 2)]


def test_an_evaluator_that_gives_text_is_a_failed_trial():
    run, module_class = (
        f"{function.__module__}:{function.__qualname__}" for function in (compress_and_evaluate, Textual)
    )
    metric, succeeded = metric_of_trial(run, module_class, choice("resolution", [], size=8), {})
    assert not succeeded
    assert metric["error"] == "TypeError: a trial gave 'excellent' (str); expected a finite number"


# Search spaces


def test_search_spaces_have_the_keys_of_nni():
    pruned = [
        {"op_types": ["Conv2d", "Linear"], "op_names": ["conv1", "conv2"], "sparsity": RATIO},
        {"op_names": ["a"], "exclude": True},
    ]
    given = copy.deepcopy(pruned)
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("l1", pruned)
    generator.add_config("qat", WEIGHTS)
    generator.add_config("resolution", [], size=SIZES, method="fcr")
    assert pruned == given
    assert generator.dumps() == {
        "algorithm_name": {
            "_type": "choice",
            "_value": [
                {
                    "_name": "l1",
                    "config_list::Conv2d:Linear::conv1:conv2::sparsity": RATIO,
                    "config_list::::a::exclude": {"_type": "choice", "_value": [True]},
                },
                {"_name": "qat", "config_list::weight::Conv2d::::quant_bits": {"_type": "choice", "_value": [8]}},
                {
                    "_name": "resolution",
                    "parameter::size": SIZES,
                    "parameter::method": {"_type": "choice", "_value": ["fcr"]},
                },
            ],
        }
    }
    again = AutoCompressionSearchSpaceGenerator.loads(generator.dumps())
    assert again.dumps() == generator.dumps()
    if not NNI_3:
        from nni.algorithms.compression.pytorch.auto_compress import AutoCompressionSearchSpaceGenerator as Nni

        nni = Nni()
        nni.add_config("l1", copy.deepcopy(pruned))
        nni.add_config("qat", copy.deepcopy(WEIGHTS))
        assert nni.dumps()["algorithm_name"]["_value"] == generator.dumps()["algorithm_name"]["_value"][:2]


def test_what_is_configured_is_what_a_trial_reads():
    chosen = {
        "_name": "l1",
        "config_list::Conv2d:Linear::conv1:conv2::sparsity": 0.3,
        "config_list::::fc::exclude": True,
        "config_list::weight:output::Conv2d::::quant_bits": {"weight": 8, "output": 4},
        "parameter::dependency_aware": True,
    }
    assert decode(chosen) == (
        [
            {"op_types": ["Conv2d", "Linear"], "op_names": ["conv1", "conv2"], "sparsity": 0.3},
            {"op_names": ["fc"], "exclude": True},
            {"quant_types": ["weight", "output"], "op_types": ["Conv2d"], "quant_bits": {"weight": 8, "output": 4}},
        ],
        {"dependency_aware": True},
    )


def test_bits_of_several_tensors_become_a_choice_that_tuners_take():
    bits = {"weight": {"_type": "choice", "_value": [4, 8]}, "output": 8}
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("qat", [{"op_types": ["Conv2d"], "quant_types": ["weight", "output"], "quant_bits": bits}])
    (choice,) = generator.dumps()["algorithm_name"]["_value"]
    both = [{"weight": 4, "output": 8}, {"weight": 8, "output": 8}]
    assert choice["config_list::weight:output::Conv2d::::quant_bits"] == {"_type": "choice", "_value": both}


@pytest.mark.parametrize(
    ("name", "config_list", "parameters", "error", "message"),
    [
        ("l3", CONVOLUTIONS, {}, ValueError, "unknown algorithm 'l3'"),
        (1, [], {}, TypeError, "algorithm_name is 1"),
        ("l1", [], {}, ValueError, "config_list of 'l1' is empty"),
        ("l1", [{"sparsity": 0.5}], {}, ValueError, "names no op_types and no op_names"),
        ("l1", {"op_types": ["Conv2d"]}, {}, TypeError, "expected a list of dicts"),
        (
            "l1",
            [{"op_types": "Conv2d", "sparsity": 0.5}],
            {},
            TypeError,
            r"op_types .*expected a list, as \['Conv2d'\]",
        ),
        ("l1", CONVOLUTIONS, {"speed": 1}, TypeError, "'l1' of NNI .* has no parameter 'speed'"),
        ("taylorfo", CONVOLUTIONS, {"statistics_batch_num": 1}, TypeError, "it has .*sparsifying_training_batches"),
        ("l1", [{"op_types": ["Conv2d"]}], {}, ValueError, "'l1' is .*; expected entries .* each with a value"),
        ("l1", [*CONVOLUTIONS, *CONVOLUTIONS], {}, ValueError, "expected entries that differ in op_types or op_names"),
        ("resolution", CONVOLUTIONS, {"size": 8}, ValueError, r"expected \[\]: the whole network is scaled"),
        ("resolution", [{"op_types": ["Conv2d"]}], {"size": 8}, ValueError, r"expected \[\]: the whole network"),
        ("resolution", [], {}, TypeError, "'resolution' needs a size"),
        ("resolution", [], {"size": 0}, ValueError, "size of 'resolution' is 0"),
        ("resolution", [], {"size": {"_type": "choice", "_value": [8, -8]}}, ValueError, "size of 'resolution' is -8"),
        ("resolution", [], {"size": {"_type": "randint", "_value": [0, 9]}}, ValueError, "size of 'resolution' is 0"),
        ("resolution", [], {"size": 8.5}, ValueError, "a whole number of px"),
        ("resolution", [], {"grid": "11"}, TypeError, "a whole number of tokens a side"),
        ("resolution", [], {"pixels": 8}, TypeError, "'resolution' has no parameter 'pixels'"),
        ("resolution", [], {"size": 8, "method": "rc"}, ValueError, "method of 'resolution' is 'rc'"),
    ],
)
def test_configurations_that_cannot_work_are_refused(name, config_list, parameters, error, message):
    generator = AutoCompressionSearchSpaceGenerator()
    with pytest.raises(error, match=message):
        generator.add_config(name, config_list, **parameters)
    assert generator.dumps()["algorithm_name"]["_value"] == []


IMPORT = "`import torchprune_spatial.nni`.*taylorfo"


@pytest.mark.skipif(not NNI_3, reason="they are in NNI 2.10.1")
@pytest.mark.parametrize(("name", "way_round"), [("apoz", IMPORT), ("mean_activation", IMPORT), ("naive", "ptq")])
def test_algorithms_that_nni_3_lost_are_told_with_the_way_round(name, way_round, monkeypatch):
    monkeypatch.delitem(registry._algorithms, name, raising=False)  # as if ours were not imported
    generator = AutoCompressionSearchSpaceGenerator()
    with pytest.raises(ValueError, match=f"{name!r} is not in the NNI that is installed: .*{way_round}.*extra nni2"):
        generator.add_config(name, CONVOLUTIONS)


def test_what_to_import_is_told_where_algorithms_are_unknown(monkeypatch):
    monkeypatch.setattr(registry, "_algorithms", {})
    with pytest.raises(ValueError, match=r"known here are none\. NNI's own .* `import resolution_scaling.nni.auto"):
        find_algorithm("l1")


# Experiments


def configured(module=Module, output=None, **sizes):
    """As a script of a user does it."""
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("l1", CONVOLUTIONS)
    generator.add_config("resolution", [], **(sizes or {"size": SIZES}))
    generator.add_config("halve", [], share=0.5)
    experiment = AutoCompressionExperiment(module, "local", output=output)
    experiment.config.experiment_name = "tests of AutoCompress"
    experiment.config.trial_code_directory = ROOT
    experiment.config.search_space = generator.dumps()
    experiment.config.tuner.name = "GridSearch"
    experiment.config.trial_concurrency = 1
    experiment.config.max_trial_number = 10
    return experiment


def test_pruning_resolution_and_a_users_own_algorithm_in_one_search(tmp_path, port):
    """A grid of three points: the search ends by itself; costs are those of the table by hand."""
    experiment = configured(output=tmp_path / "search", size=8)
    experiment.config.trial_concurrency = 2
    results = experiment.run(port)
    found = {}
    for result in results:
        assert result.status == "succeeded"
        assert 0 <= result.score <= 1
        chosen = result.parameters["algorithm_name"]
        found[chosen["_name"], chosen.get("parameter::size")] = result.metrics["flops"]
    assert found == {
        ("l1", None): flops(4, 8, 16),
        ("resolution", 8): flops(8, 16, 16, low=8),
        ("halve", None): flops(8, 16, 8),
    }
    assert len(lines(tmp_path / "search")) == 3
    assert [line["trial"] for line in lines(tmp_path / "search")] == [result.trial for result in results]


@pytest.mark.slow
def test_our_criteria_in_a_search(tmp_path, port):
    """Two points of 'spatial_mask', and one of 'apoz', which is NNI's own on 2.10.1 and ours on 3.0."""
    assert (registry.home_of("apoz") == "torchprune_spatial.nni.algorithms") == NNI_3
    generator = AutoCompressionSearchSpaceGenerator()
    ratio = {"_type": "quniform", "_value": [0.25, 0.5, 0.25]}
    generator.add_config("spatial_mask", [{"op_types": ["Conv2d"], "sparsity": ratio}, SPARED])
    generator.add_config("apoz", CONVOLUTIONS)
    experiment = configured(Calibrated, tmp_path / "search")
    experiment.config.search_space = generator.dumps()
    found = {}
    for result in experiment.run(port):
        assert result.status == "succeeded"
        chosen = result.parameters["algorithm_name"]
        found[chosen["_name"], chosen.get("config_list::Conv2d::::sparsity")] = result.metrics["flops"]
    assert found == {
        ("spatial_mask", 0.25): flops(6, 12, 16),
        ("spatial_mask", 0.5): flops(4, 8, 16),
        ("apoz", None): flops(4, 8, 16),
    }


def test_impossible_resolutions_are_told_before_the_experiment_starts(tmp_path, port):
    experiment = configured(output=tmp_path / "search", size={"_type": "choice", "_value": [8, 24]})
    with pytest.raises(ValueError, match="'resolution' with size=24 cannot be done to Network: "):
        experiment.run(port)
    experiment = configured(output=tmp_path / "search", grid=7)
    with pytest.raises(ValueError, match="'resolution' with grid=7 cannot be done to Network: "):
        experiment.run(port)
    assert not (tmp_path / "search" / "experiment.json").exists()


def test_layers_that_there_are_not_are_told_beside_a_range_too(tmp_path, port):
    ratio = {"_type": "uniform", "_value": [0.2, 0.6]}
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("spatial_mask", [{"op_types": ["Conv2d"], "op_names": ["conv9"], "sparsity": ratio}])
    experiment = configured(Calibrated, tmp_path / "search")
    experiment.config.search_space = generator.dumps()
    with pytest.raises(ValueError, match=r"'spatial_mask' with .* cannot be done to Network: .*names 'conv9'"):
        experiment.run(port)
    assert not (tmp_path / "search" / "experiment.json").exists()


def test_what_the_configuration_lacks_is_told_before_the_experiment_starts(port):
    experiment = configured()
    experiment.config.tuner.name = "TPE"
    with pytest.raises(ValueError, match=r"config.tuner.class_args lacks 'optimize_mode'"):
        experiment.run(port)
    experiment.config.tuner.name = "_none_"
    with pytest.raises(ValueError, match=r"config.tuner.name is not set"):
        experiment.run(port)
    experiment.config.search_space["algorithm_name"]["_value"][0]["_name"] = "l3"
    with pytest.raises(ValueError, match="unknown algorithm 'l3'"):
        experiment.run(port)
    experiment.config.search_space = {"lr": {"_type": "choice", "_value": [0.1]}}
    with pytest.raises(TypeError, match=r"expected that of AutoCompressionSearchSpaceGenerator.dumps\(\)"):
        experiment.run(port)
    with pytest.raises(ValueError, match="wait_completion is False"):
        experiment.run(port, wait_completion=False)


class NoInput(Module):
    dummy_input = None


def test_pruning_needs_a_dummy_input(port):
    with pytest.raises(TypeError, match=r"NoInput has no dummy_input\(\), which 'l1' needs to speed the network up"):
        configured(NoInput).run(port)


def test_classes_that_are_none(port):
    with pytest.raises(TypeError, match="expected your class itself"):
        AutoCompressionExperiment(Module.model(), "local")
    with pytest.raises(TypeError, match=r"Partial lacks the class method evaluator\(\)"):
        AutoCompressionExperiment(Partial, "local")


class Partial(AbstractAutoCompressionModule):
    @classmethod
    def model(cls):
        return Network()


def test_algorithms_of_the_script_itself_cannot_be_found_by_trials(port, monkeypatch):
    def own(model, config_list, module_class):
        return model

    monkeypatch.setattr(own, "__module__", "__main__")
    register_algorithm(Algorithm("own", own, needs_config_list=False), replace=True)
    experiment = configured()
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("own", [])
    experiment.config.search_space = generator.dumps()
    with pytest.raises(ValueError, match="algorithm 'own' is defined in the script that is run"):
        experiment.run(port)
    manager.check_port(port)
