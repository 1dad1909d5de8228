"""What was removed: original indices, table, plot and masks."""

import copy
import sys

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial.graph.private_names import graph_of, name_in
from torchprune_spatial.record.pruning_record import PruningRecord
from torchprune_spatial.residuals.channel_scatter import CUSTOMIZED_PRUNERS, ChannelScatter
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from ..networks import ProgramNet, networks, plain_net
from ..pruning import EXAMPLE, make_pruner

SCORES = {"0": [5.0, 0, 4, 1, 2, 3], "3": [0.0, 9, 1, 8, 2, 7, 3, 6]}


def by_name(group):
    """Scores of the two hidden layers of `plain_net`; its output is left alone."""
    scores = SCORES.get(name_in(graph_of(group), group[0].dep.target.module))
    return None if scores is None else torch.tensor(scores)


def pruned_plain_net():
    """Keeps the best 3 of 6 and 4 of 8: filters 0, 2, 5 and 1, 3, 5, 7."""
    model = plain_net()
    record = PruningRecord(model, EXAMPLE)
    record.step(make_pruner(model, by_name))
    return model, record


def lists(kept):
    return {name: indices.tolist() for name, indices in kept.items()}


def expected_tensors(original, record, name):
    """Tensors of a layer of the original network that the record says are left."""
    layer, out = original.get_submodule(name), record.kept_out[name]
    tensors = {key: tensor[out] for key, tensor in layer.state_dict().items() if tensor.ndim == 1}
    if name in record.kept_in:
        first, second = (1, 0) if isinstance(layer, nn.ConvTranspose2d) else (0, 1)
        kept = {first: out, second: record.kept_in[name]}
        tensors["weight"] = layer.weight.data.index_select(0, kept[0]).index_select(1, kept[1])
    elif isinstance(layer, nn.Conv2d):  # depthwise
        tensors["weight"] = layer.weight.data[out]
    return tensors


def assert_traced_back(original, pruned, record):
    layers = [n for n, m in original.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d))]
    assert list(record.kept_out) == layers
    for name in layers:
        state = pruned.get_submodule(name).state_dict()
        for key, tensor in expected_tensors(original, record, name).items():
            assert torch.equal(state[key], tensor), (name, key)


@settings(max_examples=40)
@given(model=networks, ratio=st.sampled_from([0.3, 0.5, 0.7]), steps=st.sampled_from([1, 2]), everywhere=st.booleans())
def test_kept_indices_give_the_pruned_weights_from_the_original_ones(model, ratio, steps, everywhere):
    original = copy.deepcopy(model)
    record = PruningRecord(model)
    pruner = make_pruner(
        model,
        tp.importance.RandomImportance(),
        pruning_ratio=ratio,
        iterative_steps=steps,
        global_pruning=everywhere,
        ignored_layers=[model.layers["output"]],
    )
    for _ in range(steps):
        record.step(pruner)
    assert_traced_back(original, model, record)


def test_indices_by_hand():
    _, record = pruned_plain_net()
    assert lists(record.kept_out) == {"0": [0, 2, 5], "3": [1, 3, 5, 7], "5": [0]}
    assert lists(record.kept_in) == {"0": [0, 1], "3": [0, 2, 5], "5": [1, 3, 5, 7]}


def test_rows_by_hand():
    """Parameters of a 3 x 3 convolution: (9 in + 1) out; FLOPs at [8, 8] and, behind the pool, [4, 4]: 2 * 9 in out."""
    _, record = pruned_plain_net()
    expected = [("0", 2, 2, 6, 3, 64), ("3", 6, 3, 8, 4, 16), ("5", 8, 4, 1, 1, 16)]
    for row, (name, inputs, inputs_after, out, out_after, pixels) in zip(record.rows(), expected, strict=True):
        assert row == {
            **{"name": name, "type": "Conv2d"},
            **{"in_before": inputs, "in_after": inputs_after, "out_before": out, "out_after": out_after},
            "parameters_before": (9 * inputs + 1) * out,
            "parameters_after": (9 * inputs_after + 1) * out_after,
            "flops_before": pixels * 2 * 9 * inputs * out,
            "flops_after": pixels * 2 * 9 * inputs_after * out_after,
        }
    assert record.compression == (114 + 440 + 73) / (57 + 112 + 37)
    assert record.speedup == (64 * 2 * 6 + 16 * 6 * 8 + 16 * 8) / (64 * 2 * 3 + 16 * 3 * 4 + 16 * 4)


def test_before_any_step_everything_is_kept():
    record = PruningRecord(plain_net())
    assert lists(record.kept_out) == {"0": [*range(6)], "3": [*range(8)], "5": [0]}
    assert (record.compression, record.speedup) == (1, None)
    assert "flops_before" not in record.rows()[0]


