"""The examples run as they stand, on a tiny folder of the demo's shape."""

import nbformat
import pytest

import tiny
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store
from tiny_demo import make_demo

NOTEBOOK = tiny.ROOT / "examples" / "first_steps.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=240).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory, images, test_images, tokenizer_folder):
    return make_demo(tmp_path_factory.mktemp("demo"), images, test_images, tokenizer_folder)


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []
    nbformat.validate(notebook)


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(demo, tmp_path):
    done = tiny.run("-c", EXECUTE, NOTEBOOK, tmp_path / "done.ipynb", timeout=300, SEITPP_DEMO=str(demo),
                    PYTHONPATH=str(tiny.ROOT))  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    notebook = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in str(cell.outputs) for cell in cells) == 4
    assert f"30 images of {tiny.GRID} tokens" in str(cells[1].outputs)


@pytest.mark.slow
def test_the_plain_loop_learns(demo):
    store = open_store(demo / "store" / "train")
    assert store.tokenizer["fingerprint"] == load_tokenizer(demo / "tokenizer").fingerprint
    done = tiny.run("examples/own_loop.py", demo / "store" / "train", demo / "store" / "test", "--epochs", 3)
    assert done.returncode == 0, done.stderr
    *epochs, accuracy = done.stdout.splitlines()
    losses = [float(line.split()[-1]) for line in epochs]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert accuracy.endswith("on 12 images")
