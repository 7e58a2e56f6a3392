"""Checkpoints in a folder: what they write, what they keep, and how they survive failures."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError, checkpoint
from agentzoo.checkpoint import CheckpointStore, archive

MIB = 2**20


def tree(rows=8, filled=4, seed=0):
    """A replay of which some rows have been written, small arrays and a random key."""
    replay = np.zeros((rows, MIB // 4), np.float32)
    replay[:filled] = np.random.default_rng(seed).normal(size=(filled, MIB // 4))
    return {
        "replay": replay,
        "params": np.arange(100.0) + seed,
        "key": jax.random.key(seed),
        "n": seed,
    }


def assert_loads(path, expected):
    loaded = checkpoint.load(path, tree(seed=77))
    for name in ("replay", "params", "n"):
        np.testing.assert_array_equal(np.asarray(loaded[name]), expected[name])
    assert (jax.random.key_data(loaded["key"]) == jax.random.key_data(expected["key"])).all()


def sizes(folder):
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def test_only_blocks_that_are_new_are_written(tmp_path):
    store, data = CheckpointStore(tmp_path), tree()
    assert store.write(10, data, {"a": 1}, wait=True) and store.error is None
    assert sizes(tmp_path)["step_000000010.blocks"] == 4 * MIB  # zeros are not written
    assert_loads(store.latest(), data)
    assert checkpoint.read_manifest(store.latest()) == {"a": 1}
    data["replay"][5] = 1.0
    data["replay"][0, 0] += 1
    store.write(20, data, {}, wait=True)
    assert sizes(tmp_path)["step_000000020.blocks"] == 2 * MIB
    assert store.latest().name == "step_000000020.safetensors"
    assert_loads(store.latest(), data)
    store.write(30, data, {}, wait=True)
    assert "step_000000030.blocks" not in sizes(tmp_path)
    again = CheckpointStore(tmp_path)  # as after a restart
    data["replay"][7] = 3.0
    again.write(40, data, {}, wait=True)
    assert sizes(tmp_path)["step_000000040.blocks"] == MIB
    assert_loads(again.latest(), data)


def test_the_newest_and_the_best_are_kept(tmp_path):
    store, data = CheckpointStore(tmp_path, keep=2), tree()
    scores = {10: 1.0, 20: 5.0, 30: None, 40: float("nan"), 50: 4.0, 60: -np.inf}
    (tmp_path / "step_000000007.blocks").write_bytes(b"left by a process that died")
    (tmp_path / ".step_000000007.safetensors.0123abcd").touch()
    (tmp_path / "notes.txt").touch()
    for step, score in scores.items():
        data["replay"][step // 10] = step
        data["n"] = step
        store.write(step, data, {}, score, wait=True)
    steps = {path.name for path in tmp_path.glob("*.safetensors")}
    assert steps == {f"step_0000000{step}.safetensors" for step in (20, 50, 60)}
    assert store.best() == tmp_path / "step_000000020.safetensors"
    assert int(checkpoint.load(store.best(), tree())["n"]) == 20
    names = set(sizes(tmp_path)) - steps
    assert names == {"notes.txt"} | {f"step_0000000{step}.blocks" for step in scores}
    again = CheckpointStore(tmp_path)
    again.write(70, data, {}, 5.0, wait=True)  # as good as the best, and newer
    assert again.best() == again.latest() == tmp_path / "step_000000070.safetensors"
    assert again.write(70, tree(seed=3), {}, wait=True)  # takes the place of the one before
    assert_loads(again.latest(), tree(seed=3))


def test_a_run_that_goes_back_goes_on_from_there(tmp_path):
    """The newest checkpoint is the one that was written last, whatever its step."""
    store = CheckpointStore(tmp_path, keep=1)
    for step in (100, 50):
        store.write(step, tree(seed=step), {}, wait=True)
        assert_loads(store.latest(), tree(seed=step))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("what", ["file", "segment", "vanished", "empty"])
def test_what_is_damaged_is_passed_over(what, restarted, tmp_path):
    store, data = CheckpointStore(tmp_path), tree()
    for step in (10, 20):
        data["replay"][step // 10 + 3] = step
        store.write(step, data, {}, wait=True)
    newest, segment = (tmp_path / f"step_000000020{end}" for end in (".safetensors", ".blocks"))
    if what == "vanished":
        segment.unlink()
    elif what == "empty":
        newest.write_bytes(b"")
    else:
        path = newest if what == "file" else segment
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    store = CheckpointStore(tmp_path) if restarted else store
    with pytest.warns(RuntimeWarning, match=r"step_000000020.* is damaged, so an earlier"):
        assert store.latest() == tmp_path / "step_000000010.safetensors"
    with pytest.raises(ConfigurationError, match=r"damaged|cannot be read"):
        checkpoint.load(newest, tree())
    if restarted:  # The resumed run arrives at the same data again.
        store.write(20, data, {}, wait=True)
        store.write(30, data, {}, wait=True)
        assert store.error is None
        assert_loads(store.latest(), data)


def test_checkpoints_of_later_versions_stay(tmp_path, monkeypatch):
    CheckpointStore(tmp_path).write(10, tree(), {}, wait=True)
    monkeypatch.setattr(archive, "FORMAT", 2)
    store = CheckpointStore(tmp_path)
    for call in (store.latest, store.best, lambda: store.write(20, tree(), {})):
        with pytest.raises(ConfigurationError, match="update agentzoo"):
            call()
    assert len(sizes(tmp_path)) == 2


def test_segments_do_not_pile_up(tmp_path):
    """Blocks that change at different rates leave segments of which little is in use."""
    store, rng = CheckpointStore(tmp_path, keep=1), np.random.default_rng(0)
    data = {"x": rng.normal(size=(16, MIB // 8))}
    for step in range(1, 30):
        data["x"][rng.choice(16, 4)] += 1
        store.write(step, data, {}, wait=True)
        assert store.error is None
        assert sum(sizes(tmp_path).values()) < 2.5 * data["x"].nbytes
    np.testing.assert_array_equal(checkpoint.load(store.latest(), data)["x"], data["x"])


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8", "bool"])
def test_large_arrays_of_any_dtype_survive(tmp_path, dtype):
    data = {
        "x": jnp.arange(3 * MIB + 5).astype(dtype),
        "zeros": jnp.zeros((2 * MIB, 3), dtype),
        "ragged": np.asfortranarray(np.arange(3.0 * MIB).reshape(3, MIB))[:, 5:],
    }
    store = CheckpointStore(tmp_path)
    store.write(1, data, {}, wait=True)
    loaded = checkpoint.load(store.latest(), data)
    for name, array in data.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(array))
        assert loaded[name].dtype == array.dtype


def test_arrays_may_change_as_soon_as_write_has_returned(tmp_path):
    store, data = CheckpointStore(tmp_path), tree(filled=8)
    expected = jax.tree.map(np.array, {**data, "key": 0})
    store.write(1, data, {})
    for name in ("replay", "params"):
        data[name][:] = -1.0
    store.wait()
    assert_loads(store.latest(), {**expected, "key": data["key"]})


def test_a_write_in_progress_is_not_disturbed(tmp_path, monkeypatch):
    store, go_on = CheckpointStore(tmp_path), threading.Event()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (go_on.wait(20), sync(descriptor)))
    assert store.write(1, tree(), {})
    assert not store.write(2, tree(), {}) and store.latest() is None
    go_on.set()
    assert store.write(3, tree(), {}, wait=True)
    assert {path.name[:14] for path in tmp_path.glob("*.safetensors")} == {
        "step_000000001",
        "step_000000003",
    }


class Bad:
    """A leaf that interrupts the training thread while it collects the arrays."""

    dtype = np.dtype(np.float32)
    shape = ()

    def __array__(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_last_checkpoint(tmp_path):
    store, data = CheckpointStore(tmp_path), tree(rows=40, filled=40)
    store.write(1, data, {}, wait=True)
    with pytest.raises(KeyboardInterrupt):
        store.write(2, {**tree(rows=40, filled=40, seed=1), "z": Bad()}, {})
    store.wait()
    assert sorted(sizes(tmp_path)) == ["step_000000001.blocks", "step_000000001.safetensors"]
    store.write(3, data, {}, wait=True)
    assert store.error is None and "step_000000003.blocks" not in sizes(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the process")
def test_a_full_disk_does_not_end_the_run(tmp_path):
    store, data = CheckpointStore(tmp_path), tree()
    store.write(1, data, {}, wait=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    data["replay"] += 1
    for limit in (2 * MIB + 5, 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            store.write(2, data, {}, wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert store.error.errno == errno.EFBIG
        assert sorted(sizes(tmp_path)) == ["step_000000001.blocks", "step_000000001.safetensors"]
        assert_loads(store.latest(), {**data, "replay": data["replay"] - 1}) if limit == 0 else None
    store.write(3, data, {}, wait=True)
    assert store.error is None
    assert_loads(store.latest(), data)


def test_a_folder_that_vanishes_does_not_end_the_run(tmp_path):
    store, data = CheckpointStore(tmp_path / "run" / "checkpoints"), tree()
    store.write(1, data, {}, wait=True)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    store.write(2, data, {}, wait=True)
    assert store.error.errno == errno.ENOENT and store.latest() is None
    (tmp_path / "run").mkdir()  # Now only the checkpoints are gone.
    store.write(3, data, {}, wait=True)
    assert store.error is None
    assert_loads(store.latest(), data)


def test_a_folder_that_is_a_file_is_an_error_of_the_disk(tmp_path):
    (tmp_path / "checkpoints").touch()
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.latest() is None and store.best() is None
    store.write(1, tree(), {}, wait=True)
    assert isinstance(store.error, OSError)


KILLED = """
import sys
import numpy as np
from agentzoo.checkpoint import CheckpointStore, archive