def test_flatten_has_several_inputs_a_channel():
    """[batch, 3, 2, 2] flattened: channel c is inputs 4 c to 4 c + 3. Channel 1 goes."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    record = PruningRecord(model)
    pruner = make_pruner(
        model,
        lambda group: torch.tensor([2.0, 1, 3]),
        torch.zeros(1, 2, 2, 2),
        pruning_ratio=1 / 3,
        ignored_layers=[model[2]],
    )
    record.step(pruner)
    assert lists(record.kept_in) == {"0": [0, 1], "2": [0, 1, 2, 3, 8, 9, 10, 11]}


def test_mixed_connectivity_is_recorded_and_cleared_of_dead_channels():
    original = decouple_residuals(ResUNet(8), torch.rand(1, 1, 16, 16))
    model = copy.deepcopy(original)
    record = PruningRecord(model)
    pruner = make_pruner(
        model,
        tp.importance.RandomImportance(),
        torch.rand(1, 1, 16, 16),
        pruning_ratio=0.7,
        ignored_layers=[model.output],
        customized_pruners=CUSTOMIZED_PRUNERS,
    )
    record.step(pruner)
    scatters = {name: module for name, module in model.named_modules() if isinstance(module, ChannelScatter)}
    assert len(scatters) == 6
    for name, scatter in scatters.items():  # before pruning, input i went to output i
        assert torch.equal(record.kept_out[name][scatter.index], record.kept_in[name])
    for first, second in (("add_scatter.0", "add_scatter.1"), ("add_1_scatter.0", "add_1_scatter.1")):
        fed = set(record.kept_in[first].tolist()) | set(record.kept_in[second].tolist())
        assert sorted(fed) == record.kept_out[first].tolist() == record.kept_out[second].tolist()
    for name in original.state_dict():
        if name.endswith("weight"):
            layer = name.removesuffix(".weight")
            expected = expected_tensors(original, record, layer)["weight"]
            assert torch.equal(model.get_submodule(layer).weight, expected)


def test_attention_runs_after_a_step():
    timm = pytest.importorskip("timm")
    from torchprune_spatial.graph.attention import attention_heads

    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=2)
    image = torch.rand(1, 3, 32, 32)
    record = PruningRecord(model)
    record.step(
        make_pruner(
            model,
            tp.importance.GroupMagnitudeImportance(),
            image,
            ignored_layers=[model.head],
            num_heads=attention_heads(model),
        )
    )
    assert model(image).shape == (1, 2)
    assert len(record.kept_in["blocks.0.attn.proj"]) == 96
    assert len(record.kept_out["blocks.0.attn.qkv"]) == 3 * 96


class Scale(nn.Module):
    """A layer that Torch-Pruning does not know."""

    def __init__(self, channels):
        super().__init__()
        self.factor = nn.Parameter(torch.arange(1.0, channels + 1))
        self.inner = nn.Linear(channels, channels)  # its own affair

    def forward(self, x):
        return x * self.factor.view(-1, 1, 1)


class ScalePruner(tp.pruner.BasePruningFunc):
    def prune_out_channels(self, layer, idxs):
        kept = [i for i in range(len(layer.factor)) if i not in idxs]
        layer.factor = nn.Parameter(layer.factor.data[kept])
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer):
        return len(layer.factor)

    get_in_channels = get_out_channels


def test_customized_layers_are_recorded():
    model = nn.Sequential(nn.Conv2d(2, 6, 1), Scale(6), nn.Conv2d(6, 1, 1))
    record = PruningRecord(model)
    record.step(
        make_pruner(
            model,
            lambda group: torch.tensor(SCORES["0"]),
            ignored_layers=[model[2]],
            customized_pruners={Scale: ScalePruner()},
        )
    )
    assert lists(record.kept_out) == {"0": [0, 2, 5], "1": [0, 2, 5], "2": [0]}
    assert model[1].factor.tolist() == [1, 3, 6]


def test_fold_sees_each_group_just_before_its_channels_are_removed():
    model, seen = plain_net(), []

    def fold(group):
        layer = group[0].dep.target.module
        seen.append((layer.out_channels, sorted(group[0].idxs)))

    PruningRecord(model).step(make_pruner(model, by_name), fold=fold)
    assert sorted(seen) == [(6, [1, 3, 4]), (8, [0, 2, 4, 6])]


def test_frozen_parameters_stay_frozen():
    model = plain_net()
    model[0].bias.requires_grad_(False)
    PruningRecord(model).step(make_pruner(model, by_name))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert len(model[0].bias) == 3


def test_a_pruner_of_another_model_is_refused():
    with pytest.raises(ValueError, match="another model"):
        PruningRecord(plain_net()).step(make_pruner(plain_net(), by_name))


def test_table():
    lines = str(pruned_plain_net()[1]).splitlines()
    assert lines[0].split() == ["layer", "type", "in", "out", "parameters", "MFLOPs"]
    assert lines[3].split() == ["3", "Conv2d", *"6→3", *"8→4", "440", "→", "112", "0.01", "→", "0.00"]
    assert lines[5].split()[:4] == ["total", "627", "→", "206"]
    assert lines[-1] == "3.04 times fewer parameters, 2.60 times fewer FLOPs"


def test_plot(tmp_path):
    figure = pruned_plain_net()[1].plot(tmp_path / "kept.png")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [6, 8, 1, 3, 4, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "3", "5"]
    assert [text.get_text() for text in axes.texts] == ["3 of 6", "4 of 8", "1 of 1"]
    assert (tmp_path / "kept.png").read_bytes().startswith(b"\x89PNG")


def test_plot_leaves_norms_out_and_keeps_depthwise():
    model = ProgramNet(["depthwise"], norm=True)
    labels = [label.get_text() for label in PruningRecord(model).plot().axes[0].get_yticklabels()]
    assert labels == [f"layers.{name}" for name, layer in model.layers.items() if isinstance(layer, nn.Conv2d)]


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        PruningRecord(plain_net()).plot()


def test_masks(tmp_path):
    _, record = pruned_plain_net()
    record.save_masks(tmp_path / "masks.pt")
    masks = torch.load(tmp_path / "masks.pt", weights_only=True)
    assert masks.keys() == {f"{name}.{side}" for name in "035" for side in ("in", "out")}
    assert masks["0.out"].tolist() == [True, False, True, False, False, True]
    assert masks["3.in"].tolist() == masks["0.out"].tolist()
    assert masks["5.in"].nonzero().flatten().tolist() == [1, 3, 5, 7]
