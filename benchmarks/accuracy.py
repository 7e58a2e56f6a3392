"""Precision of `agentzoo.core`: errors in float32 against float64, over whole domains.

    python benchmarks/accuracy.py

Each row is a transform or a log-probability. It has the largest relative errors of the value and of
the gradient, the arguments at which they occur, and how many values and gradients are not finite.

Points are evenly spaced among the floating-point numbers of the domain, so every magnitude is
covered. Differences of up to 1e-37 are not counted, because devices may flush such numbers to 0.
Errors of log-probabilities are relative to `max(1, |value|)`, because differences of logarithms
matter. Errors of decoded encodings are relative to at least the width of a bin.
"""

import argparse
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from agentzoo import core
from agentzoo.core import policies

NOTHING = 1e-37  # devices may flush smaller numbers to 0
TINY = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)


class Case(NamedTuple):
    """A function to measure.

    Attributes:
      name: name of the function.
      domain: domain, in words.
      function: function of float32 arguments, whose leading axis is the axis of points.
      exact: the same function in NumPy and float64.
      arguments: points. The gradient is taken with respect to the first argument.
      slope: the gradient in NumPy and float64.
      floor: smallest denominator of a relative error.
    """

    name: str
    domain: str
    function: Callable
    exact: Callable
    slope: Callable
    arguments: tuple
    floor: float = 0.0


class Row(NamedTuple):
    """The largest errors of a case, and the arguments at which they occur."""

    name: str
    domain: str
    error: float
    at: str
    slope_error: float
    slope_at: str
    not_finite: int
    slopes_not_finite: int


def between(low: float, high: float, count: int) -> np.ndarray:
    """Return numbers evenly spaced among the float32 in `[low, high]`, for `0 < low < high`."""
    # The bits of positive floats, read as integers, count the floats in order.
    bits = np.array([low, high], np.float32).view(np.int32)
    return np.linspace(*bits, count).astype(np.int32).view(np.float32)


