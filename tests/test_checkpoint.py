"""Saved files: what they hold, what they cost, and how they survive failures."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import agentzoo
from agentzoo import DQN, SAC, ConfigurationError, checkpoint
from agentzoo.checkpoint import archive
from tests import probes
from tests.agents import CATCH, FAST, SETTINGS, assert_same, cart_pole, make

DATA = Path(__file__).parent / "data"


def assert_same_bits(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype, x.tobytes()) == (y.shape, y.dtype, y.tobytes())


# what a file holds


def test_saving_and_loading_keeps_everything(tmp_path):
    a = cart_pole(prioritized_replay=True).learn(100, progress_bar=False)
    path = a.save(tmp_path / "sub" / "agent")
    assert path == tmp_path / "sub" / "agent.safetensors"
    for b in (DQN.load(path), agentzoo.load(tmp_path / "sub" / "agent")):
        assert (
            type(b) is DQN
            and b.config == a.config
            and b.num_timesteps == 100
            and b.env_id == "CartPole-v1"
        )
        assert_same(a, b)
        np.testing.assert_array_equal(a.values(np.ones(4)), b.values(np.ones(4)))
        for _ in range(20):
            assert a.predict(np.zeros(4))[0] == b.predict(np.zeros(4))[0]


def test_a_loaded_agent_learns_on_exactly(tmp_path):
    """Loading does not change what is learned, if every `reset` begins in the same state."""

    def make():
        return DQN(probes.Truncated, **{**FAST, "train_freq": 5, "exploration_fraction": 0.0})

    whole = make().learn(200, progress_bar=False)
    path = make().learn(100, progress_bar=False).save(tmp_path / "half")
    resumed = DQN.load(path, probes.Truncated).learn(
        100, progress_bar=False, reset_num_timesteps=False
    )
    assert_same(whole, resumed)


def test_the_file_holds_no_pickle(tmp_path):
    data = cart_pole().save(tmp_path / "agent").read_bytes()
    assert safetensors.numpy.load(data)  # nothing but arrays
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["agentzoo"])["manifest"]["algorithm"] == "DQN"


def test_excluded_parts_are_empty_after_loading(tmp_path):
    a = cart_pole().learn(100, progress_bar=False)
    small, large = a.save(tmp_path / "small", exclude=["replay"]), a.save(tmp_path / "large")
    assert small.stat().st_size < large.stat().st_size / 2
    b = DQN.load(small, "CartPole-v1")
    assert b.learner_state.replay.size.sum() == 0
    np.testing.assert_array_equal(a.values(np.ones(4)), b.values(np.ones(4)))
    b.learn(40, progress_bar=False)
    with pytest.raises(ConfigurationError, match="exclude='nothing'"):
        a.save(tmp_path / "x", exclude=["nothing"])


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = cart_pole().save(tmp_path / "agent")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    (tmp_path / "short.safetensors").write_bytes(data[:-50])
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    for name, message in dict(
        flipped="damaged", short="damaged", junk="damaged", foreign="not one that agentzoo"
    ).items():
        with pytest.raises(ConfigurationError, match=message):
            DQN.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no saved agent"):
        DQN.load(tmp_path / "nowhere")


def test_loading_what_does_not_fit_names_it(tmp_path):
    path = cart_pole().save(tmp_path / "agent")
    with pytest.raises(ConfigurationError, match="linear"):
        DQN.load(path, net_arch=(17,))
    with pytest.raises(ConfigurationError, match="was made for"):
        DQN.load(path, "Acrobot-v1")
    with pytest.raises(ConfigurationError, match="without an environment"):
        DQN.load(path).learn(10)
    path = cart_pole(learning_rate=lambda remaining: 1e-3).save(tmp_path / "function")
    with pytest.raises(ConfigurationError, match="'learning_rate' was your function"):
        DQN.load(path)
    assert DQN.load(path, learning_rate=1e-4).config.learning_rate == 1e-4


def test_a_crash_while_saving_keeps_the_old_file(tmp_path, monkeypatch):
    path = cart_pole().save(tmp_path / "agent")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        cart_pole(seed=5).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
def test_every_dtype_survives(tmp_path, dtype):
    tree = {
        "a": jnp.ones((2, 3), dtype),
        "empty": jnp.zeros((0, 2), dtype),
        "scalar": jnp.ones((), dtype),
        "n": 3,
        "key": jax.random.key(1),
    }
    tree["transposed"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path = checkpoint.save(tmp_path / "x", tree, {})
    loaded = checkpoint.load(path, tree)
    assert loaded["n"] == 3 and type(loaded["n"]) is int
    for name in ("a", "empty", "scalar", "transposed"):
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(tree[name]))
    assert loaded["a"].dtype == tree["a"].dtype
    assert (jax.random.key_data(loaded["key"]) == jax.random.key_data(tree["key"])).all()


def test_files_of_earlier_versions_load():
    """A file of format 1, with replay, priorities and the state of a compiled environment."""
    loaded = agentzoo.load(DATA / "dqn_format_1", "agentzoo/CartPole-v0")
    replay = loaded.learner_state.replay
    assert loaded.num_timesteps == 100 and replay.size == 64 and replay.storage.r_t.sum() == 64
    np.testing.assert_allclose(replay.priorities[1], 93.4422, rtol=1e-5)
    np.testing.assert_allclose(loaded.values(np.ones(4)), [0.0518179, 0.4099400], rtol=1e-4)
    loaded.learn(100, progress_bar=False, reset_num_timesteps=False)
    assert loaded.num_timesteps == 200


def test_files_of_later_versions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FORMAT", 0)
    path = checkpoint.save(tmp_path / "x", {"a": 1}, {})
    with pytest.raises(ConfigurationError, match="update agentzoo"):
        checkpoint.read_manifest(path)


# rows of zeros


def ring(dtype, row, start, stop, length=40_000):
    """An array of which the rows from `start` to `stop` have been written."""
    array = np.zeros((length, *row), dtype)
    array[start:stop] = (
        np.random.default_rng(0).integers(1, 100, (stop - start, *row)).astype(dtype)
    )
    return array


def tree_of_sums(leaves=2**16, filled=1_000):
    tree = np.zeros(2 * leaves, np.float32)
    tree[leaves : leaves + filled] = 1
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
    return tree


MOSTLY_ZERO = {
    "filled from the front": ring(np.float32, (4,), 0, 500),
    "filled in the middle": ring(np.float32, (), 10_000, 10_100),
    "last row": ring(np.uint8, (3,), 39_999, 40_000),
    "images": ring(np.uint8, (20, 20), 0, 30, length=1_000),
    "rows of odd size": ring(np.int16, (7, 5), 0, 77),
    "flags": ring(bool, (), 5, 6, length=200_000),
    "bfloat16": jnp.array(ring(np.float32, (2,), 0, 10), jnp.bfloat16),
    "sums": tree_of_sums(),
    "nothing": np.zeros((50_000, 3), np.int32),
    "negative zero": np.where(np.arange(100_000) == 777, -0.0, 0.0).astype(np.float32),
}


@pytest.mark.parametrize("name", MOSTLY_ZERO)
def test_rows_of_zeros_are_not_written(name, tmp_path):
    tree = {"x": jnp.array(MOSTLY_ZERO[name]), "n": 3}
    path = checkpoint.save(tmp_path / "x", tree, {"a": 1})
    assert (
        path.stat().st_size < 2_000 + np.count_nonzero(tree["x"]) * 20 + 40_960 < tree["x"].nbytes
    )
    assert_same_bits(checkpoint.load(path, tree), tree)
    assert checkpoint.read_manifest(path) == {"a": 1}


@pytest.mark.parametrize(
    "shape", [(30_000,), (7, 30_001), (1, 100_000), (100_000, 1), (0, 5), (100, 0), ()]
)
def test_what_is_not_zero_is_written_as_it_is(shape, tmp_path):
    tree = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    path = checkpoint.save(tmp_path / "x", tree, {})
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["['x']"], tree["x"])
    assert_same_bits(checkpoint.load(path, tree), tree)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_a_replay_takes_the_room_that_it_fills(algorithm, tmp_path):
    """Loading is exact, whether nothing, a part or all of the replay has been written."""
    large = {"buffer_size": 200_000} if "buffer_size" in SETTINGS[algorithm] else {}
    large |= (
        {"prioritized_replay": True}
        if "prioritized_replay" in vars(getattr(agentzoo, algorithm).Config)
        else {}
    )
    a = make(algorithm, CATCH, n_envs=2, **large)
    assert_same(a, type(a).load(a.save(tmp_path / "empty")))
    a.learn(64, progress_bar=False)
    path = a.save(tmp_path / "agent")
    assert path.stat().st_size < 400_000
    b = type(a).load(path, CATCH)
    assert_same(a, b)
    for one in (a, b):
        one.learn(64, progress_bar=False, reset_num_timesteps=False)
    assert_same(a, b)


def test_a_replay_of_frames_takes_the_room_that_it_fills(tmp_path):
    class Pixels(probes.Probe):
        observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)
        length = 7

        def observe(self):
            return np.full((16, 16, 1), 10 + self.t, np.uint8)

    options = {**FAST, "n_envs": 3, "learning_starts": 1_000, "prioritized_replay": True}
    for buffer_size, steps in (
        (20_000, 60),
        (240, 600),
    ):  # nearly empty, and overwritten more than once
        a = DQN(Pixels, **{**options, "buffer_size": buffer_size}).learn(steps, progress_bar=False)
        path = a.save(tmp_path / "pixels")
        assert path.stat().st_size < 1_000_000
        assert_same(a, DQN.load(path))


def test_the_folder_of_a_run_holds_no_empty_replay(tmp_path):
    options = dict(net_arch=(16,), batch_size=16, learning_starts=50)
    a = SAC("Pendulum-v1", log_dir=tmp_path, **options).learn(100, progress_bar=False)
    replay = jax.tree.leaves(a.learner_state.replay)
    assert (
        (a.run_dir / "model.safetensors").stat().st_size
        < 200_000
        < sum(x.nbytes for x in replay) / 100
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_saving_needs_no_memory_and_loading_no_more_than_twice_the_arrays(tmp_path):
    code = """
