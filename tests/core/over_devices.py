"""Checks over several devices, which `test_moving_averages.py` runs in a process of their own.

The number of devices is fixed when JAX starts.
"""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from agentzoo.core.moving_averages import RewardNormalizer, RunningMeanStd, create_ema
from agentzoo.core.pop_art import PopArt

MESH = Mesh(np.array(jax.devices()), ("devices",))
rng = np.random.default_rng(0)
x = rng.normal(1e4, 1, (64, 3)).astype(np.float32)


def assert_close(found, expected):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-6), found, expected)


def over_devices(function, in_specs, out_specs):
    return jax.shard_map(function, mesh=MESH, in_specs=in_specs, out_specs=out_specs)


def running_statistics():
    mask = (rng.random(64) < 0.7).astype(np.float32)
    start = RunningMeanStd.init(x[0]).update(x[:5] + 1)
    update = over_devices(
        lambda s, x, w: s.update(x, w, axis_name="devices"), (P(), P("devices"), P("devices")), P()
    )
    whole, divided = start.update(x, mask), update(start, x, mask)
    assert divided.count == whole.count
    samples = np.concatenate([x[:5] + 1, x[mask > 0]]).astype(np.float64)
    for state in (whole, divided):
        np.testing.assert_allclose(
            np.float64(state.mean) + np.float64(state.rest), samples.mean(0), rtol=1e-9
        )
        np.testing.assert_allclose(state.variance, samples.var(0), rtol=2e-6)


def moving_averages():
    init, update = create_ema(0.9, pmean_axis_name="devices", axis=0)
    _, update_whole = create_ema(0.9, axis=0)
    divided = over_devices(lambda x: update(x, init(x))[0], P("devices"), P())(x)
    assert_close(divided, update_whole(x, init(x))[0])


def reward_scale():
    r_t, last_t = rng.normal(1, 1, (16, 8)).astype(np.float32), rng.random((16, 8)) < 0.2
    layout, steps = RewardNormalizer(P("devices"), P()), P(None, "devices")
    update = over_devices(
        lambda s, r, end: s.update(r, end, 0.9, axis_name="devices"), (layout, steps, steps), layout
    )
    assert_close(
        update(RewardNormalizer.init(8), r_t, last_t),
        RewardNormalizer.init(8).update(r_t, last_t, 0.9),
    )


def pop_art():
    layer, tasks = PopArt.init(jax.random.key(0), 3, 2), rng.integers(2, size=64)
    update = over_devices(
        lambda p, t, i: p.update(t, i, 1e-2, axis_name="devices"),
        (P(), P("devices"), P("devices")),
        P(),
    )
    divided, whole = update(layer, x[:, 0], tasks), layer.update(x[:, 0], tasks, 1e-2)
    assert_close((divided.params, divided.statistics[:3]), (whole.params, whole.statistics[:3]))


if __name__ == "__main__":
    assert jax.device_count() == 4
    for check in (running_statistics, moving_averages, reward_scale, pop_art):
        check()
        print(check.__name__)
