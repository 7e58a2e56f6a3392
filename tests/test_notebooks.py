"""The notebooks of the documentation run from top to bottom, and hold their outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    # Without a limit of its own, because a busy machine is no error.
    client = nbclient.NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_small_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any("image/png" in each.get("data", {}) for cell in cells for each in cell.outputs)
    for cell in cells:
        assert cell.execution_count, f"Run scripts/notebooks.py {path.name}"
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
    assert path.stat().st_size < 100_000  # bytes
    places = str(notebook).split("\\n")
    assert not any("/tmp/" in place or "/home/" in place for place in places)
