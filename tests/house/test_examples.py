"""The examples run as they stand, on a tiny folder of the demo's shape."""

import re

import nbformat
import pytest

import tiny
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store
from tiny_demo import make_demo

EXAMPLES = tiny.ROOT / "examples"
PICTURES = {
    "first_steps": 4, "own_images": 2, "pretrain_and_probe": 1, "token_augmentation": 7, "use_a_model": 2,
}  # fmt: skip
"""Pictures that each notebook draws."""
EXECUTE = """
import sys, nbclient, nbformat
folder, out, *names = sys.argv[1:]
whole = nbformat.v4.new_notebook()
for name in names:  # one kernel for all: what takes the time is to import torch
    book = nbformat.read(f"{folder}/{name}.ipynb", as_version=4)
    whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *book.cells]
nbclient.NotebookClient(whole, timeout=240).execute()
nbformat.write(whole, out)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory, images, test_images, tokenizer_folder):
    return make_demo(tmp_path_factory.mktemp("demo"), images, test_images, tokenizer_folder)


def notebook(place):
    return nbformat.read(place, as_version=4)


def code_of(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_every_notebook_is_kept_without_outputs_and_begins_with_a_title():
    found = {path.stem: notebook(path) for path in EXAMPLES.glob("*.ipynb")}
    assert found.keys() == PICTURES.keys()
    for book in found.values():
        nbformat.validate(book)
        assert [cell for cell in book.cells if cell.get("outputs") or cell.get("execution_count")] == []
        assert book.cells[0].source.startswith("# ")


def test_every_notebook_is_on_the_page_of_examples_and_on_that_of_the_first_hour_and_run_by_ci():
    for page in (EXAMPLES / "README.md", tiny.ROOT / "docs" / "first-hour.md"):
        assert set(re.findall(r"`(?:examples/)?(\w+)\.ipynb`", page.read_text())) == PICTURES.keys(), page
    assert "jupyter execute examples/*.ipynb" in (tiny.ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_every_notebook_runs_from_its_first_cell_to_its_last(demo, tmp_path):
    done = tiny.run("-c", EXECUTE, EXAMPLES, tmp_path / "done.ipynb", *PICTURES, timeout=500, SEITPP_DEMO=str(demo),
                    PYTHONPATH=str(tiny.ROOT))  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    cells = code_of(notebook(tmp_path / "done.ipynb"))
    starts = [place for place, cell in enumerate(cells) if cell.source == "%reset -f"]
    parts = [cells[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    drawn = [sum("image/png" in str(cell.outputs) for cell in part) for part in parts]
    assert dict(zip(PICTURES, drawn, strict=True)) == PICTURES
    assert f"30 images of {tiny.GRID} tokens" in str(parts[0][2].outputs)


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
