import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchprune_spatial.criteria.ranking import distinct, in_order_of, top_count, union_of_tops, union_scores

# Few different values, so that ties (dead filters) are common.
means = st.lists(st.tuples(*[st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.5, 0.9])] * 3), min_size=1, max_size=12)


def algorithm_1(region_means, overall, k):
    """Union of the k best channels of each region; ties by overall mean, then the lower index."""
    kept = set()
    for values in region_means:
        best = sorted(range(len(values)), key=lambda c: (-values[c], -overall[c], c))
        kept |= set(best[:k])
    return kept


@given(rows=means)
def test_thresholds_on_the_score_are_the_unions_of_algorithm_1(rows):
    *regions, overall = zip(*rows, strict=True)
    scores = union_scores(torch.tensor(regions, dtype=torch.float64), torch.tensor(overall, dtype=torch.float64))
    count = len(rows)
    for k in range(count + 1):
        kept = {c for c in range(count) if scores[c] >= 1 - k / count - 1e-12}
        assert kept == algorithm_1(regions, overall, k)


@given(rows=means)
def test_scores_of_two_regions_are_different(rows):
    *regions, overall = zip(*rows, strict=True)
    scores = union_scores(torch.tensor(regions, dtype=torch.float64), torch.tensor(overall, dtype=torch.float64))
    assert len(set(scores.tolist())) == len(rows)
    assert scores.min() >= 0
    assert scores.max() < 1


@given(
    rows=st.lists(
        st.tuples(*[st.floats(0, 1)] * 2), min_size=2, max_size=12, unique_by=(lambda r: r[0], lambda r: r[1])
    )
)
def test_the_papers_quantile_rule_for_distinct_values(rows):
    """`>= quantile(1 - fract)` keeps k = C - ceil((C - 1)(1 - fract)) filters of each region when no values tie."""
    values = torch.tensor(rows, dtype=torch.float64).T
    scores, count = union_scores(values, values.sum(0)), len(rows)
    for k in range(1, count + 1):
        fract = 1 - (count - k) / (count - 1)  # where the quantile falls on a value
        thresholds = values.quantile(1 - fract, dim=1, keepdim=True)
        kept = (values >= thresholds - 1e-9).any(0)
        if (values.sort(1).values.diff(dim=1) > 1e-6).all():
            assert kept.tolist() == (scores >= 1 - k / count - 1e-12).tolist()


def test_channels_with_the_same_ranks_in_other_regions_prefer_the_object():
    object_means, background = [0.9, 0.1, 0.5], [0.1, 0.9, 0.5]  # ranks (2, 0), (0, 2), (1, 1)
    scores = union_scores(torch.tensor([object_means, background]), torch.tensor([0.5, 0.5, 0.5]))
    assert scores.argsort(descending=True).tolist() == [0, 1, 2]


@given(rows=means)
def test_union_of_tops(rows):
    *regions, overall = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    for k in range(1, len(rows) + 1):
        for some in (regions, regions[:1]):  # one region: the top set itself
            kept = union_of_tops(torch.stack(some), overall, k).nonzero().flatten().tolist()
            assert set(kept) == algorithm_1([r.tolist() for r in some], overall.tolist(), k)


@given(channels=st.integers(1, 40), percent=st.integers(0, 100))
def test_top_count_is_what_the_quantile_keeps(channels, percent):
    values = np.arange(channels)
    kept = (values >= np.quantile(values, 1 - percent / 100) - 1e-9).sum()
    assert top_count(percent / 100, channels) == kept


@pytest.mark.parametrize(
    ("fraction", "channels", "count"),
    [(0, 11, 1), (0.1, 11, 2), (0.3, 11, 4), (0.5, 11, 6), (1, 11, 11), (0.7, 31, 22)],  # 30 * (1 - 0.7) > 9 in floats
)
def test_top_count_by_hand(fraction, channels, count):
    assert top_count(fraction, channels) == count  # channels - ceil((channels - 1) (1 - fraction))


@given(rows=means)
def test_distinct_scores_keep_the_order(rows):
    scores, tie_break, _ = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    result = distinct(scores, tie_break)
    expected = sorted(range(len(rows)), key=lambda c: (scores[c], tie_break[c], -c))
    assert result.argsort().tolist() == expected
    assert len(result.unique()) == len(rows)
    torch.testing.assert_close(result, scores, rtol=0, atol=1e-7)


def test_in_order_of():
    assert in_order_of(torch.tensor([3, 1, 2]), torch.tensor([7.0, 9.0, 8.0])).tolist() == [9, 7, 8]
