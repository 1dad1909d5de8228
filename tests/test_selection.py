import torch
from hypothesis import given
from hypothesis import strategies as st

from torchprune_spatial.selection import union_scores

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
