"""Statistics of comparisons with few runs: point estimates and bootstrap intervals, by SciPy.

The score of a run is a number, such as the mean return of its evaluation episodes. The functions
take the scores of several runs in strata: one array for each environment, whose runs the bootstrap
resamples among themselves. Intervals are percentile intervals of 95 %. A stratum with one run
cannot be resampled, so there is no interval then.

The methods follow "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(Agarwal et al., 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95

Strata = Sequence[np.ndarray]


class Estimate(NamedTuple):
    """An estimate, or an array of estimates, with an interval.

    Attributes:
      value: the estimate.
      low: the lower end of the interval, or None if there are too few runs.
      high: the upper end of the interval, or None if there are too few runs.
    """

    value: Any
    low: Any = None
    high: Any = None


class Summary(NamedTuple):
    """The summary of the scores of an algorithm.

    Attributes:
      mean: the mean.
      median: the median.
      iqm: the interquartile mean: the mean without the lowest and the highest quarter.
      worst: the lowest score.
      count: the number of scores.
    """

    mean: Estimate
    median: Estimate
    iqm: Estimate
    worst: float
    count: int


def summarize(strata: Strata) -> Summary:
    """Return the summary of scores, which are pooled over the strata."""

    def iqm(scores: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(scores, 0.25, axis=axis)

    def pooled(function: Callable[..., Any]) -> Estimate:
        return _estimate(
            strata,
            lambda *samples, axis: function(np.concatenate(samples, axis=axis), axis=axis),
        )

    scores = np.concatenate(strata)
    worst, count = float(scores.min()), len(scores)
    return Summary(pooled(np.mean), pooled(np.median), pooled(iqm), worst, count)


def mean_curve(curves: np.ndarray) -> Estimate:
    """Return the mean of curves, with pointwise intervals.

    Args:
      curves: `[runs, points]` a value for each run and point. Whole runs are resampled.

    Returns:
      Arrays `[points]`.
    """
    return _estimate([curves.T], lambda sample, axis: np.mean(sample, axis=axis))


def performance_profile(strata: Strata, thresholds: np.ndarray) -> Estimate:
    """Return the fraction of runs whose score is above each threshold, over all strata.

    Args:
      strata: the scores of the runs.
      thresholds: `[points]`.

    Returns:
      Arrays `[points]`.
    """

    def fractions(*samples: np.ndarray, axis: int) -> np.ndarray:
        scores = np.concatenate(samples, axis=axis)
        return np.stack([np.mean(scores > threshold, axis=axis) for threshold in thresholds])

    return _estimate(strata, fractions)


def probability_of_improvement(first: Strata, second: Strata) -> Estimate:
    """Return the probability that a run of one algorithm scores higher than a run of another.

    A tie counts half. The probabilities in the environments are averaged.

    Args:
      first: the scores of the first algorithm, an array for each environment.
      second: the scores of the second algorithm in the same environments.
    """

    def probability(*samples: np.ndarray, axis: int) -> np.ndarray:
        ours, others = samples[: len(first)], samples[len(first) :]
        return np.mean([wins(*pair, axis) for pair in zip(ours, others, strict=True)], axis=0)

    def wins(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        test = stats.mannwhitneyu(one, other, axis=axis, method="asymptotic")
        return test.statistic / (one.shape[axis] * other.shape[axis])

    return _estimate([*first, *second], probability)


def mean_ranks(scores: Mapping[str, Strata]) -> dict[str, Estimate]:
    """Return the rank of each algorithm by its mean score, averaged over environments.

    Rank 1 is the best. Equal means share the average of their ranks.

    Args:
      scores: for each algorithm, its scores in the same environments.
    """
    envs = len(next(iter(scores.values())))

    def ranks(*samples: np.ndarray, axis: int) -> np.ndarray:
        means = np.stack([np.mean(sample, axis=axis) for sample in samples])
        means = means.reshape(len(scores), envs, *means.shape[1:])
        return np.mean(stats.rankdata(-means, axis=0), axis=1)

    value, low, high = _estimate([one for strata in scores.values() for one in strata], ranks)
    ends = (None, None) if low is None else (low, high)
    return {
        label: Estimate(value[i], *(end if end is None else end[i] for end in ends))
        for i, label in enumerate(scores)
    }


def _estimate(strata: Strata, statistic: Callable[..., Any]) -> Estimate:
    """Return a statistic of strata, whose last axis is that of the runs, with an interval."""
    value = statistic(*strata, axis=-1)
    if min(sample.shape[-1] for sample in strata) < 2:
        return Estimate(value)
    found = stats.bootstrap(
        strata,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        axis=-1,
        rng=0,  # so that the same results make the same report
    ).confidence_interval
    return Estimate(value, found.low, found.high)
