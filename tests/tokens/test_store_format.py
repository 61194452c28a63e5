"""docs/store-format.md is true: its example, its field names, and the reader that it prints."""

import json
import re

import numpy as np
import pytest
import torch

import tiny
from seitpp.tokens.codec import pack, unpack
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

PAGE = (tiny.ROOT / "docs" / "store-format.md").read_text(encoding="utf-8")


def block(kind):
    (content,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return content


@pytest.fixture
def read_store():
    names = {}
    exec(block("python"), names)  # of our own page
    return names["read_store"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A store with 11 bits a token and all targets, and a subset of two of its classes; and a store of version 1."""
    root = tmp_path_factory.mktemp("stores")
    lists = [None if row % 5 == 4 else list(range(row % 3)) for row in range(20)]
    masks = [None if row % 4 == 3 else np.full((row + 1, 3), 300 * (row % 2), np.uint16) for row in range(20)]
    store = tiny.make_store(
        root / "all", tiny.random_ids(20, 1500, (3, 5)), codes=1500, targets=Targets.of(labels=lists, masks=masks)
    )
    make_subset(SubsetConfig(store=str(store), output_dir=str(root / "part"), classes=("cow", "bee")))
    frozen = tiny.TESTS / "tokens" / "version-1"
    return {"all": store, "part": root / "part", "version 1": frozen / "store", "part of version 1": frozen / "subset"}


def test_the_example_is_what_the_codec_makes():
    rows = [[int(word) for word in line.split()] for line in block("ids").strip().split("\n")]
    packed = bytes.fromhex(block("bytes"))
    assert bytes(pack(torch.tensor([rows]), 391)[0].tolist()) == packed
    assert unpack(torch.tensor([list(packed)], dtype=torch.uint8), 391, (3, 3)).tolist() == [rows]


@pytest.mark.parametrize("name", ["all", "part", "version 1", "part of version 1"])
def test_the_printed_reader_reads_what_ours_reads(read_store, folders, name):
    store, rows = TokenStore(folders[name]), list(read_store(folders[name]))
    everything = range(len(store))
    assert len(rows) == len(store) > 0
    assert np.array_equal([row["ids"] for row in rows], store.ids(everything))
    assert [row["label"] for row in rows] == store.labels.tolist()
    assert [row["key"] for row in rows] == store.keys()
    if "mask" in store.columns:
        lists = [None if each is None else each.tolist() for each in store.label_lists_at(everything)]
        assert [row["labels"] for row in rows] == lists
        for row, mask in zip(rows, store.masks_at(everything), strict=True):
            assert np.array_equal(row["mask"], mask) if mask is not None else row["mask"] is None


def test_the_page_names_every_field_that_is_written_and_no_other(folders):
    manifest = json.loads((folders["part"] / "store.json").read_text())
    tables = re.findall(r"\| field \| type \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE)
    named = [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables]
    assert [set(each) for each in named] == [set(manifest), set(manifest["shards"][0]), set(manifest["subset"])]
