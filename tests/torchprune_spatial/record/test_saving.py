"""Pruned networks to files and back."""

import copy
import tempfile

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial.budget.pruning import prune_to
from torchprune_spatial.record.pruning_record import PruningRecord
from torchprune_spatial.record.saving import load_pruned, save_pruned
from torchprune_spatial.residuals.mixed_connectivity import decouple_residuals

from ..networks import networks, plain_net
from ..pruning import EXAMPLE, make_pruner

HOLOGRAM = torch.rand(1, 1, 32, 32)


class Zoo(nn.Module):
    """Layers of every kind that is pruned, with parameters of its own."""

    def __init__(self, width=8):
        super().__init__()
        self.width, self.splits, self.shape = width, [width // 2, width - width // 2], (width, 2)
        self.scale = float(width) ** -0.5
        self.stem = nn.Sequential(
            *(nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.PReLU(width)),
            *(nn.Conv2d(width, width, 3, padding=1, groups=2), nn.GroupNorm(2, width)),
            *(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.InstanceNorm2d(width, affine=True)),
            *(nn.ConvTranspose2d(width, width, 2, stride=2), nn.BatchNorm2d(width, affine=False)),
        )
        self.layer_scale = nn.Parameter(torch.randn(width, 1, 1))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.embedding = nn.Embedding(4, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x) * self.layer_scale
        first, second = x.split(self.splits, 1)
        x = torch.cat([second, first], 1).flatten(2).mT[:, :5] + self.embedding.weight[0]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) * self.scale
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.lstm(self.norm(x))[0]).view(len(x), -1)


def randomized(model):
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 1)
    return model


def assert_same(loaded, saved, *inputs):
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {n: t.shape for n, t in saved.state_dict().items()}
    loaded.eval(), saved.eval()
    assert torch.equal(loaded(*inputs), saved(*inputs))


def assert_untouched(model, before):
    assert model.state_dict().keys() == before.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name])
    for module, original in zip(model.modules(), before.modules(), strict=True):
        public = [key for key in vars(original) if not key.startswith("_")]
        assert {key: vars(module)[key] for key in public} == {key: vars(original)[key] for key in public}


def prune(model, example=EXAMPLE, **options):
    PruningRecord(model).step(make_pruner(model, tp.importance.RandomImportance(), example, **options))
    return model


def test_every_kind_of_layer(tmp_path):
    small = randomized(Zoo(6))
    save_pruned(small, tmp_path / "zoo.pt")
    model = Zoo(8)
    assert load_pruned(model, tmp_path / "zoo.pt") is model
    assert (model.width, model.splits, model.shape, model.scale) == (6, [3, 3], (6, 2), 6**-0.5)
    assert model.norm.normalized_shape == (6,)
    assert_same(model, small, EXAMPLE)


