"""Arithmetic by hand, the forms of the arguments, and what a profile leaves alone."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resolution_scaling.cost.profiling import profile

from ..pictures import assert_shows


def test_a_convolutional_network_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 16 -> 8 px: 2 * 64 px * 8 * 27 = 27648 MACs
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),  # 2 * 64 px * 8 * 2 * 9 = 18432
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 2 * 64 inputs * 8 * 4 * 4 = 16384
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),  # 2 * 4 * 10 = 80
    )
    report = profile(model, (2, 3, 16, 16))
    by_module = report.by_module()
    assert {name: by_module[name].macs for name in "0347"} == {"0": 27648, "3": 18432, "4": 16384, "7": 80}
    assert report.macs == by_module[""].macs == 27648 + 18432 + 16384 + 80
    assert report.flops == 2 * report.macs
    # 2 * 64 * 8 numbers: scaled and shifted, then rectified; the pool adds 2 * 256 * 4.
    assert report.elementwise_flops == 1024 * 2 + 1024 + 2048
    # 4 bytes: convolutions 216, 8 * 2 * 9 + 8, 8 * 4 * 4 + 4; norm 4 * 8; linear 40 + 10; and one counter of 8 bytes.
    assert report.weight_bytes == 4 * (216 + 152 + 132 + 32 + 50) + 8
    assert report.by_operator()["convolution"].calls == 3
    assert sum(cost.macs for cost in report.by_operator().values()) == report.macs


def test_dilated_one_and_three_dimensional_convolutions():
    assert profile(nn.Conv1d(4, 6, 5), (2, 4, 9)).macs == 2 * 5 * 6 * 4 * 5
    assert profile(nn.Conv2d(4, 6, 3, dilation=2), (1, 4, 9, 9)).macs == 25 * 6 * 4 * 9
    assert profile(nn.Conv3d(2, 3, 3, padding=1), (1, 2, 4, 4, 4)).macs == 64 * 3 * 2 * 27
    assert profile(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (1, 4, 5, 5)).macs == 25 * 4 * 3 * 9


class Functional(nn.Module):
    """Work that no module does: matrix products of every kind, attention, and what is not counted."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4))

    def forward(self, x):  # [2, 5, 4]
        y = F.linear(x, self.weight)  # 10 * 4 * 6
        y = y @ y.transpose(1, 2)  # 2 * 5 * 6 * 5
        z = torch.einsum("bij,bjk->bik", y, x)  # 2 * 5 * 5 * 4
        q = z[:, None]
        z = F.scaled_dot_product_attention(q, q, q)[:, 0]  # 2 * 5 * 5 * (4 + 4)
        return F.interpolate(z, size=3, mode="linear") + torch.cat([z, z], 1).mean()


def test_functions_count_as_modules_do():
    report = profile(Functional(), (2, 5, 4))
    assert report.macs == 240 + 300 + 200 + 400
    assert report.by_operator()["scaled_dot_product_attention"].macs == 400
    assert not report.unknown_operators


def test_attention_is_one_operator():
    """4 projections of 5 x 8 x 8, scores and their use 5 x 5 x 8 each, and a softmax of 3 FLOPs for 2 x 25 scores."""
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    report = profile(model, (1, 5, 8))
    attention = report.by_module()["self_attn"]
    assert attention.macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert report.macs == attention.macs + 2 * 5 * 8 * 16
    assert report.by_operator()["scaled_dot_product_attention"].elementwise_flops == 3 * 2 * 25


def test_recurrent_networks():
    """4 gates, of 3 inputs and 5 hidden, in 7 steps."""
    assert profile(nn.LSTM(3, 5), (7, 1, 3)).macs == 7 * 4 * 5 * (3 + 5)


def test_shared_modules_and_tied_weights():
    layer = nn.Linear(4, 4, bias=False)
    report = profile(nn.Sequential(layer, nn.ReLU(), layer), (1, 4))
    assert report.macs == report.by_module()["0"].macs == 2 * 16
    assert report.weight_bytes == 4 * 16


def test_batch_and_dtype_are_explicit():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    one, eight, half = (profile(model, shape, dtype) for shape, dtype in CASES)
    assert eight.macs == 8 * one.macs
    assert eight.weight_bytes == one.weight_bytes == 48
    assert eight.peak_bytes == 8 * one.peak_bytes
    assert (half.weight_bytes, half.peak_bytes, half.macs) == (24, one.peak_bytes // 2, one.macs)
    double = copy.deepcopy(model).double()
    assert profile(double, (1, 3, 2, 2)).weight_bytes == 48
    assert profile(double, torch.empty(1, 3, 2, 2, dtype=torch.float64), dtype=None).weight_bytes == 96


CASES = [((1, 3, 2, 2), torch.float32), ((8, 3, 2, 2), torch.float32), ((1, 3, 2, 2), torch.float16)]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, tokens, image=None):
        return self.linear(self.embedding(tokens) + (0 if image is None else image))


def test_inputs_as_tensor_tuple_and_dict():
    tokens, image = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, 4)
    for inputs in (tokens, (tokens,), (tokens, image), {"tokens": tokens, "image": image}, tokens.to("meta")):
        assert profile(TwoInputs(), inputs).macs == 10 * 4 * 3
    assert profile(nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)]).inputs == ((2, 3), (2, 4))
    assert profile(nn.Conv2d(1, 1, 1), torch.Size((1, 1, 2, 2))).macs == 4


def test_compiled_networks_count_as_they_are():
    assert list(profile(torch.compile(nn.Sequential(nn.Linear(4, 3))), (2, 4)).by_module()) == ["", "0"]


def test_forward_of_ones_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert profile(model, (1, 4), forward=lambda model, x: model[0](x)).macs == 16


