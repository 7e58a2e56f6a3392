import jax
import pytest

jax.config.update("jax_platforms", "cpu")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    """Nothing that a test writes lands in the project."""
    monkeypatch.chdir(tmp_path)
