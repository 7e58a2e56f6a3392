import jax
import pytest

from agentzoo.runners.ray_actors import connect

jax.config.update("jax_platforms", "cpu")


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
