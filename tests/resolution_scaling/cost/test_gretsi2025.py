"""The paper's Table 1, from its own convention."""

import json

import pytest
import timm
import torch
from torch import nn
from torchvision.models import vit_b_16

from recipes.vit_table1.__main__ import main
from recipes.vit_table1.table import TABLE_1, compare
from resolution_scaling.cost.profiling import profile


def test_the_table_is_whole():
    assert [row.resolution for row in TABLE_1] == 9 * [9] + 8 * [11]
    # Sums of the printed columns: resolution 9, then 11.
    for resolution, sums in ((9, (456.5, 42.7, 593.64)), (11, (588.8, 72.0, 581.41))):
        rows = [row for row in TABLE_1 if row.resolution == resolution]
        assert (
            tuple(round(sum(getattr(row, key) for row in rows), 2) for key in ("memory_mb", "gflops", "top1")) == sums
        )


@pytest.mark.parametrize("row", TABLE_1, ids=lambda row: f"{row.resolution}: {row.method}")
def test_row(row):
    model = row.network()
    costs = profile(model, (1, 3, model.image_size, model.image_size), definition="gretsi2025")
    assert f"{costs.memory_bytes / 1e6:.1f}" == f"{row.memory_mb:.1f}"
    assert f"{costs.flops / 1e9:.1f}" == f"{row.gflops:.1f}"


def test_three_counts_side_by_side():
    """ViT-S of 8 x 8 patches of 16 px: 2.88 GFLOPs, 88.8 MB of float32."""
    row = next(row for row in TABLE_1 if row.method == "grid 8 x 8, patches of 16 px")
    assert list(compare(row).values())[1:] == ["70.64", "40.3", "40.3", "88.8", "4.7", "4.7", "2.88"]


@pytest.mark.slow
def test_report(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vit_table1", "--output", str(tmp_path / "table.md")])
    main()
    assert (tmp_path / "table.md").read_text().count("\n| ") == 17 + 2


def test_timm_and_torchvision_alike():
    """ViT-B/16, and the formula by hand: n = 196, S = 197, d = 768, m = 3072, h = 12, 12 blocks."""
    with torch.device("meta"):
        models = vit_b_16(), timm.create_model("vit_base_patch16_224")
    mine, theirs = (profile(model, (1, 3, 224, 224), definition="gretsi2025") for model in models)
    assert mine.flops == theirs.flops
    assert mine.memory_bytes == theirs.memory_bytes
    n, s, d, m = 196, 197, 768, 3072
    assert mine.flops == 2 * n * 768 * d + 12 * (8 * s * d**2 + 4 * s**2 * d + 36 * s**2 + 8 * s * d * m) + 2000 * d
    assert mine.memory_bytes == n * 768 * d + s * d + 12 * d * (4 * d + 2 * m) + s * (d + m)
    assert json.loads(mine.to_json())["flops"] == sum(mine.by_operator().values())
    assert "not the right cost" in str(mine)


@pytest.mark.parametrize(
    ("model", "shape", "text"),
    [
        (nn.Conv2d(3, 8, 3), (1, 3, 224, 224), "model is a Conv2d, whose sizes are not where"),
        (TABLE_1[0].network(), (2, 3, 224, 224), "of one square image"),
        (TABLE_1[0].network(), (1, 3, 224, 192), "of one square image"),
    ],
)
def test_what_has_no_such_convention(model, shape, text):
    with pytest.raises(ValueError, match=text):
        profile(model, shape, definition="gretsi2025")
