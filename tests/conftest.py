import os

import jax
import pytest

from agentzoo.runners.ray_actors import connect

# Most of the tests' time goes into compiling what runs for milliseconds: this takes a third of the
# time. It has to be set before JAX runs its first program. A flag that XLA does not know ends the
# process.
if jax.__version_info__ < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
jax.config.update(
    "jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu")
)  # JAX_PLATFORMS=cuda python -m pytest tests/core
jax.config.update(
    "jax_num_cpu_devices", 4
)  # of which all tests but those of several devices use the first


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    """Nothing that a test writes lands in the project."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def cluster():
    """One of Ray, as ours begins it; to begin it takes as long as a test, so that tests with it are of the same `xdist_group`."""
    ray = pytest.importorskip("ray")
    try:
        connect()
    except Exception:
        try:
            ray.init(address="local", include_dashboard=False)
        except Exception as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        raise
    yield
    ray.shutdown()


def pytest_collection_modifyitems(items):
    """Tests that one process has to run one after the other come first, so that the others do not wait for it in the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