def test_the_model_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[1].eval()
    seen = []
    hook = model[0].register_forward_hook(lambda *_: seen.append(1))
    before, hooks = copy.deepcopy(model.state_dict()), dict(model[0]._forward_hooks)
    for shape in ((2, 3, 8, 8), (2, 5, 8, 8)):
        if shape[1] == 5:
            with pytest.raises(ValueError, match="Sequential cannot run on the meta device"):
                profile(model, shape)
        else:
            profile(model, shape)
    assert (model.training, model[1].training, model[2].training) == (True, False, True)
    assert dict(model[0]._forward_hooks) == hooks
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()
    hook.remove()


def test_no_arithmetic_and_no_copy_of_the_weights():
    model = nn.Linear(1000, 1000)  # 4 MB
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        profile(model, (1000, 1000))
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert sum(max(0, event.nbytes()) for event in events) < 1e4


@torch.library.custom_op("resolution_scaling_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


class Mystery(nn.Module):
    def forward(self, x):
        return mystery(mystery(x)) + torch.linalg.inv(x)


def test_operators_that_are_not_known_are_named():
    report = profile(Mystery(), (4, 4))
    assert report.unknown_operators["resolution_scaling_tests::mystery"] == 2
    assert "linalg_inv_ex" in report.unknown_operators
    assert "resolution_scaling_tests::mystery (2 calls)" in str(report)


def test_registered_formulas_count():
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = torch.ops.resolution_scaling_tests.mystery
    register_flop_formula(packet)(lambda shape, *args, **kwargs: 2 * shape[0])
    try:
        assert profile(Mystery(), (4, 4)).macs == 8
    finally:
        del flop_registry[packet]


class NeedsADevice(nn.Linear):
    """Runs on fake tensors, which have the device that they stand for, but not on meta."""

    def forward(self, x):
        if x.device.type == "meta":
            raise NotImplementedError("no meta")
        return super().forward(x)


class ReadsAConstant(NeedsADevice):
    def forward(self, x):
        return super().forward(x * torch.tensor(2.0).item())


@pytest.mark.parametrize(
    "kind",
    [
        NeedsADevice,
        pytest.param(
            ReadsAConstant,
            marks=pytest.mark.skipif(
                tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7),
                reason="older fake tensors forget values of constants",
            ),
        ),
    ],
)
def test_fake_tensors_where_meta_will_not_do(kind):
    model = kind(3, 4)
    report = profile(model, (2, 3))
    assert (report.trace.where, report.macs) == ("fake", 24)
    assert profile(model, torch.rand(2, 3)).macs == 24
    assert type(model.weight) is nn.Parameter
    assert not model.weight.is_meta


class Looks(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("resnet50", (1, 3, 8, 8)), TypeError, "model is a str; expected a torch.nn.Module"),
        ((nn.Linear(2, 2), 224), TypeError, "input_shape is 224; expected a shape with the batch"),
        ((nn.Linear(2, 2), (0, 2)), ValueError, r"input_shape is \(0, 2\); expected sizes above 0"),
        ((nn.Linear(2, 2), (1, 2.0)), TypeError, "input_shape is"),
        ((nn.Linear(2, 2), ()), TypeError, "input_shape is"),
        ((nn.Linear(2, 2), (1, 2), torch.int8), TypeError, "dtype is torch.int8"),
        (
            (nn.Linear(2, 2), (1, 2), torch.float32, "paper"),
            ValueError,
            "definition is 'paper'; expected 'standard' or",
        ),
        (
            (Looks(2, 2), (1, 2)),
            ValueError,
            "Looks cannot run on the meta device.*nor on fake tensors.*must not look at",
        ),
        ((nn.Linear(2, 2), (1, 3)), ValueError, "Linear cannot run on the meta device.*Inputs must have the shape"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        profile(*arguments)


def test_bad_view():
    with pytest.raises(ValueError, match="view is 'lazy'; expected 'eager' or 'fused'"):
        profile(nn.Linear(2, 2), (1, 2), view="lazy")


def test_report_as_text_json_and_bars(tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Flatten(), nn.Linear(16, 2))
    report = profile(model, (1, 3, 2, 2))
    text = str(report)
    assert "Sequential on [1, 3, 2, 2], float32" in text
    assert "0.0" in text  # modules two deep, since few
    assert list(report.rows(1)) == ["0", "2"]
    assert list(report.rows()) == ["0.0", "0.1", "2"]
    read = json.loads(report.to_json(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == read
    assert read["eager"]["macs"] == read["fused"]["macs"] == report.macs == 4 * 3 * 4 + 32
    assert read["modules"]["0"]["flops"] == 2 * 48
    assert read["operators"]["addmm"]["macs"] == 32
    figure = report.plot(tmp_path / "report.png")
    assert [axes.get_xlabel() for axes in figure.axes] == ["MFLOPs", "weights, MB", "largest operator, MB"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    costs = report.rows().values()
    assert widths[0] == [cost.flops / 1e6 for cost in costs]
    assert widths[1] == [cost.weight_bytes / 1e6 for cost in costs]
    assert widths[2] == [cost.largest_operator_bytes / 1e6 for cost in costs]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0.0", "0.1", "2"]
    assert_shows(tmp_path / "report.png", figure, [bar.get_facecolor() for bar in figure.axes[0].patches])


def test_a_network_that_does_nothing():
    report = profile(nn.Identity(), (1, 4))
    assert (report.macs, report.largest_operator_bytes, report.peak_bytes, report.fused.peak_bytes) == (0, 0, 16, 16)
    assert "Identity on [1, 4]" in str(report)
    assert report.plot().axes