store = CheckpointStore(sys.argv[1])
data = {"x": np.random.default_rng(0).normal(size=(24, 2**17)), "n": 0}
for step in range(1, 10_000):
    data["x"][step % 24] = step
    data["n"] = step
    store.write(step, data, {}, wait=True)
    if step == 1:
        print("ready", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_kill_at_any_moment_leaves_a_checkpoint(tmp_path):
    template = {"x": np.zeros((24, 2**17)), "n": 0}
    command = [sys.executable, "-c", KILLED, tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}
    for delay in (0.013, 0.15, 0.31):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        path = CheckpointStore(tmp_path).latest()  # warns, and so fails, if one is damaged
        loaded = checkpoint.load(path, template)
        step = int(loaded["n"])
        assert int(path.stem.removeprefix("step_")) == step
        assert (loaded["x"][step % 24] == step).all()
    CheckpointStore(tmp_path).write(99_999, template, {}, wait=True)
    assert all(name.startswith("step_") for name in sizes(tmp_path))


def test_a_process_ends_while_a_checkpoint_is_being_written(tmp_path):
    code = f"""
import os, time
from agentzoo.checkpoint import CheckpointStore, archive
os.fsync = lambda descriptor: time.sleep(600)
CheckpointStore({str(tmp_path)!r}).write(1, {{"n": 1}}, {{}})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
