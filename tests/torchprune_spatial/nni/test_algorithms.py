"""Our criteria as algorithms of searches, on either generation of NNI or without it, and as a step for NNI 3.0."""

import ast
import copy
import subprocess
import sys
import textwrap

import pytest
import torch
import torch_pruning as tp
from torch import nn

import resolution_scaling as rs
import torchprune_spatial
import torchprune_spatial.nni
from resolution_scaling.ground.meta import meta_copy
from resolution_scaling.nni import find_algorithm
from tests.unets import ResUNet
from torchprune_spatial.graph.removal import ChannelGroup
from torchprune_spatial.nni.algorithms import algorithm
from torchprune_spatial.nni.config import read_config
from torchprune_spatial.nni.criterion_options import CRITERIA
from torchprune_spatial.nni.layer_selection import select_layers

CONVOLUTIONS = [{"op_types": ["Conv2d"], "exclude_op_names": ["output"], "sparse_ratio": 0.5}]
X = torch.zeros(1, 1, 32, 32)


def calibration():
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 1, 32, 32, generator=generator) for _ in range(2)]
    return [(image, (image > 0.7).float()) for image in images]


class Module:
    """What a search gives; the rest of an AutoCompress class plays no part here."""

    @classmethod
    def dummy_input(cls):
        return X

    @classmethod
    def calibration_loader(cls):
        return calibration()


def unet():
    torch.manual_seed(0)
    return ResUNet(8).eval()


def compressed(name, config_list, model=None, **parameters):
    return find_algorithm(name).compress(model or unet(), copy.deepcopy(config_list), Module, **parameters)


def same(one, other):
    """Bit by bit."""
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[1][n], t) for n, t in states[0].items())


def unet_macs(widths):
    """3x3 convolutions at 32 px: three a level, one at the bottom, three a level back, one at the end."""
    a, b, c, d = widths
    encoder = 32**2 * (a + 2 * a * a) + 16**2 * (a * b + 2 * b * b) + 8**2 * (b * c + 2 * c * c)
    decoder = 8**2 * (d * c + 2 * c * c) + 16**2 * (c * b + 2 * b * b) + 32**2 * (b * a + 2 * a * a)
    return 9 * (encoder + 4**2 * c * d + decoder + 32**2 * a)


@pytest.mark.parametrize("name", CRITERIA)
def test_each_criterion_removes_half_of_each_layer(name):
    """And precisely the channels that Torch-Pruning removes with the same importance."""
    # not find_algorithm: NNI may have registered one of its own under this name
    model = algorithm(name).compress(unet(), copy.deepcopy(CONVOLUTIONS), Module, fold=False)
    assert rs.profile(unet(), X).macs == unet_macs((8, 16, 32, 64))
    assert rs.profile(model, X).macs == unet_macs((4, 8, 16, 32))
    kind = CRITERIA[name]
    importance = kind() if name == "weight_sum" else kind(calibration())
    expected = unet()
    pruner = tp.pruner.BasePruner(expected, X, importance, pruning_ratio=0.5, ignored_layers=[expected.output])
    pruner.step()
    assert same(model, expected)
    assert model(X).shape == X.shape


