"""The paper's Table 1, as the recipe prints it."""

import pytest

from recipes.vit_table1.__main__ import main
from recipes.vit_table1.table import TABLE_1, compare


def test_the_table_is_whole():
    assert [row.resolution for row in TABLE_1] == 9 * [9] + 8 * [11]
    # Sums of the printed columns: resolution 9, then 11.
    for resolution, sums in ((9, (456.5, 42.7, 593.64)), (11, (588.8, 72.0, 581.41))):
        rows = [row for row in TABLE_1 if row.resolution == resolution]
        assert (
            tuple(round(sum(getattr(row, key) for row in rows), 2) for key in ("memory_mb", "gflops", "top1")) == sums
        )


def test_three_counts_side_by_side():
    """ViT-S of 8 x 8 patches of 16 px: 2.88 GFLOPs, 88.8 MB of float32."""
    row = next(row for row in TABLE_1 if row.method == "grid 8 x 8, patches of 16 px")
    assert list(compare(row).values())[1:] == ["70.64", "40.3", "40.3", "88.8", "4.7", "4.7", "2.88"]


@pytest.mark.slow
def test_report(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vit_table1", "--output", str(tmp_path / "table.md")])
    main()
    assert (tmp_path / "table.md").read_text().count("\n| ") == 17 + 2
