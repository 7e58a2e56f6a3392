"""Statistics of comparisons, beside values that are worked out in another way."""

import numpy as np
import pytest

from agentzoo.lab import statistics

RANDOM = np.random.default_rng(1)


def test_summary_of_one_environment():
    scores = np.array([10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    summary = statistics.summarize([scores])
    assert summary.mean.value == scores.mean() and summary.median.value == 3.5
    assert summary.iqm.value == np.mean([2, 3, 4, 5])
    assert (summary.worst, summary.count) == (-100.0, 8)
    for one in (summary.mean, summary.median, summary.iqm):
        assert one.low < one.value < one.high
    assert summary.iqm.high - summary.iqm.low < summary.mean.high - summary.mean.low


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    samples = RANDOM.normal(3.0, 2.0, (60, 20))
    found = [statistics.summarize([sample]).mean for sample in samples]
    assert 0.85 < np.mean([one.low <= 3.0 <= one.high for one in found]) < 1


def test_resampling_stays_within_the_strata():
    # The environments differ by far more than the runs in one of them. A bootstrap that mixed the
    # environments would have an interval of hundreds.
    strata = [np.array([0.0, 1.0, 2.0]), np.array([1000.0, 1001.0, 1002.0])]
    mean = statistics.summarize(strata).mean
    assert mean.value == 501.0 and mean.low >= 500.0 and mean.high <= 502.0


@pytest.mark.parametrize("strata", [[np.array([5.0])], [np.array([5.0]), np.array([4.0, 6.0])]])
def test_one_run_has_no_interval(strata):
    summary = statistics.summarize(strata)
    assert summary.mean.value == 5.0 and summary.mean.low is None and summary.iqm.high is None
    scores = {"a": strata, "b": [scores + 1 for scores in strata]}
    assert statistics.mean_ranks(scores)["a"] == statistics.Estimate(2.0)
    assert statistics.mean_curve(np.ones((1, 3))).low is None


def test_the_same_scores_give_the_same_intervals():
    scores = RANDOM.normal(size=5)
    assert statistics.summarize([scores]) == statistics.summarize([scores.copy()])


def test_mean_curve_resamples_whole_runs():
    curves = RANDOM.normal(size=(6, 1)) + np.zeros(4)
    mean = statistics.mean_curve(curves)
    np.testing.assert_allclose(mean.value, curves.mean(axis=0))
    assert np.ptp(mean.low) < 1e-12 and (mean.low < mean.value).all()


def test_performance_profile():
    strata = [np.array([0.1, 0.5]), np.array([0.5, 0.9])]
    profile = statistics.performance_profile(strata, np.array([0.0, 0.1, 0.5, 0.9]))
    np.testing.assert_allclose(profile.value, [1, 0.75, 0.25, 0])
    assert (profile.low <= profile.value).all() and (profile.value <= profile.high).all()
    assert profile.low[2] == 0 and profile.high[2] == 0.5


def test_probability_of_improvement_counts_pairs():
    first = [RANDOM.normal(size=4), np.array([1.0, 2.0])]
    second = [RANDOM.normal(size=7), np.array([1.0, 1.0, 3.0])]
    pairs = [
        np.mean([[1.0 if a > b else 0.5 if a == b else 0.0 for b in other] for a in ours])
        for ours, other in zip(first, second, strict=True)
    ]
    found = statistics.probability_of_improvement(first, second)
    np.testing.assert_allclose(found.value, np.mean(pairs))
    other = statistics.probability_of_improvement(second, first)
    np.testing.assert_allclose(found.value + other.value, 1)
    assert found.low <= found.value <= found.high


def test_equal_algorithms_are_even():
    scores = [np.full(3, 500.0)]
    assert statistics.probability_of_improvement(scores, scores) == (0.5, 0.5, 0.5)
    ranks = statistics.mean_ranks({"a": scores, "b": scores, "c": [np.full(2, 400.0)]})
    assert [ranks[label].value for label in "abc"] == [1.5, 1.5, 3.0]


def test_ranks_are_averaged_over_environments():
    high, low = np.array([9.0, 10.0, 11.0]), np.array([0.0, 1.0, 2.0])
    ranks = statistics.mean_ranks({"a": [high, low], "b": [low, high], "c": [low - 9, low - 9]})
    assert {label: rank.value for label, rank in ranks.items()} == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert ranks["c"] == (3.0, 3.0, 3.0)