@pytest.mark.parametrize(
    "config_list",
    [
        [{"op_types": ["Conv2d"], "sparsity": 0.5}, {"op_names": ["output"], "exclude": True}],
        [{"op_types": ["Conv2d"], "sparsity_per_layer": 0.5}],  # the output is spared anyhow
        [{"op_partial_names": ["encoder", "decoder", "bottom"], "sparsity": 0.5}],
        [{"op_names_re": [r"(en|de)coder\.", "bottom"], "sparse_ratio": 0.5}],
        [{"op_types": ["default"], "sparsity": 0.5}],
        [{"sparse_ratio": 0.5, "exclude_op_names_re": ["out"]}],
        [{"op_names": ["bottom"], "sparse_ratio": 0.5}, {"op_names_re": [".*coder"], "sparse_ratio": 0.5}],
    ],
    ids=range(7),
)
@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_the_dialects_of_both_generations(config_list):
    assert same(compressed("spatial_mask", config_list), compressed("spatial_mask", CONVOLUTIONS))


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_global_pruning():
    """Half of the channels of all the layers together, in whatever way they are asked for."""
    one = compressed("spatial_mask", [{"op_types": ["Conv2d"], "total_sparsity": 0.5}])
    other = compressed("spatial_mask", [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], global_pruning=True)
    third = compressed("spatial_mask", [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": 1}])
    expected = unet()
    importance = torchprune_spatial.SpatialMaskImportance(calibration())
    pruner = tp.pruner.BasePruner(expected, X, importance, pruning_ratio=0.5, global_pruning=True)
    pruner.step()
    assert same(one, expected)
    assert same(other, expected)
    assert same(third, expected)
    largest = compressed("weight_sum", [{"total_sparsity": 0.5, "max_sparsity_per_layer": 0.6}])
    before, after = (dict(model.named_modules()) for model in (unet(), largest))
    for name, layer in after.items():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels >= int(0.4 * before[name].out_channels)
    kept, channels = (sum(m.out_channels for m in ms.values() if isinstance(m, nn.Conv2d)) for ms in (after, before))
    assert kept < 0.55 * channels


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_budgets():
    model = compressed("spatial_mask", [], compression=4)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (unet(), model))
    assert before / after == pytest.approx(4, rel=0.02)
    model = compressed("weight_sum", [{"op_types": ["Conv2d"], "speedup": 3.0}])
    assert rs.profile(unet(), X).macs / rs.profile(model, X).macs == pytest.approx(3, rel=0.02)


def test_a_budget_beside_ratios():
    """The bottom keeps the ratio that it was given; what is not selected is left alone."""
    config_list = [{"op_names": ["bottom"], "sparse_ratio": 0.25}, {"op_names_re": [r"encoder\..*\.[01]"]}]
    model = compressed("weight_sum", config_list, compression=1.2)
    assert model.bottom.out_channels == 48
    assert model.decoder[0][2].out_channels == 32
    assert model.encoder[0][0].out_channels < 8


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_keep_fraction_is_the_selection_of_the_paper():
    model, expected = compressed("spatial_mask", [], keep_fraction=0.3, threshold="otsu"), unet()
    importance = torchprune_spatial.SpatialMaskImportance(calibration(), threshold="otsu")
    ratios = importance.pruning_ratio_dict(expected, X, keep_fraction=0.3)
    tp.pruner.BasePruner(expected, X, importance, pruning_ratio_dict=ratios, pruning_ratio=0.0).step()
    assert same(model, expected)
    assert rs.profile(model, X).macs < rs.profile(unet(), X).macs


class Residual(nn.Module):
    """``a`` and ``b`` are added, so that they lose the same channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 1, 1)

    def forward(self, x):
        return self.last(torch.relu(self.a(x) + self.b(x)))


def test_layers_that_lose_the_same_channels():
    config_list = [{"op_names": ["a"], "sparse_ratio": 0.2}, {"op_names": ["b"], "sparse_ratio": 0.6}]
    for entries in (config_list, config_list[::-1]):  # the smallest share, whatever the order
        model = compressed("weight_sum", entries, Residual())
        assert (model.a.out_channels, model.b.out_channels, model.last.in_channels) == (16, 16, 16)
    model = Residual()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="nothing can be pruned in Residual by this config_list"):
        compressed("weight_sum", config_list[:1], model)
    assert same(model, before)


def test_a_ratio_of_zero_changes_nothing():
    assert same(compressed("weight_sum", [{"op_names": ["bottom"], "sparse_ratio": 0}]), unet())


def test_what_tuners_give():
    """Whole floats where whole numbers are meant."""
    model = compressed("thinet", [{"op_names": ["bottom"], "sparsity": 0.3}], locations=5.0, round_to=16.0)
    assert model.bottom.out_channels == 32  # 44.8, down to a multiple of 16
    with pytest.raises(TypeError, match=r"locations is 2.5"):
        compressed("thinet", [{"op_names": ["bottom"], "sparsity": 0.3}], locations=2.5)


def test_a_network_that_was_scaled_before():
    model = rs.scale_resolution(unet(), 16, input_size=32)
    assert type(model.encoder[0][0]).__name__ == "FirstConvReduction"
    model = compressed("spatial_mask", CONVOLUTIONS, model)
    assert model.encoder[0][0].out_channels == 4
    assert rs.profile(rs.undo_scaling(model), X).macs == unet_macs((4, 8, 16, 32))


@pytest.mark.parametrize(
    ("config_list", "parameters"),
    [
        (CONVOLUTIONS, {}),
        ([{"op_types": ["Conv2d"], "sparsity_per_layer": 0.3}, {"op_names": ["bottom"], "exclude": True}], {}),
        ([{"sparsity": 0.3}], {"round_to": 4.0}),
        ([], {"compression": 4}),
        ([{"op_partial_names": ["encoder"]}], {"speedup": 1.2}),
    ],
    ids=["3.0", "2.x", "round_to", "compression", "speedup"],
)
@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_the_outline_has_the_shapes_of_the_real_thing(config_list, parameters):
    class NoData:
        dummy_input = Module.dummy_input

    found = find_algorithm("spatial_mask")
    (draft,) = meta_copy(unet())
    draft = found.outline(draft, copy.deepcopy(config_list), NoData, **parameters)
    model = found.compress(unet(), copy.deepcopy(config_list), Module, **parameters)
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (draft, model)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in draft.parameters())
    assert rs.profile(draft, X).flops == rs.profile(model, X).flops


@pytest.mark.parametrize("name", ["mobilenet_v2", "vit_b_16"])
@pytest.mark.filterwarnings("ignore:.*outputs of the network", "ignore:Unwrapped parameters")
def test_the_outline_of_other_networks(name):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    if name == "mobilenet_v2":
        model = torchvision.models.mobilenet_v2(num_classes=10).eval()
    else:
        model = torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=10).eval()

    class Images:
        @classmethod
        def dummy_input(cls):
            return torch.zeros(1, 3, 64, 64)

    (draft,) = meta_copy(model)
    config_list = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.4}]
    draft = find_algorithm("weight_sum").outline(draft, config_list, Images)
    find_algorithm("weight_sum").compress(model, config_list, Images)
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (draft, model)]
    assert shapes[0] == shapes[1]
    assert model(Images.dummy_input()).shape == (1, 10)


@pytest.mark.parametrize(
    ("config_list", "parameters"),
    [
        ([{"total_sparsity": 0.5}], {}),
        ([{"sparsity": 0.5}], {"global_pruning": True}),
        ([], {"compression": 4, "global_pruning": True}),
        ([], {"keep_fraction": 0.3}),
    ],
)
def test_no_outline_where_the_shapes_depend_on_the_scores(config_list, parameters):
    (draft,) = meta_copy(unet())
    assert find_algorithm("spatial_mask").outline(draft, config_list, Module, **parameters) is None


BAD_CONFIGS = {
    "no list": ("sparse", {}, TypeError, "config_list is 'sparse'"),
    "unknown key": ([{"sparce_ratio": 0.5}], {}, ValueError, r"config_list\[0\] has the key 'sparce_ratio'"),
    "no ratio": (
        [{"op_types": ["Conv2d"]}],
        {},
        ValueError,
        "does not say how much of 'encoder.0.0'.* is removed: give sparse_ratio",
    ),
    "empty": ([], {}, ValueError, "does not say how much"),
    "ratio above 1": ([{"sparsity": 50}], {}, ValueError, "sparsity is 50; expected a number from 0 to 1"),
    "two dialects": ([{"sparsity": 0.5, "sparse_ratio": 0.5}], {}, ValueError, "sparse_ratio and sparsity"),
    "two ratios": ([{"sparsity": 0.5}, {"op_names": ["bottom"], "sparsity": 0.2}], {}, ValueError, "'bottom' has rat"),
    "type": ([{"op_types": ["Conv3d"], "sparsity": 0.5}], {}, ValueError, "selects no layer of ResUNet.*Conv2d"),
    "name": ([{"op_names": ["top"], "sparsity": 0.5}], {}, ValueError, "names 'top', but ResUNet has no module"),
    "types as text": ([{"op_types": "Conv2d", "sparsity": 0.5}], {}, TypeError, "op_types is 'Conv2d'"),
    "parameter": (CONVOLUTIONS, {"treshold": 0.5}, TypeError, "'spatial_mask' has no parameter 'treshold'"),
    "threshold": (CONVOLUTIONS, {"threshold": "median"}, ValueError, "threshold is 'median'"),
    "budget and ratios": (CONVOLUTIONS, {"compression": 4}, ValueError, "leaves no layer for compression"),
    "budget below 1": ([], {"compression": 0.5}, ValueError, "compression is 0.5"),
    "two budgets": ([{"compression": 2}], {"compression": 4}, ValueError, "compression is given twice"),
    "fraction and budget": (
        [],
        {"keep_fraction": 0.3, "speedup": 2},
        ValueError,
        "keep_fraction cannot be combined with speedup",
    ),
    "global fraction": (
        [],
        {"keep_fraction": 0.3, "global_pruning": True},
        ValueError,
        "cannot be combined with ratios or global",
    ),
    "global above the largest": (
        *([{"total_sparsity": 0.5, "max_sparsity_per_layer": 0.4}], {}, ValueError),
        "no layer may lose more than 0.4, so that all together cannot lose 0.5",
    ),
    "round_to": (CONVOLUTIONS, {"round_to": 2.5}, ValueError, "round_to is 2.5"),
    "outputs": ([{"op_names": ["output"], "sparsity": 0.5}], {}, ValueError, "nothing can be pruned in ResUNet"),
}


@pytest.mark.parametrize(("config_list", "parameters", "error", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
@pytest.mark.filterwarnings("ignore:.*outputs of the network")
def test_bad_configurations(config_list, parameters, error, message):
    model = unet()
    with pytest.raises(error, match=message):
        compressed("spatial_mask", config_list, model, **parameters)
    assert same(model, unet())
    assert all(p.requires_grad for p in model.parameters())


def test_keep_fraction_is_for_spatial_masks():
    with pytest.raises(ValueError, match="keep_fraction is for 'spatial_mask', not 'apoz'"):
        algorithm("apoz").compress(unet(), [], Module, keep_fraction=0.3)


def test_what_the_class_of_the_user_lacks_is_named():
    class NoData:
        dummy_input = Module.dummy_input

    class NoInput:
        calibration_loader = Module.calibration_loader

    found = find_algorithm("spatial_mask")
    with pytest.raises(
        TypeError, match=r"(?s)NoData has no calibration_loader\(\).*@classmethod\n    def calibration_"
    ):
        found.compress(unet(), CONVOLUTIONS, NoData)
    with pytest.raises(TypeError, match=r"(?s)NoInput has no dummy_input\(\).*def dummy_input\(cls\)"):
        found.compress(unet(), CONVOLUTIONS, NoInput)
    find_algorithm("weight_sum").compress(unet(), CONVOLUTIONS, NoData)  # looks at no data


def test_bad_data_leaves_the_network_as_it_was():
    class Broken(Module):
        @classmethod
        def calibration_loader(cls):
            return [(image, target * float("nan")) for image, target in calibration()]

    model = unet()
    with pytest.raises(ValueError):  # noqa: PT011 -- the text is tested with the criterion
        find_algorithm("spatial_mask").compress(model, CONVOLUTIONS, Broken)
    assert same(model, unet())


def test_a_failure_in_the_midst_of_pruning_is_taken_back(monkeypatch):
    """Some groups are pruned already."""
    model = unet()
    model.encoder[0][0].weight.requires_grad_(False)
    calls, prune = [], ChannelGroup.prune

    def failing(group, idxs=None, record_history=True):
        calls.extend([group] if record_history else [])  # not when the graph tries removals
        if len(calls) == 4:
            raise RuntimeError("disk on fire")
        return prune(group, idxs, record_history)

    monkeypatch.setattr(ChannelGroup, "prune", failing)
    with pytest.raises(RuntimeError, match="disk on fire"):
        compressed("weight_sum", CONVOLUTIONS, model)
    assert same(model, unet())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert torch.equal(model(X + 0.5), unet()(X + 0.5))


def run(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=True
    ).stdout


def test_importing_registers_without_nni():
    out = run("""
        import sys
        sys.modules["nni"] = None  # as if it were not installed
        import torchprune_spatial.nni
        from resolution_scaling.nni import algorithm_names
        print(algorithm_names())
        try:
            torchprune_spatial.nni.SpatialMaskPruner
        except ImportError as error:
            print(error)
        """)
    registered = ast.literal_eval(out.splitlines()[0])
    assert {"apoz", "mean_activation", "resolution", "spatial_mask", "thinet", "weight_sum"} <= {*registered}
    assert "SpatialMaskPruner needs NNI 3.0" in out


def test_names_that_are_taken_stay_with_who_has_them():
    out = run("""
        from resolution_scaling.nni import Algorithm, find_algorithm, register_algorithm
        theirs = Algorithm("apoz", lambda model, config_list, module: model)
        register_algorithm(theirs, replace=True)
        import sys
        sys.modules["resolution_scaling.nni.algorithms.pruners"] = None  # would register NNI's own
        import torchprune_spatial.nni
        print(find_algorithm("apoz") is theirs, find_algorithm("mean_activation") is theirs)
        """)
    assert out.strip() == "True False"


OWN_CRITERION = """
import torchprune_spatial.nni

@torchprune_spatial.register_criterion
class LastFirstImportance(torchprune_spatial.WeightSumImportance):
    name = "last_first"
"""


def test_a_users_criterion_is_an_algorithm_once_it_is_registered(tmp_path):
    """And trials import that file."""
    (tmp_path / "my_criterion.py").write_text(OWN_CRITERION)
    out = run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import my_criterion
        from resolution_scaling.nni.algorithms.registry import algorithm_names, find_algorithm, home_of
        print(home_of("last_first"), home_of("spatial_mask"))
        torchprune_spatial = sys.modules["torchprune_spatial"]
        torchprune_spatial.unregister_criterion("last_first")
        print("last_first" in algorithm_names())
        """)
    assert out.split() == ["my_criterion", "torchprune_spatial.nni.algorithms", "False"]