def both_signs(low: float, high: float, count: int) -> np.ndarray:
    positive = between(low, high, count // 2)
    return np.concatenate([-positive[::-1], np.zeros(1, np.float32), positive])


def f64(x: float) -> float:
    """Return a number rounded to float32."""
    return float(np.float32(x))


def element_wise(count: int) -> Iterator[Case]:
    line = both_signs(TINY, LARGEST, count)

    def sigmoid(x):
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1) / (1 + small)

    unit = np.concatenate([between(TINY, 0.5, count // 2), 1 - between(2**-24, 0.5, count // 2)])
    yield Case("identity", "all", core.identity, lambda x: x, np.ones_like, (line,))
    yield Case("sigmoid", "all", core.sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x), (line,))
    yield Case(
        "logit",
        "(0, 1)",
        core.logit,
        lambda x: np.where(x < 0.3, np.log(x / (1 - x)), 2 * np.arctanh(2 * x - 1)),
        lambda x: 1 / (x * (1 - x)),
        (unit,),
    )
    yield Case(
        "signed_logp1",
        "all",
        core.signed_logp1,
        lambda x: np.sign(x) * np.log1p(np.abs(x)),
        lambda x: 1 / (1 + np.abs(x)),
        (line,),
    )
    yield Case(
        "signed_expm1",
        "[-88.7, 88.7]",
        core.signed_expm1,
        lambda x: np.sign(x) * np.expm1(np.abs(x)),
        lambda x: np.exp(np.abs(x)),
        (both_signs(TINY, 88.7, count),),
    )
    for eps in (1e-3, 0.0):
        e = f64(eps)
        largest = 3e38 * e if e else 1.8e19  # beyond, the result overflows

        def parabola(x, e=e):
            half = 0.5 + e
            return np.abs(x) / (half + np.sqrt(half * half + e * np.abs(x)))

        yield Case(
            f"signed_hyperbolic, eps {eps:g}",
            "all",
            lambda x, e=eps: core.signed_hyperbolic(x, e),
            lambda x, e=e: np.sign(x) * np.expm1(0.5 * np.log1p(np.abs(x))) + e * x,
            lambda x, e=e: 0.5 / np.sqrt(np.abs(x) + 1) + e,
            (line,),
        )
        yield Case(
            f"signed_parabolic, eps {eps:g}",
            f"[{-largest:.1e}, {largest:.1e}]",
            lambda x, e=eps: core.signed_parabolic(x, e),
            lambda x, t=parabola: np.sign(x) * t(x) * (t(x) + 2),
            lambda x, t=parabola, e=e: (t(x) + 1) / (0.5 + e * (t(x) + 1)),
            (both_signs(TINY, largest, count),),
        )
    for p in (0.1, 0.5, 2.0, 3.0):
        p64, largest = f64(p), 10 ** min(38, 38 / p)
        q = np.sqrt(p64)
        yield Case(
            f"power, p {p:g}",
            f"[{-largest:.1e}, {largest:.1e}]",
            lambda x, p=p: core.power(x, p),
            lambda x, p=p64, q=q: np.sign(x) * np.expm1(p * np.log1p(np.abs(x) / q)) / q,
            lambda x, p=p64, q=q: (np.abs(x) / q + 1) ** (p - 1),
            (both_signs(TINY, largest, count),),
        )
    yield Case(
        "hyperbolic_sin",
        "[-89.4, 89.4]",
        core.hyperbolic_sin,
        np.sinh,
        np.cosh,
        (both_signs(TINY, 89.4, count),),
    )
    yield Case(
        "hyperbolic_arcsin",
        "all",
        core.hyperbolic_arcsin,
        np.arcsinh,
        lambda x: 1 / np.hypot(x, 1),
        (line,),
    )
    discount = core.DISCOUNT_TRANSFORM_PAIR
    yield Case(
        "DISCOUNT_TRANSFORM_PAIR",
        "[0, 1)",
        discount.apply,
        lambda x: -np.log1p(-x),
        lambda x: 1 / (1 - x),
        (unit,),
    )
    yield Case(
        "its inverse",
        "[0, inf)",
        discount.apply_inv,
        lambda x: -np.expm1(-x),
        lambda x: np.exp(-x),
        (np.abs(line),),
    )
    for target, domain, certain in (
        (0.0, "[0, 1)", [0]),
        (0.5, "(0, 1)", []),
        (1.0, "(0, 1]", [1]),
    ):
        # A term with weight 0 is 0, even where its logarithm is infinite.
        yield Case(
            f"log_loss, target {target:g}",
            domain,
            lambda p, t=target: core.log_loss(p, t),
            lambda p, t=target: (
                (-t * np.log(p) if t else 0) - ((1 - t) * np.log1p(-p) if t < 1 else 0)
            ),
            lambda p, t=target: ((1 - t) / (1 - p) if t < 1 else 0) - (t / p if t else 0),
            (np.append(unit, np.float32(certain)),),
            1.0,
        )


def encodings(count: int) -> Iterator[Case]:
    count = min(count // 10, 5_000)
    for low, high, bins in ((-300, 300, 601), (-0.01, 0.01, 601), (5, 6, 51)):
        domain = f"[{low:g}, {high:g}]"
        x = np.concatenate([np.linspace(low, high, count), np.linspace(low, high, bins)]).astype(
            np.float32
        )
        x = x[(x > np.float32(low)) & (x < np.float32(high))]  # the ends have two gradients
        width = (f64(high) - f64(low)) / (bins - 1)
        two_hot = core.twohot_pair(low, high, bins)
        yield Case(
            f"twohot_pair, {bins} bins",
            domain,
            lambda x, tx=two_hot: tx.apply_inv(tx.apply(x)),
            lambda x: x,
            np.ones_like,
            (x,),
            width,
        )
        edges = np.linspace(f64(low), f64(high), bins + 1)
        centres, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        scale = np.sqrt(2) * f64(0.75) * width

        def histogram(x, edges=edges, scale=scale):  # not divided by its sum
            return np.diff(erf((edges - x[:, None]) / scale))

        def mean(x, histogram=histogram, centres=centres):
            return histogram(x) @ centres / histogram(x).sum(-1)

        def slope(x, histogram=histogram, mean=mean, centres=centres, edges=edges, scale=scale):
            slopes = np.diff(
                -2 / np.sqrt(np.pi) / scale * np.exp(-(((edges - x[:, None]) / scale) ** 2))
            )
            return (slopes @ centres - mean(x) * slopes.sum(-1)) / histogram(x).sum(-1)

        hl_gauss = core.hl_gauss_pair(low, high, bins)
        yield Case(
            f"hl_gauss_pair, {bins} bins",
            domain,
            lambda x, tx=hl_gauss: tx.apply_inv(tx.apply(x)),
            mean,
            slope,
            (x,),
            width,
        )
    squash, bins = core.SIGNED_HYPERBOLIC_PAIR, 601
    largest = 0.999 * float(squash.apply_inv(300.0))  # the ends have two gradients
    x = both_signs(TINY, largest, count)
    for make in (core.muzero_pair, core.unbiased_transform_pair):
        pair = make(-300.0, 300.0, bins, squash)
        yield Case(
            f"{make.__name__}, {bins} bins",
            f"[{-largest:.1e}, {largest:.1e}]",
            lambda x, tx=pair: tx.apply_inv(tx.apply(x)),
            lambda x: x,
            np.ones_like,
            (x,),
            1.0,
        )


def log_probabilities(count: int) -> Iterator[Case]:
    rng, count = np.random.default_rng(0), min(count, 20_000)

    def of(values, index):
        return np.take_along_axis(values, index[:, None], -1)[:, 0]

    def log_softmax(x):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    def chosen(x, a):
        return of(log_softmax(x), a)

    def chosen_slope(x, a):
        return (np.arange(x.shape[-1]) == a[:, None]) - np.exp(log_softmax(x))

    logits = (rng.normal(size=(count, 5)) * 10 ** rng.uniform(-4, 4, (count, 1))).astype(np.float32)
    action = rng.integers(5, size=count)
    illegal = (rng.random((count, 5)) < 0.3) & (np.arange(5) != action[:, None])
    for domain, x in (
        ("logits to 1e5", logits),
        ("and some illegal", np.where(illegal, -np.inf, logits).astype(np.float32)),
    ):
        for name, function in (
            ("softmax().logprob", lambda x, a: core.softmax().logprob(a, x)),
            ("Categorical.log_prob", lambda x, a: policies.Categorical(x).log_prob(a)),
        ):
            yield Case(name, domain, function, chosen, chosen_slope, (x, action), 1.0)
    for name, function in (
        ("softmax(0.1).logprob", lambda x, a: core.softmax(0.1).logprob(a, x)),
        (
            "clipped_entropy_softmax(0.1).logprob",
            lambda x, a: core.clipped_entropy_softmax(0.1).logprob(a, x),
        ),
        ("Softmax(_, 0.1).log_prob", lambda x, a: policies.Softmax(x, 0.1).log_prob(a)),
        (
            "ClippedEntropySoftmax(_, 0.1).log_prob",
            lambda x, a: policies.ClippedEntropySoftmax(x, 0.1).log_prob(a),
        ),
    ):
        yield Case(
            name,
            "logits to 1e5",
            function,
            lambda x, a: chosen(x / f64(0.1), a),
            lambda x, a: chosen_slope(x / f64(0.1), a) / f64(0.1),
            (logits, action),
            1.0,
        )
    labels = rng.dirichlet(np.full(5, 0.3), count).astype(np.float32)
    yield Case(
        "categorical_cross_entropy",
        "logits to 1e5",
        lambda x, p: core.categorical_cross_entropy(p, x),
        lambda x, p: -(p * log_softmax(x)).sum(-1) / p.sum(-1),
        lambda x, p: np.exp(log_softmax(x)) - p / p.sum(-1, keepdims=True),
        (logits, labels),
        1.0,
    )
    pairs = np.stack([action % 2, action % 3], -1)
    yield Case(
        "MultiCategorical.log_prob",
        "logits to 1e5",
        lambda x, a: policies.MultiCategorical(x, (2, 3)).log_prob(a),
        lambda x, a: chosen(x[:, :2], a[:, 0]) + chosen(x[:, 2:], a[:, 1]),
        lambda x, a: np.concatenate(
            [chosen_slope(x[:, :2], a[:, 0]), chosen_slope(x[:, 2:], a[:, 1])], -1
        ),
        (logits, pairs),
        1.0,
    )
    yield Case(
        "Bernoulli.log_prob",
        "logits to 1e5",
        lambda x, a: policies.Bernoulli(x).log_prob(a),
        lambda x, a: -np.logaddexp(0, np.where(a, -x, x)).sum(-1),
        lambda x, a: a - 0.5 * (1 + np.tanh(0.5 * x)),
        (logits, rng.integers(2, size=(count, 5))),
        1.0,
    )
    preferences = np.round(3 * rng.normal(size=(count, 5))).astype(np.float32)  # with ties
    epsilon = (10 ** rng.uniform(-37, 0, count)).astype(np.float32)

    def greedy_share(preferences, action):
        best = preferences == preferences.max(-1, keepdims=True)
        return of(best / best.sum(-1, keepdims=True), action)

    for name, function in (
        ("epsilon_greedy().logprob", lambda e, x, a: core.epsilon_greedy(e).logprob(a, x)),
        ("EpsilonGreedy.log_prob", lambda e, x, a: policies.EpsilonGreedy(x, e).log_prob(a)),
    ):
        yield Case(
            name,
            "epsilon in [1e-37, 1]",
            function,
            lambda e, x, a: np.log(greedy_share(x, a) * (1 - e) + e / 5),
            lambda e, x, a: (0.2 - greedy_share(x, a)) / (greedy_share(x, a) * (1 - e) + e / 5),
            (epsilon, preferences, action),
            1.0,
        )
    best = preferences.argmax(-1)
    for name, function in (
        ("greedy().logprob", lambda x, a: core.greedy().logprob(a, x)),
        ("Greedy.log_prob", lambda x, a: policies.Greedy(x).log_prob(a)),
    ):
        yield Case(
            name,
            "best actions",
            function,
            lambda x, a: np.log(greedy_share(x, a)),
            lambda x, a: np.zeros_like(x),
            (preferences, best),
            1.0,
        )

    def gaussian(x, mu, sigma):
        return (-0.5 * ((x - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)).sum(-1)

    sigma = (10 ** rng.uniform(-18, 18, (count, 3))).astype(np.float32)
    mu = (sigma * rng.normal(size=(count, 3)) * 10 ** rng.uniform(-3, 3, (count, 1))).astype(
        np.float32
    )
    sample = (mu + 6 * sigma * rng.normal(size=(count, 3))).astype(np.float32)
    for name, function in (
        (
            "gaussian_diagonal().logprob",
            lambda mu, x, s: core.gaussian_diagonal().logprob(x, mu, s),
        ),
        (
            "DiagonalGaussian.log_prob",
            lambda mu, x, s: policies.DiagonalGaussian(mu, s).log_prob(x),
        ),
    ):
        yield Case(
            name,
            "sigma in [1e-18, 1e18]",
            function,
            lambda mu, x, s: gaussian(x, mu, s),
            lambda mu, x, s: (x - mu) / s**2,
            (mu, sample, sigma),
            1.0,
        )

    def tanh_slope(u):  # logarithm of the derivative of tanh, summed
        return 2 * (np.log(2) - np.logaddexp(u, -u)).sum(-1)

    mu, u = (4 * rng.normal(size=(2, count, 3))).astype(np.float32)
    sigma = (10 ** rng.uniform(-2, 1, (count, 3))).astype(np.float32)
    yield Case(
        "TanhGaussian.log_prob_pre_tanh",
        "sigma in [1e-2, 10]",
        lambda mu, u, s: policies.TanhGaussian(mu, s).log_prob_pre_tanh(u),
        lambda mu, u, s: gaussian(u, mu, s) - tanh_slope(u),
        lambda mu, u, s: (u - mu) / s**2,
        (mu, u, sigma),
        1.0,
    )
    noise = np.asarray(
        jax.random.normal(jax.random.key(0), (1, count, 3))[0]
    )  # the noise of the policy's own samples
    own_sigma = np.exp(rng.uniform(-20, 5, (count, 3))).astype(np.float32)

    def sample_log_prob(mu, noise, s):
        return gaussian(noise, 0.0, 1.0) - np.log(s).sum(-1) - tanh_slope(mu + s * noise)

    yield Case(
        "TanhGaussian.sample_and_log_prob",
        "sigma in [e^-20, e^5]",
        lambda mu, noise, s: policies.TanhGaussian(mu, s).sample_and_log_prob(
            seed=jax.random.key(0)
        )[1],
        sample_log_prob,
        lambda mu, noise, s: 2 * np.tanh(mu + s * noise),
        (mu, noise, own_sigma),
        1.0,
    )
    inside = np.clip(np.tanh(u), -1 + 2**-24, 1 - 2**-24).astype(np.float32)
    yield Case(
        "TanhGaussian.log_prob",
        "actions in (-1, 1)",
        lambda mu, x, s: policies.TanhGaussian(mu, s).log_prob(x),
        lambda mu, x, s: gaussian(np.arctanh(x), mu, s) - np.log1p(-(x**2)).sum(-1),
        lambda mu, x, s: (np.arctanh(x) - mu) / s**2,
        (mu, inside, sigma),
        1.0,
    )
    spec = SimpleNamespace(minimum=-1.0, maximum=1.0)
    raw = rng.normal(size=(count, 3)).astype(np.float32)

    def base_sigma(raw):
        return np.exp(-4 + 2 * (np.tanh(raw) + 1))

    yield Case(
        "squashed_gaussian().logprob",
        "actions in (-1, 1)",
        lambda mu, s, x: core.squashed_gaussian().logprob(x, mu, s, spec),
        lambda mu, s, x: (
            gaussian(np.arctanh(x), np.tanh(mu), base_sigma(s)) - np.log1p(-(x**2)).sum(-1)
        ),
        lambda mu, s, x: (np.arctanh(x) - np.tanh(mu)) / base_sigma(s) ** 2 / np.cosh(mu) ** 2,
        (mu, raw, inside),
        1.0,
    )


def measure(case: Case) -> Row:
    """Measure the errors of a case."""

    @jax.jit
    def value_and_slope(x, *others):
        value, pull = jax.vjp(lambda x: case.function(x, *others), x)
        return value, pull(jnp.ones_like(value))[0]

    value, slope = map(np.asarray, value_and_slope(*case.arguments))
    with np.errstate(all="ignore"):
        wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in case.arguments]
        errors = []
        for found, true in ((value, case.exact(*wide)), (slope, case.slope(*wide))):
            error = np.maximum(np.abs(found.astype(np.float64) - true) - NOTHING, 0) / np.maximum(
                np.abs(true), case.floor or TINY
            )
            worst = np.unravel_index(np.nanargmax(error), error.shape)
            at = ", ".join(f"{x:.4g}" for x in np.ravel(case.arguments[0][worst[0]])[:1])
            errors += [float(error[worst]), at]
    return Row(
        case.name,
        case.domain,
        *errors,
        int((~np.isfinite(value)).sum()),
        int((~np.isfinite(slope)).sum()),
    )


def rows(count: int) -> Iterator[Row]:
    """Measure all cases, with about `count` points for each function of one number."""
    for cases in (element_wise, encodings, log_probabilities):
        yield from map(measure, cases(count))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--points", type=int, default=2_000_000, help="points for each function of one number"
    )
    arguments = parser.parse_args()
    columns = ("function", "domain", "error", "at", "error of the gradient", "at")
    print(f"| {' | '.join(columns)} | not finite: values | gradients |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(arguments.points):
        error, slope_error = (f"{x:.1e}" if x else "0" for x in (row.error, row.slope_error))
        cells = (row.name, row.domain, error, row.at, slope_error, row.slope_at)
        print(f"| {' | '.join(cells)} | {row.not_finite} | {row.slopes_not_finite} |")


if __name__ == "__main__":
    main()