class Tables(nn.Module):
    """Tables that no ``state_dict`` holds."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 3, 1)
        self.plain = torch.randn(8, 1, 1)
        self.register_buffer("buffer", torch.randn(8, 1, 1), persistent=False)

    def forward(self, x):
        return self.last(self.first(x) * self.buffer + self.plain)


def test_tensors_outside_of_the_state_dict(tmp_path):
    fresh = Tables()
    model = copy.deepcopy(fresh)
    prune_to(model, EXAMPLE, tp.importance.GroupMagnitudeImportance(), compression=2)
    assert model.plain.shape == model.buffer.shape == (model.first.out_channels, 1, 1)
    save_pruned(model, tmp_path / "tables.pt")
    assert_same(load_pruned(fresh, tmp_path / "tables.pt"), model, EXAMPLE)


@settings(max_examples=25)
@given(model=networks)
def test_random_networks(model):
    fresh = copy.deepcopy(model)
    prune(model, ignored_layers=[model.layers["output"]])
    with tempfile.TemporaryDirectory() as folder:
        save_pruned(model, f"{folder}/model.pt")
        load_pruned(fresh, f"{folder}/model.pt")
    assert_same(fresh, model, EXAMPLE)


def test_mixed_connectivity_and_budget(tmp_path):
    model = decouple_residuals(ResUNet(8), HOLOGRAM)
    prune_to(model, HOLOGRAM, tp.importance.RandomImportance(), compression=3, ignored_layers=[model.output])
    save_pruned(model, tmp_path / "model.pt")
    assert_same(load_pruned(decouple_residuals(ResUNet(8), HOLOGRAM), tmp_path / "model.pt"), model, HOLOGRAM)


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
def test_attention(tmp_path):
    timm = pytest.importorskip("timm")

    def build():
        return timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=2)

    model, image = build(), torch.rand(1, 3, 32, 32)
    prune_to(model, image, tp.importance.RandomImportance(), compression=3, ignored_layers=[model.head], tolerance=0.1)
    save_pruned(model, tmp_path / "model.pt")
    assert_same(load_pruned(build(), tmp_path / "model.pt"), model, image)


def test_the_file_holds_numbers_only(tmp_path):
    save_pruned(prune(plain_net()), tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content.keys() == {"format", "state_dict", "other_tensors", "structure"}
    assert content["structure"]["3"]["in_channels"] == 3
    assert content["structure"]["3"]["kernel_size"] == (3, 3)
    assert "training" not in content["structure"][""]


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_what_is_wrapped_is_saved_without_its_wrapper(tmp_path, wrap):
    model = plain_net()
    make_pruner(model, tp.importance.GroupMagnitudeImportance(), ignored_layers=[model[-1]]).step()
    save_pruned(wrap(model), tmp_path / "pruned.pt")
    wrapped = wrap(plain_net())
    assert load_pruned(wrapped, tmp_path / "pruned.pt") is wrapped
    for loaded in (load_pruned(plain_net(), tmp_path / "pruned.pt"), wrapped):
        assert torch.equal(loaded.eval()(EXAMPLE), model.eval()(EXAMPLE))


def test_ties_frozen_parameters_dtype_and_modes_stay(tmp_path):
    def build(width):
        model = nn.Sequential(
            nn.Embedding(5, width), nn.Linear(width, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 5)
        )
        model[1].weight = model[0].weight
        model[0].weight.requires_grad_(False), model[3].bias.requires_grad_(False)
        model[2].eval()
        return model

    small = build(3)
    save_pruned(small.double(), tmp_path / "model.pt")
    model = load_pruned(build(4), tmp_path / "model.pt")
    assert model[0].weight is model[1].weight
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, small[0].weight.float())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.weight", "3.bias"]
    assert [m.training for m in model.modules()] == [True, True, True, False, True]


def test_parameters_that_pruning_untied_do_not_overwrite_each_other(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    untied = copy.deepcopy(model)
    model[1].weight = model[0].weight
    save_pruned(untied, tmp_path / "model.pt")
    assert_same(load_pruned(model, tmp_path / "model.pt"), untied, torch.rand(2, 4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, content: path.write_bytes(path.read_bytes()[:-2000]), "damaged, or not a file of save_pruned"),
        (lambda path, content: path.write_bytes(path.read_bytes()[:100]), "damaged, or not a file of save_pruned"),
        (lambda path, content: path.write_bytes(b""), "damaged, or not a file of save_pruned"),
        (lambda path, content: path.write_text("hello"), "damaged, or not a file of save_pruned"),
        (lambda path, content: torch.save(plain_net(), path), "damaged, or not a file of save_pruned"),
        (
            lambda path, content: torch.save(content["state_dict"], path),
            "not a file of save_pruned; a plain state_dict",
        ),
        (lambda path, content: torch.save([1], path), "not a file of save_pruned"),
        (lambda path, content: torch.save(content | {"format": 2}, path), "format 2, but this version reads format 1"),
        (lambda path, content: torch.save(content | {"structure": []}, path), "not a file of save_pruned"),
        (lambda path, content: content["structure"].pop("3") and torch.save(content, path), "'3' is only in the model"),
        (lambda path, content: save_pruned(nn.Sequential(plain_net()), path), "'0.0' is only in the file"),
        (lambda path, content: content["state_dict"].popitem() and torch.save(content, path), "Missing key.*5.bias"),
        (
            lambda path, content: content["state_dict"].update(x=torch.ones(1)) or torch.save(content, path),
            "Unexpected",
        ),
        (lambda path, content: content["structure"]["0"].update(bias=3) or torch.save(content, path), "bias"),
    ],
)
def test_what_does_not_fit_is_said_and_the_model_left_alone(tmp_path, damage, message):
    path = tmp_path / "model.pt"
    save_pruned(prune(plain_net()), path)
    damage(path, torch.load(path, weights_only=True))
    model = plain_net()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=rf"model\.pt (is|has|does).*(?s:.*){message}"):
        load_pruned(model, path)
    assert_untouched(model, before)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pruned(plain_net(), tmp_path / "model.pt")


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    save_pruned(plain_net(), path)
    before, save = path.read_bytes(), torch.save

    def fail(content, target):
        save(content, target)
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pruned(prune(plain_net()), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [lambda: ResUNet(8), lambda: decouple_residuals(ResUNet(8), HOLOGRAM)])
@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path, make):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = make()
    prune_to(model, HOLOGRAM, tp.importance.RandomImportance(), compression=4, ignored_layers=[model.output])
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(model.eval(), (HOLOGRAM,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {session.get_inputs()[0].name: HOLOGRAM.numpy()})
    torch.testing.assert_close(torch.from_numpy(exported), model(HOLOGRAM).detach(), rtol=1e-3, atol=1e-4)