def test_a_name_that_another_algorithm_has_is_refused():
    kind = type("ResolvedImportance", (torchprune_spatial.WeightSumImportance,), {"name": "resolution"})
    before = find_algorithm("resolution")
    with pytest.raises(ValueError, match="there is an algorithm 'resolution' already"):
        torchprune_spatial.register_criterion(kind)
    assert "resolution" not in CRITERIA
    assert find_algorithm("resolution") is before


def test_folding_is_a_parameter():
    """A network of copies, of which every second channel is removed: folded, it computes what it did."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3))
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter[1::2] = parameter[::2]
    images = torch.rand(4, 1, 16, 16)

    class Module:
        @classmethod
        def dummy_input(cls):
            return images[:1]

        @classmethod
        def calibration_loader(cls):
            return [(images, images)]

    errors = {}
    config_list = [{"op_names": ["0"], "op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    for fold in (True, False):
        pruned = find_algorithm("interpolative").compress(copy.deepcopy(model), config_list, Module, fold=fold)
        assert pruned[0].out_channels == 4
        errors[fold] = (pruned(images) - model(images)).abs().max()
    assert errors[True] < 0.2 * errors[False]  # the ridge leaves some


def test_an_allocation_needs_a_budget():
    with pytest.raises(ValueError, match="allocation spreads a budget: it needs compression or speedup"):
        read_config(
            torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)),
            [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}],
            {"allocation": "cost"},
        )


def test_shapes_that_depend_on_scores_have_no_outline():
    """The interpolative importance spreads a budget by sensitivity, unless it is told otherwise."""

    class Module:
        @classmethod
        def dummy_input(cls):
            return torch.rand(1, 1, 32, 32)

    for options, known in (({}, False), ({"allocation": "uniform"}, True), ({"allocation": "cost"}, False)):
        draft = meta_copy(ResUNet(4))[0]
        outline = find_algorithm("interpolative").outline(draft, [], Module, compression=2, **options)
        assert (outline is not None) == known


# With NNI 3.0


def step(*args, **kwargs):
    pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    return torchprune_spatial.nni.SpatialMaskPruner(*args, **kwargs)


@pytest.mark.parametrize(
    "config",
    [
        {"op_types": ["Conv2d"]},
        {"op_types": ["Conv2d", "ReLU"], "exclude_op_names": ["bottom"]},
        {"op_names": ["bottom", "output"], "op_types": ["Conv2d"]},
        {"op_names_re": [r"encoder\.\d\.0", "decoder.1"], "exclude_op_names_re": [r".*\.2"]},
        {"op_names": ["bottom"], "op_names_re": ["encoder"], "exclude_op_types": ["ModuleList"]},
        {"op_types": ["Conv1d"]},
        {"op_names_re": ["coder"]},  # matched from the beginning
    ],
    ids=range(7),
)
def test_we_select_as_nni_does(config):
    pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    from nni.compression.base.config import select_modules_by_config

    model = unet()
    assert sorted(select_layers(model, config)) == sorted(select_modules_by_config(model, config)[0])


def test_the_step_does_what_the_algorithm_does():
    model = unet()
    pruner = step(model, CONVOLUTIONS, loader=calibration(), dummy_input=X)
    returned, record = pruner.compress()
    assert returned is model
    assert same(model, compressed("spatial_mask", CONVOLUTIONS))
    assert record.speedup == pytest.approx(unet_macs((8, 16, 32, 64)) / unet_macs((4, 8, 16, 32)))
    assert len(record.kept_out["bottom"]) == 32


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
@pytest.mark.parametrize("criterion", ["apoz", "weight_sum"])
def test_the_step_with_budgets_and_other_criteria(criterion):
    model = unet()
    config_list = [{"op_types": ["Conv2d"], "compression": 4}]
    _, record = step(model, config_list, loader=calibration(), dummy_input=X, criterion=criterion).compress()
    assert record.compression == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("first", ["prune", "scale"])
def test_both_steps_in_a_chain(first):
    pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    from resolution_scaling.nni import ResolutionScaler

    model = unet()
    scaler = ResolutionScaler(model, [{"size": 16}], dummy_input=X)
    if first == "scale":
        scaler.compress()
    step(model, CONVOLUTIONS, loader=calibration(), dummy_input=X).compress()
    if first == "prune":
        scaler.compress()
    # all but the first convolution work on a quarter of the positions
    first_macs = 9 * 32**2 * 4
    assert rs.profile(model, X).macs == first_macs + (unet_macs((4, 8, 16, 32)) - first_macs) / 4
    assert model(X).shape == X.shape
    torch.export.export(model, (X,))
    scaler.undo_scaling()
    assert rs.profile(model, X).macs == unet_macs((4, 8, 16, 32))
    if first == "prune":
        assert same(model, compressed("spatial_mask", CONVOLUTIONS))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"criterion": "l1"}, ValueError, "criterion is 'l1'; expected one of .*'apoz'"),
        ({"loader": None}, TypeError, "loader is missing"),
        ({"dummy_input": None}, TypeError, "dummy_input is missing"),
        ({"evaluator": "accuracy"}, TypeError, "evaluator is a str"),
        ({"treshold": 0.5}, TypeError, "no parameter 'treshold'"),
        ({"config_list": [{"op_types": ["Conv2d"]}]}, ValueError, "does not say how much"),
        ({"config_list": [{"op_types": ["Conv2d"], "sparse_ratio": 2}]}, ValueError, "sparse_ratio is 2"),
        ({"config_list": [{"op_names": ["top"], "sparse_ratio": 0.5}]}, ValueError, "names 'top'"),
        ({"criterion": "apoz", "keep_fraction": 0.3, "config_list": [{}]}, ValueError, "keep_fraction is for"),
        ({"model": "unet"}, TypeError, "model is a str"),
    ],
)
def test_bad_arguments_of_the_step(arguments, error, message):
    given = {"model": unet(), "config_list": CONVOLUTIONS, "loader": calibration(), "dummy_input": X} | arguments
    with pytest.raises(error, match=message):
        step(**given)


def test_a_network_that_nni_has_wrapped_is_refused():
    pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    from nni.compression.pruning import L1NormPruner

    model = unet()
    pruner = L1NormPruner(model, CONVOLUTIONS)
    pruner.compress()
    with pytest.raises(ValueError, match=r"is wrapped by a pruner of NNI.*unwrap_model"):
        step(model, CONVOLUTIONS, loader=calibration(), dummy_input=X).compress()
    pruner.unwrap_model()
    step(model, CONVOLUTIONS, loader=calibration(), dummy_input=X).compress()
    assert rs.profile(model, X).macs == unet_macs((4, 8, 16, 32))


def test_read_config_is_not_written_into():
    config_list = [{"op_types": ["Conv2d"], "sparsity": 0.5}, {"op_names": ["bottom"], "exclude": True}]
    before = copy.deepcopy(config_list)
    read_config(unet(), config_list, {})
    assert config_list == before
