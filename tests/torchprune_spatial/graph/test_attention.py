"""Attention modules: what the pruner is told of their heads, and that they run and compute the same after a step."""

import copy

import pytest
import timm
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial.graph.attention import attention_heads, update_attention
from torchprune_spatial.graph.groups import producers_in

from ..networks import plain_net

EXAMPLE = torch.zeros(1, 3, 32, 32)


class SeparateAttention(nn.Module):
    """Attention as diffusers and transformers build it: three layers, and the softmax scale in an attribute."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        weights = (q @ k.mT * self.scale).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


def vit(fused=True, **options):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, **options).eval()
    nn.init.normal_(model.blocks[0].attn.qkv.weight, std=0.2)  # logits far from 0, so that the softmax is not flat
    model.blocks[0].attn.fused_attn = fused
    return model


def prune_heads(model, example, layer, **options):
    """Prune only the group of a layer; returns the pruner and the removed channels of the layers that write it."""
    heads = attention_heads(model)
    names = {module: name for name, module in model.named_modules()}
    importance = tp.importance.RandomImportance()
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance,
        pruning_ratio=0.5,
        num_heads=heads,
        in_channel_groups={},
        out_channel_groups={},
        **options,
    )
    removed = {}
    for group in pruner.step(interactive=True):
        if layer in producers_in(group):
            for dep, idxs in group:
                if dep.target.module in heads and pruner.DG.is_out_channel_pruning_fn(dep.handler):
                    removed[names[dep.target.module]] = list(idxs)
            group.prune()
    update_attention(model, pruner.num_heads)
    return pruner, removed


def assert_equals_masked(model, original, removed, image):
    for name, channels in removed.items():
        layer = original.get_submodule(name)
        layer.weight.data[channels] = 0
        layer.bias.data[channels] = 0
    with torch.no_grad():
        expected = original(image)
        torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_a_pruned_vision_transformer_equals_the_masked_one(fused):
    model = vit(fused)
    original = copy.deepcopy(model)
    attention = model.blocks[0].attn
    _, removed = prune_heads(model, EXAMPLE, attention.qkv)
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (3, 32, 96)
    assert len(removed["blocks.0.attn.qkv"]) == 3 * 96
    assert_equals_masked(model, original, removed, torch.randn(2, 3, 32, 32))


def test_separate_projections_keep_their_scale():
    model = nn.Sequential(nn.Linear(5, 12), SeparateAttention(), nn.Linear(12, 2))
    example = torch.randn(2, 4, 5)
    assert attention_heads(model) == {layer: 3 for layer in (model[1].to_q, model[1].to_k, model[1].to_v)}
    original = copy.deepcopy(model)
    _, removed = prune_heads(model, example, model[1].to_q)
    assert sorted(removed) == ["1.to_k", "1.to_q", "1.to_v"]
    assert (model[1].heads, model[1].to_q.out_features, model[1].scale) == (3, 6, 0.5)
    assert_equals_masked(model, original, removed, example)


def test_whole_heads_are_removed():
    model = vit()
    attention = model.blocks[0].attn
    pruner, _ = prune_heads(
        model, EXAMPLE, attention.qkv, prune_num_heads=True, prune_head_dims=False, head_pruning_ratio=0.5
    )
    assert pruner.num_heads[attention.qkv] == 1
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (1, 64, 64)
    assert model(EXAMPLE).shape == (1, 1000)


def test_a_second_call_changes_nothing():
    model = vit()
    pruner, _ = prune_heads(model, EXAMPLE, model.blocks[0].attn.qkv)
    before = copy.deepcopy(model.state_dict())
    update_attention(model, pruner.num_heads)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-6, atol=0)


def test_an_unpruned_network_and_one_without_attention_stay_as_they_are():
    for model in (vit(), plain_net()):
        before, attributes = copy.deepcopy(model.state_dict()), [str(vars(m)) for m in model.modules()]
        update_attention(model, attention_heads(model))
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert [str(vars(m)) for m in model.modules()] == attributes
    assert attention_heads(plain_net()) == {}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(5, 12), nn.MultiheadAttention(12, 3, batch_first=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("option", ["num_heads", "out_channel_groups"])
def test_multihead_attention_of_torch(option):
    model, example = Block(), torch.randn(2, 4, 5)
    heads = attention_heads(model)
    assert heads == {model.attention: 3}
    options = {"in_channel_groups": {}, "out_channel_groups": {}, option: heads}
    importance = tp.importance.RandomImportance()
    pruner = tp.pruner.BasePruner(model, example, importance, ignored_layers=[model.head], **options)
    pruner.step()
    update_attention(model, pruner.num_heads)
    left = option == "num_heads"
    expected = (12, 3, 4) if left else (6, 3, 2)
    assert (model.attention.embed_dim, model.attention.num_heads, model.attention.head_dim) == expected
    assert model(example).shape == (2, 4, 2)
