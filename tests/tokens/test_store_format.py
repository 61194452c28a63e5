"""docs/store-format.md is true: its example, its field names, and the reader that it prints."""

import itertools
import json
import re
import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load

import tiny
import tiny_segmentation
from seitpp.tokens.code_store import CodeStoreConfig
from seitpp.tokens.code_store import main as code_store
from seitpp.tokens.codec import pack, unpack
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

PAGE = (tiny.ROOT / "docs" / "store-format.md").read_text(encoding="utf-8")
NEIGHBOURS = ("left", "up", "place")


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
    few = tiny.make_store(root / "few", 61 * tiny.random_ids(60, 4, (9, 8)), codes=391, rows_per_shard=40)
    code_store(CodeStoreConfig(store=str(few), output_dir=str(root / "coded")))
    windows, _ = tiny_segmentation.make_segmentation_store(root / "windows")
    frozen = tiny.TESTS / "tokens" / "version-1"
    return {
        "all": store,
        "part": root / "part",
        "coded": root / "coded",
        "windows": windows,
        "version 1": frozen / "store",
        "part of version 1": frozen / "subset",
    }


def test_the_example_is_what_the_codec_makes():
    rows = [[int(word) for word in line.split()] for line in block("ids").strip().split("\n")]
    packed = bytes.fromhex(block("bytes"))
    assert bytes(pack(torch.tensor([rows]), 391)[0].tolist()) == packed
    assert unpack(torch.tensor([list(packed)], dtype=torch.uint8), 391, (3, 3)).tolist() == [rows]


@pytest.mark.parametrize("name", ["all", "part", "windows", "version 1", "part of version 1"])
def test_the_printed_reader_reads_what_ours_reads(read_store, folders, name):
    store, rows = TokenStore(folders[name]), list(read_store(folders[name]))
    everything = range(len(store))
    assert len(rows) == len(store) > 0
    assert np.array_equal([row["ids"] for row in rows], store.ids(everything))
    assert [row["label"] for row in rows] == store.labels.tolist()
    assert [row["key"] for row in rows] == store.keys()
    if "labels" in store.columns:
        lists = [None if each is None else each.tolist() for each in store.label_lists_at(everything)]
        assert [row["labels"] for row in rows] == lists
    if "window" in store.columns:
        assert [row["window"] for row in rows] == store.windows_at(everything).tolist()
    for name, read in (("mask", store.masks_at), ("truth", store.truths_at)):
        for row, mask in zip(rows, read(everything) if name in store.columns else [], strict=name in store.columns):
            assert np.array_equal(row[name], mask) if mask is not None else row[name] is None


def test_the_page_names_every_field_that_is_written_and_no_other(folders):
    manifest = json.loads((folders["part"] / "store.json").read_text())
    tables = re.findall(r"\| field \| type \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE)
    named = [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables]
    others = [json.loads((folders[name] / "store.json").read_text()) for name in ("coded", "windows")]
    fields = set(manifest).union(*others)
    assert [set(each) for each in named] == [fields, set(manifest["shards"][0]), set(manifest["subset"])]


def decode_coded(content, tables, grid):
    """Ids of a coded row and whether it came out even, as the page says it, token by token."""
    (height, width), codes = grid, len(tables["place_logits"][0])
    powers = [int(word) for word in re.findall(r"\d{9,}", PAGE[PAGE.index("where E[i] is") :])[:8]]

    def frequencies(*clusters):
        rows = [tables[f"{name}_logits"][cluster] for name, cluster in zip(NEIGHBOURS, clusters, strict=True)]
        logits = [sum(column) for column in zip(*rows, strict=True)]
        below = [max(logits) - logit for logit in logits]
        weights = [powers[each % 8] >> min(each // 8, 31) for each in below]
        found = [1 + weight * (65536 - codes) // sum(weights) for weight in weights]
        found[weights.index(max(weights))] += 65536 - sum(found)
        return found

    contexts = [range(len(tables[f"{name}_logits"])) for name in NEIGHBOURS]
    every = {clusters: frequencies(*clusters) for clusters in itertools.product(*contexts)}
    order = sorted(range(codes), key=lambda code: (-sum(each[code] for each in every.values()), code))
    head = len(content) if len(content) < 4 else 4 + len(content) % 2
    state, words = int.from_bytes(content[:head], "big"), [content[at : at + 2] for at in range(head, len(content), 2)]
    ids = []
    for token in range(height * width):
        left = ids[token - 1] if token % width else codes
        up = ids[token - width] if token >= width else codes
        known = every[tables["left"][left], tables["up"][up], tables["place"][token]]
        slot, start = state % 65536, 0
        for code in order:
            if slot < start + known[code]:
                break
            start += known[code]
        state = known[code] * (state >> 16) + slot - start
        if state < 2**24 and words:
            state = (state << 16) + int.from_bytes(words.pop(0), "big")
        ids.append(code)
    return ids, state == 1 and not words


def test_a_decoder_written_from_the_page_reads_the_test_vectors():
    vectors = json.loads((tiny.TESTS / "tokens" / "coding_vectors.json").read_text())
    for row in vectors["rows"]:
        assert decode_coded(bytes.fromhex(row["bytes"]), vectors, vectors["grid"]) == (row["ids"], True)
    for row in vectors["damaged"]:
        assert not decode_coded(bytes.fromhex(row), vectors, vectors["grid"])[1]


def test_a_decoder_written_from_the_page_reads_a_coded_store(folders):
    store = TokenStore(folders["coded"])
    tensors = load((folders["coded"] / "coding.safetensors").read_bytes())
    content, codes, tokens = zlib.decompress(tensors["tables"].tobytes()), 391, 72
    tables, at = {}, 0
    for name, length in zip(NEIGHBOURS, (codes + 1, codes + 1, tokens), strict=True):
        tables[name], at = list(content[at : at + length]), at + length
    for name, clusters in zip(NEIGHBOURS, tensors["clusters"].tolist(), strict=True):
        part = np.frombuffer(content, np.int8, count=clusters * codes, offset=at)
        tables[f"{name}_logits"], at = part.reshape(clusters, codes).tolist(), at + clusters * codes
    shard = pa.ipc.open_file(pa.memory_map(str(folders["coded"] / "shard-00000.arrow"))).read_all()
    for row in (0, 39):
        ids, even = decode_coded(shard.column("tokens")[row].as_py(), tables, store.grid)
        assert even
        assert ids == store.ids([row]).flatten().tolist()
