"""Bytes are counted whole and apart, from the manifest alone."""

import json
from dataclasses import asdict

import numpy as np
import pytest

import tiny
from seitpp.tokens.format.size import count_rows, store_size
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

ROWS = 40
KEYS = [f"{'ü' * (row % 5)}{row:02d}.png" for row in range(ROWS)]
LISTS = [list(range(row % 3)) for row in range(ROWS)]
MASKS = [np.full((row + 1, 7), row % 2, np.uint8) for row in range(ROWS)]


@pytest.fixture
def folder(tmp_path):
    ids = tiny.random_ids(ROWS, 391, (4, 6))
    targets = Targets.of(labels=LISTS, masks=MASKS)
    return tiny.make_store(tmp_path / "all", ids, codes=391, keys=KEYS, targets=targets)


def measured(folder):
    manifest = json.loads((folder / "store.json").read_text())
    return manifest, store_size(manifest, lambda name: (folder / name).stat().st_size)


def expected(rows):
    """Reference: row by row."""
    pngs = Targets.of(masks=MASKS).masks.to_pylist()
    return {
        "rows": len(rows),
        "tokens": 27 * len(rows),
        "labels": sum(4 + 4 + 4 * len(LISTS[row]) for row in rows),
        "masks": sum(8 + len(pngs[row]) for row in rows),
        "keys": sum(4 + len(KEYS[row].encode()) for row in rows),
    }


def test_the_parts_are_those_of_the_rows_and_sum_to_the_files(folder):
    manifest, size = measured(folder)
    assert expected(range(ROWS)).items() <= asdict(size).items()
    assert size.codebook == (folder / "codebook.safetensors").stat().st_size
    assert size.manifest == (folder / "store.json").stat().st_size
    assert size.total == sum(path.stat().st_size for path in folder.iterdir())
    assert TokenStore(folder).size == size
    assert count_rows(manifest) == ROWS


def test_a_subset_counts_its_own_rows(folder, tmp_path):
    make_subset(SubsetConfig(store=str(folder), output_dir=str(tmp_path / "part"), count=10, balanced=False))
    manifest, size = measured(tmp_path / "part")
    rows = TokenStore(tmp_path / "part").chosen
    assert expected(rows).items() <= asdict(size).items()
    assert count_rows(manifest) == 10
    assert size.container == round(measured(folder)[1].container / 4)
    assert size.manifest == sum((tmp_path / "part" / name).stat().st_size for name in ("store.json", "rows.npy"))
    assert size.total < measured(folder)[1].total


def test_a_size_needs_no_torch_and_no_arrow(folder):
    program = f"""
import json, sys
from pathlib import Path
from seitpp.tokens.format.size import store_size
folder = Path({str(folder)!r})
size = store_size(json.loads((folder / "store.json").read_text()), lambda name: (folder / name).stat().st_size)
print(size.total, "torch" in sys.modules, "pyarrow" in sys.modules)
"""
    done = tiny.run("-c", program)
    assert done.stdout.split() == [str(measured(folder)[1].total), "False", "False"], done.stderr