import jax, jax.numpy as jnp
from agentzoo import checkpoint

def megabytes(what):
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

def peak(function):
    open("/proc/self/clear_refs", "w").write("5")
    before = megabytes("VmRSS")
    result = function()
    print(megabytes("VmHWM") - before)
    return result

rest = jnp.zeros((20, 2**20), jnp.float32).at[:10].set(1.0)
tree = {"replay": jnp.ones((40, 2**20), jnp.float32), "rest": rest}
checkpoint.save("warm", {"x": jnp.ones(3)}, {})
path = peak(lambda: checkpoint.save("x", tree, {}))
peak(lambda: checkpoint.load(path, tree))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    saving, loading = map(float, printed.stdout.split())
    assert saving < 20, f"240 MB took {saving:.0f} MB more to save"
    assert loading < 2.2 * 240


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}


# what becomes of a file


@pytest.fixture
def mask():
    previous = os.umask(0o027)
    yield
    os.umask(previous)


def permissions(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_ordinary_permissions_and_keeps_those_it_was_given(tmp_path, mask):
    path = cart_pole().save(tmp_path / "agent")
    assert permissions(path) == oct(0o640)
    for mode in (0o604, 0o444):
        path.chmod(mode)
        cart_pole(seed=1).save(path)
        assert permissions(path) == oct(mode) and DQN.load(path).seed == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows asks for rights to make links")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real = cart_pole().save(tmp_path / "elsewhere" / "agent")
    link = tmp_path / "link.safetensors"
    link.symlink_to(real)
    assert cart_pole(seed=1).save(link) == link
    assert (
        link.is_symlink()
        and DQN.load(real).seed == 1
        and list(tmp_path.glob("*.safetensors*")) == [link]
    )


@pytest.mark.skipif(os.name != "posix", reason="Windows does not open folders")
def test_file_and_folder_are_written_through_to_the_disk(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        synced.append(
            "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size
        )

    monkeypatch.setattr(os, "fsync", fsync)
    path = cart_pole().save(tmp_path / "agent")
    assert synced == [path.stat().st_size, "folder"]


SAVE = """
import os, signal, sys
from agentzoo import checkpoint

def fsync(descriptor, sync=os.fsync):
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.readline()
    sync(descriptor)

os.fsync = fsync
checkpoint.save("model", {"x": 2}, {})
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_what_a_killed_process_left_is_removed_but_not_what_another_is_writing(tmp_path):
    path = checkpoint.save(tmp_path / "model", {"x": 1}, {})
    command = [sys.executable, "-c", SAVE]
    assert (
        subprocess.run([*command, "dies"], cwd=tmp_path, env=environment()).returncode
        == -signal.SIGKILL
    )
    (tmp_path / ".other.safetensors.00000000").touch()  # of another file
    (left,) = tmp_path.glob(".model*")
    assert list(tmp_path.glob("*.safetensors")) == [path] and checkpoint.load(path, {"x": 0}) == {
        "x": 1
    }
    writer = subprocess.Popen(
        [*command, "lives"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout.readline() == b"writing\n"
        (writing,) = tmp_path.glob(".model*")
        assert writing != left
        checkpoint.save(path, {"x": 3}, {})
        assert list(tmp_path.glob(".model*")) == [writing] and checkpoint.load(path, {"x": 0}) == {
            "x": 3
        }
        writer.communicate(b"\n\n\n")
    assert writer.returncode == 0 and checkpoint.load(path, {"x": 0}) == {"x": 2}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".other.safetensors.00000000",
        "model.safetensors",
    ]


def test_several_threads_may_save_to_one_path(tmp_path):
    errors = []

    def save(number):
        try:
            for _ in range(20):
                checkpoint.save(tmp_path / "x", {"x": np.full(1_000, number)}, {})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert len(set(checkpoint.load(tmp_path / "x", {"x": np.zeros(1_000, int)})["x"].tolist())) == 1


class Earlier(NamedTuple):
    statistics: Any


class Current(NamedTuple):
    obs_statistics: Any


def test_leaves_that_have_another_name_since_are_found(tmp_path):
    zeros, saved = jnp.zeros(70_000), jnp.zeros(70_000).at[3].set(2.0)
    checkpoint.save(tmp_path / "agent", {"agent": {"params": Earlier(saved)}}, {})
    loaded = checkpoint.load(tmp_path / "agent", {"agent": {"params": Current(zeros)}})
    np.testing.assert_array_equal(loaded["agent"]["params"].obs_statistics, saved)
