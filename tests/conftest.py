import jax
import pytest

jax.config.update("jax_platforms", "cpu")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    """Nothing that a test writes lands in the project."""
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items):
    """Tests that one process has to run one after the other come first, so that the others do not wait for it in the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
