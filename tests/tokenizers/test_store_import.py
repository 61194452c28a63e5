"""Stores of ids that were made elsewhere: the SeiT release's files and Parquet."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import tiny
from published import FOLDER, recording, release_ids, release_labels
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import store_import
from seitpp.tokenizers.store_import import ImportConfig, read_classes
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.exchange.published import writing
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import TokenStore

GRID = (3, 5)
CODES = 391
ROWS = 23


@pytest.fixture
def ids():
    return tiny.random_ids(ROWS, CODES, GRID).numpy()


@pytest.fixture
def codebook(tmp_path):
    """A release's codebook.ckpt of 391 codes."""
    torch.save(torch.from_numpy(np.random.default_rng(0).standard_normal((CODES, 4))), tmp_path / "codebook.ckpt")
    return tmp_path / "codebook.ckpt"


@pytest.fixture
def data(tmp_path, ids):
    """A release's data file, with labels of four classes, the last unknown."""
    with writing(tmp_path / "toy-token.data.bin.gz", ROWS) as append:
        append(ids.reshape(ROWS, -1))
    (tmp_path / "toy-label.txt").write_text("".join(f"{row % 5 - 1}\n" for row in range(ROWS)))
    return tmp_path / "toy-token.data.bin.gz"


def imported(folder, **fields):
    """Import, verify and open the store."""
    config = ImportConfig(
        **{key: str(v) if isinstance(v, Path) else v for key, v in fields.items()}, output_dir=str(folder)
    )
    store_import.main(config)
    store = TokenStore(folder)
    store.verify()
    return store


def said(folder, **fields):
    """The line of an import that fails and leaves nothing behind."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(UserError) as raised:
        imported(folder, **fields)
    assert sorted(folder.parent.iterdir()) == before
    return tiny.one_line(str(raised.value))


def parquet(path, columns, **metadata):
    """Write a Parquet file of columns in row groups of 4."""
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


def id_lists(ids):
    return ids.reshape(len(ids), -1).tolist()


# The release


def test_the_release_becomes_a_store_of_the_parity_ids(tmp_path):
    torch.save(recording("codebook")["codebook"], tmp_path / "codebook.ckpt")
    store = imported(
        tmp_path / "store", source="seit", data=FOLDER / "tiny-train-token.data.bin.gz",
        labels=FOLDER / "tiny-train-label.txt", codebook=tmp_path / "codebook.ckpt", rows_per_shard=7,
    )  # fmt: skip
    ids, labels = release_ids(), release_labels()
    assert store.grid == (32, 32)
    assert store.ids(range(len(ids))).flatten(1).tolist() == ids.tolist()
    assert store.labels.tolist() == labels
    assert store.classes == [str(number) for number in range(max(labels) + 1)]
    assert torch.equal(store.codebook, recording("codebook")["codebook"])
    assert store.lookup == "cosine"
    rows = [min(7, len(ids) - first) for first in range(0, len(ids), 7)]
    assert [shard["rows"] for shard in store.manifest["shards"]] == rows


@pytest.mark.parametrize("rows_per_shard", [1, 9, 23, 1000])
def test_ids_labels_and_row_numbers_come_over_whatever_the_shards(tmp_path, data, codebook, ids, rows_per_shard):
    store = imported(
        tmp_path / "store", source="seit", data=data, labels=tmp_path / "toy-label.txt", codebook=codebook, grid="3,5",
        rows_per_shard=rows_per_shard,
    )  # fmt: skip
    assert store.ids(range(ROWS)).tolist() == ids.tolist()
    assert store.labels.tolist() == [row % 5 - 1 for row in range(ROWS)]
    assert store.keys() == [f"{row:08d}" for row in range(ROWS)]
    assert store.classes == ["0", "1", "2", "3"]


def test_without_a_file_of_labels_they_are_unknown(tmp_path, data, codebook):
    store = imported(tmp_path / "store", source="seit", data=data, codebook=codebook, grid="[3, 5]")
    assert store.labels.tolist() == [-1] * ROWS
    assert store.classes == []


@pytest.mark.parametrize("form", ["lines", "json"])
def test_class_names_come_from_a_file(tmp_path, data, codebook, form):
    names = ["ant", "bee hive", "cow", "dog", "eel"]
    file = tmp_path / ("classes.txt" if form == "lines" else "classes.json")
    numbers = {name: number for number, name in reversed(list(enumerate(names)))}
    file.write_text("\n".join(names) + "\n" if form == "lines" else json.dumps(numbers))
    store = imported(
        tmp_path / "store", source="seit", data=data, labels=tmp_path / "toy-label.txt", codebook=codebook, grid="3,5",
        classes=file,
    )  # fmt: skip
    assert store.classes == names


def test_the_fingerprint_is_that_of_the_codebook_as_documented(tmp_path, data, codebook):
    store = imported(tmp_path / "a", source="seit", data=data, codebook=codebook, grid="3,5")
    values = torch.load(codebook, weights_only=True).float().numpy()
    digest = hashlib.sha256(b'{"lookup": "cosine"}' + b"codebook (391, 4) torch.float32" + values.tobytes())
    assert store.tokenizer == {"name": "imported", "fingerprint": digest.hexdigest()}
    other = imported(tmp_path / "b", source="seit", data=data, codebook=codebook, grid="3,5", lookup="euclidean")
    assert other.tokenizer["fingerprint"] != store.tokenizer["fingerprint"]
    assert other.lookup == "euclidean"


def test_a_codebook_may_be_safetensors(tmp_path, data, codebook):
    values = torch.load(codebook, weights_only=True)
    save_file({"weight": values}, tmp_path / "one.safetensors")
    save_file({"codebook": values, "other": torch.zeros(3)}, tmp_path / "two.safetensors")
    for number, name in enumerate(["one", "two"]):
        file = tmp_path / f"{name}.safetensors"
        store = imported(tmp_path / f"store{number}", source="seit", data=data, codebook=file, grid="3,5")
        assert torch.equal(store.codebook, values.float())


def test_the_synonym_dictionary_comes_along(tmp_path, data, codebook):
    synonyms = {str(code): [(code + 1) % CODES, (code + 7) % CODES] for code in range(CODES)}
    (tmp_path / "mine.json").write_text(json.dumps(synonyms))
    imported(
        tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5", synonyms=tmp_path / "mine.json"
    )
    assert json.loads((tmp_path / "store" / "synonyms.json").read_text()) == synonyms


def test_with_its_tokenizer_the_store_belongs_to_it(tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = tiny.random_ids(5, tiny.CODES, tiny.GRID)
    with writing(tmp_path / "toy.data.bin.gz", 5) as append:
        append(ids.flatten(1).numpy())
    store = imported(tmp_path / "store", source="seit", data=tmp_path / "toy.data.bin.gz", tokenizer=tokenizer_folder)
    assert store.ids(range(5)).tolist() == ids.tolist()
    assert store.tokenizer == {"name": "vq", "fingerprint": tokenizer.fingerprint}
    assert torch.equal(store.codebook, tokenizer.codebook)
    assert store.lookup == "euclidean"
    assert store.manifest["preprocessing"] == tokenizer.preprocessing


def test_the_same_files_give_the_same_store(tmp_path, data, codebook):
    for name in ("a", "b"):
        imported(tmp_path / name, source="seit", data=data, codebook=codebook, grid="3,5", rows_per_shard=9)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


# What is wrong


def test_a_store_needs_a_codebook(tmp_path, data):
    line = said(tmp_path / "store", source="seit", data=data, grid="3,5")
    assert "comes without a codebook, which a store needs: give --codebook FILE or --tokenizer FOLDER" in line


def test_an_id_beyond_the_codebook_is_named_with_its_row(tmp_path, ids):
    ids[7, 2, 1] = CODES
    with writing(tmp_path / "toy.data.bin.gz", ROWS) as append:
        append(ids.reshape(ROWS, -1))
    torch.save(torch.zeros(CODES, 4), tmp_path / "codebook.ckpt")
    line = said(
        tmp_path / "store", source="seit", data=tmp_path / "toy.data.bin.gz", codebook=tmp_path / "codebook.ckpt",
        grid="3,5", rows_per_shard=2,
    )  # fmt: skip
    assert "toy.data.bin.gz: row 7 has id 391, but the codebook has 391 codes" in line


def test_labels_of_another_count_are_refused_with_both_numbers(tmp_path, data, codebook):
    (tmp_path / "short.txt").write_text("1\n" * 22)
    line = said(
        tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5", labels=tmp_path / "short.txt"
    )
    assert "short.txt has 22 labels" in line
    assert "toy-token.data.bin.gz has 23 images" in line


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_outside_the_classes_is_named_with_its_row(tmp_path, data, codebook, label):
    (tmp_path / "labels.txt").write_text("1\n" * 9 + f"{label}\n" + "0\n" * 13)
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    line = said(
        tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5", labels=tmp_path / "labels.txt",
        classes=tmp_path / "classes.txt",
    )  # fmt: skip
    assert f"labels.txt: row 9 has label {label}, but there are 2 classes" in line


def test_a_label_that_can_be_no_class_is_no_reason_to_run_out_of_memory(tmp_path, data, codebook):
    (tmp_path / "labels.txt").write_text(f"{2**50}\n" * ROWS)
    line = said(
        tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5", labels=tmp_path / "labels.txt"
    )
    assert "row 0 has label 1125899906842624, which can't be the number of a class" in line


def test_a_wrong_grid_is_named_with_the_row(tmp_path, data, codebook, ids):
    assert (ids[:2] >= 255).sum(axis=(1, 2)).min() >= 3 > (ids[2] >= 255).sum()
    assert "row 2 has 17 bytes, which can't be 18 ids: is --grid right?" in said(
        tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,6"
    )


def test_an_import_that_fails_late_leaves_nothing(tmp_path, data, codebook):
    content = gzip.decompress(data.read_bytes())
    data.write_bytes(gzip.compress(content + b"\x01"))
    line = said(tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5", rows_per_shard=2)
    assert "goes on after row 22" in line


def test_a_folder_that_is_there_is_not_touched(tmp_path, data, codebook):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine.txt").write_text("mine")
    assert "is there already" in said(tmp_path / "store", source="seit", data=data, codebook=codebook, grid="3,5")
    assert (tmp_path / "store" / "mine.txt").read_text() == "mine"


class _Harm:
    def __reduce__(self):
        return Path.touch, (Path("harm-was-done"),)


@pytest.mark.parametrize("name", ["codebook.ckpt", "codebook.safetensors"])
@pytest.mark.parametrize("content", ["pickle", "dictionary", "vector", "integers", "text", "nothing"])
def test_what_is_no_codebook_is_refused_and_never_run(tmp_path, data, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.unlink(missing_ok=True)
    values = {"vector": torch.zeros(5), "integers": torch.zeros(5, 2, dtype=torch.int64)}
    if content == "text":
        file.write_text("0.1 0.2")
    elif name.endswith("ckpt") and content != "nothing":
        torch.save({**values, "pickle": _Harm(), "dictionary": {"codebook": torch.zeros(5, 2)}}[content], file)
    elif content in values:
        save_file({"codebook": values[content]}, file)
    elif content == "dictionary":
        save_file({"a": torch.zeros(5, 2), "b": torch.zeros(5, 2)}, file)
    assert str(file) in said(tmp_path / "store", source="seit", data=data, codebook=file, grid="3,5")
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("content", ["", "ant\n\nbee\n", "ant\nant\n", None])
def test_class_names_that_are_missing_or_double_are_refused(tmp_path, content):
    file = tmp_path / "classes.txt"
    if content is not None:
        file.write_text(content)
    if content == "":
        assert store_import.read_classes(file) == []
        return
    with pytest.raises(UserError, match=r"classes\.txt"):
        store_import.read_classes(file)


@pytest.mark.parametrize("content", ["{", "[1]", '{"ant": 0, "bee": 2}', '{"ant": "0"}'])
def test_a_class_file_in_json_must_number_the_names(tmp_path, content):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=r"classes\.json"):
        store_import.read_classes(tmp_path / "classes.json")


@pytest.mark.parametrize(
    ("fields", "matters"),
    [
        ({"grid": "32"}, "grid = '32' is not like 32,32"),
        ({"grid": "0,4"}, "grid"),
        ({"rows_per_shard": 0}, "rows_per_shard"),
        ({"codebook": "a", "tokenizer": "b"}, "exclude each other"),
        ({"source": "parquet", "labels": "a"}, "--label_column"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, matters):
    with pytest.raises(UserError, match=matters):
        ImportConfig(**{"source": "seit", "data": "x", "output_dir": "y", **fields})


# Parquet


def columns_of(ids, kind):
    """A column of ids in one of the forms that are read."""
    flat = pa.array(ids.reshape(-1).astype(np.uint16))
    tokens = ids[0].size
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, tokens)
    offsets = np.arange(len(ids) + 1) * tokens
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.array(id_lists(ids), pa.list_({"int64": pa.int64(), "int16": pa.int16()}[kind]))


@pytest.mark.parametrize("kind", ["fixed", "large", "int64", "int16"])
def test_a_column_of_lists_of_integers_is_read(tmp_path, ids, codebook, kind):
    file = parquet(tmp_path / "mine.parquet", {"ids": columns_of(ids, kind), "other": [0.5] * ROWS})
    store = imported(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5", rows_per_shard=9)
    assert store.ids(range(ROWS)).tolist() == ids.tolist()
    assert store.labels.tolist() == [-1] * ROWS
    assert store.keys() == [f"{row:08d}" for row in range(ROWS)]


def test_packed_rows_of_a_shard_are_read(tmp_path, ids, codebook):
    folder = tiny.make_store(tmp_path / "old", torch.from_numpy(ids), codes=CODES, rows_per_shard=ROWS)
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.ipc.open_file(folder / "shard-00000.arrow").read_all(), file)
    store = imported(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5")
    assert store.ids(range(ROWS)).tolist() == ids.tolist()
    assert store.keys() == TokenStore(folder).keys()
    assert "packed rows have 17 bytes, expected" in said(
        tmp_path / "other", source="parquet", data=file, codebook=codebook, grid="5,5"
    )


def test_several_files_are_read_in_the_order_of_their_names(tmp_path, ids, codebook):
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    for name, part in (("b", ids[9:20]), ("a", ids[:9]), ("sub/c", ids[20:])):
        parquet(folder / f"{name}.parquet", {"ids": id_lists(part)})
    for number, spec in enumerate([folder, folder / "*.parquet"]):
        rows = ROWS if number == 0 else 20
        store = imported(tmp_path / f"store{number}", source="parquet", data=spec, codebook=codebook, grid="3,5")
        assert store.ids(range(rows)).tolist() == ids[:rows].tolist()
        assert len(store) == rows


def test_a_relative_glob_is_read(tmp_path, ids, codebook, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    parquet(tmp_path / "here" / "a.parquet", {"ids": id_lists(ids)})
    monkeypatch.chdir(tmp_path / "there")
    for number, spec in enumerate(["../here/*.parquet", "../h*/a.parquet"]):
        assert (
            len(imported(tmp_path / f"s{number}", source="parquet", data=spec, codebook=codebook, grid="3,5")) == ROWS
        )


def test_integer_labels_and_keys_are_read_and_nulls_are_unknown(tmp_path, ids, codebook):
    labels = [None if row == 4 else row % 3 for row in range(ROWS)]
    keys = [None if row == 2 else f"ü/{row}.png" for row in range(ROWS)]
    file = parquet(tmp_path / "mine.parquet", {"ids": id_lists(ids), "label": labels, "key": keys})
    store = imported(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5")
    assert store.labels.tolist() == [-1 if label is None else label for label in labels]
    assert store.keys() == ["00000002" if key is None else key for key in keys]
    assert store.classes == ["0", "1", "2"]


@pytest.mark.parametrize("coded", [False, True])
def test_labels_that_are_strings_become_sorted_classes(tmp_path, ids, codebook, coded):
    names = [["cow", "ant", None, "bee"][row % 4] for row in range(ROWS)]
    column = pa.array(names).dictionary_encode() if coded else pa.array(names)
    file = parquet(tmp_path / "mine.parquet", {"tokens": id_lists(ids), "species": column, "n": list(range(ROWS))})
    store = imported(
        tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5", label_column="species",
        key_column="n",
    )  # fmt: skip
    assert store.classes == ["ant", "bee", "cow"]
    assert store.labels.tolist() == [[2, 0, -1, 1][row % 4] for row in range(ROWS)]
    assert store.keys() == [str(row) for row in range(ROWS)]
    (tmp_path / "classes.txt").write_text("cow\nant\n")
    line = said(
        tmp_path / "other", source="parquet", data=file, codebook=codebook, grid="3,5", label_column="species",
        classes=tmp_path / "classes.txt",
    )  # fmt: skip
    assert "mine.parquet: row 3 is of class 'bee', which --classes lacks" in line


@pytest.mark.parametrize(
    ("text", "coded", "binary"),
    [
        (pa.string(), False, pa.binary_view()), (pa.large_string(), False, pa.large_binary()),
        (pa.large_string(), True, pa.binary()), (pa.string_view(), False, pa.binary_view()),
    ],
    ids=str,
)  # fmt: skip
def test_texts_and_bytes_are_read_whatever_their_arrow_type(tmp_path, ids, codebook, text, coded, binary):
    """polars writes views and large lists."""
    names = pa.array([["null", "ant", None, "NA"][row % 4] for row in range(ROWS)], text)
    keys = pa.array([None if row == 2 else f"ü/{row}.png" for row in range(ROWS)], text)
    (png,) = Targets.of(masks=[np.array([[1, 2, 3], [0, 1, 2]], np.uint8)]).masks.to_pylist()
    columns = {
        "ids": pa.array(id_lists(ids), pa.large_list(pa.int64())), "key": keys,
        "label": names.dictionary_encode() if coded else names,
        "mask": pa.array([None if row == 1 else png for row in range(ROWS)], binary),
    }  # fmt: skip
    file = parquet(tmp_path / "mine.parquet", columns)
    assert pq.read_schema(file).field("key").type == text
    store = imported(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5")
    assert store.classes == ["NA", "ant", "null"]
    assert store.labels.tolist() == [[2, 1, -1, 0][row % 4] for row in range(ROWS)]
    assert store.keys(range(4)) == ["ü/0.png", "ü/1.png", "00000002", "ü/3.png"]
    first, second = store.masks_at([0, 1])
    assert (first.tolist(), second) == ([[1, 2, 3], [0, 1, 2]], None)
    assert store.ids(range(ROWS)).tolist() == ids.tolist()


def test_a_file_of_class_names_in_another_encoding_is_named_with_its_line(tmp_path):
    (tmp_path / "classes.txt").write_bytes("ant\nb\xe9b\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"classes\.txt, line 2: .* UTF-8"):
        read_classes(tmp_path / "classes.txt")


def test_what_pandas_writes_is_read(tmp_path, ids, codebook):
    frame = pd.DataFrame({"codes": list(ids.reshape(ROWS, -1)), "label": np.arange(ROWS) % 2})
    frame.to_parquet(tmp_path / "mine.parquet")
    store = imported(
        tmp_path / "store", source="parquet", data=tmp_path / "mine.parquet", codebook=codebook, grid="3,5",
        ids_column="codes",
    )  # fmt: skip
    assert store.ids(range(ROWS)).tolist() == ids.tolist()
    assert store.labels.tolist() == [row % 2 for row in range(ROWS)]


def test_a_row_of_a_square_number_of_ids_is_a_square(tmp_path, codebook):
    ids = tiny.random_ids(3, CODES, (4, 4)).numpy()
    file = parquet(tmp_path / "mine.parquet", {"ids": id_lists(ids)})
    assert imported(tmp_path / "store", source="parquet", data=file, codebook=codebook).grid == (4, 4)


def test_a_row_that_is_no_square_needs_a_grid(tmp_path, ids, codebook):
    file = parquet(tmp_path / "mine.parquet", {"ids": id_lists(ids)})
    assert "say which by --grid" in said(tmp_path / "store", source="parquet", data=file, codebook=codebook)


def spoilt(ids, row, change):
    rows = id_lists(ids)
    rows[row] = change(rows[row])
    return rows


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (lambda row: row[:-1], "row 10 has 14 ids, expected 15"),
        (lambda row: [], "row 10 has 0 ids, expected 15"),
        (lambda row: None, "row 10 has no ids"),
        (lambda row: [*row[:-1], None], "row 10 lacks an id"),
        (lambda row: [*row[:-1], 391], "row 10 has id 391, but the codebook has 391 codes"),
        (lambda row: [*row[:-1], -1], "row 10 has id -1"),
        (lambda row: [*row[:-1], 2**40], "row 10 has id 1099511627776"),
    ],
    ids=["short", "empty", "null", "null id", "too large", "negative", "huge"],
)
def test_a_bad_row_is_named_with_its_file(tmp_path, ids, codebook, change, matters):
    folder = tmp_path / "files"
    folder.mkdir()
    parquet(folder / "a.parquet", {"ids": id_lists(ids)})
    parquet(folder / "b.parquet", {"ids": spoilt(ids, 10, change)})
    line = said(tmp_path / "store", source="parquet", data=folder, codebook=codebook, grid="3,5")
    assert "b.parquet" in line
    assert matters in line


@pytest.mark.parametrize("label", [-2, 3])
def test_a_parquet_label_outside_the_classes_is_named(tmp_path, ids, codebook, label):
    file = parquet(tmp_path / "mine.parquet", {"ids": id_lists(ids), "label": [0] * 22 + [label]})
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    line = said(
        tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5", classes=tmp_path / "classes.txt"
    )
    assert f"mine.parquet: row 22 has label {label}, but there are 3 classes" in line


@pytest.mark.parametrize(
    ("columns", "matters"),
    [
        ({"codes": [[1, 2]]}, "has no column ids or tokens, but codes: name the right one by --ids_column"),
        ({"ids": [[0.5, 1.0]]}, "expected lists of integers"),
        ({"ids": [7]}, "expected lists of integers"),
        ({"ids": [[1, 2]], "label": [0.5]}, "expected integers or strings"),
    ],
    ids=["no column", "floats", "no lists", "labels"],
)
def test_columns_of_other_kinds_are_named(tmp_path, codebook, columns, matters):
    file = parquet(tmp_path / "mine.parquet", columns)
    assert matters in said(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="1,2")


def test_what_is_no_parquet_is_named(tmp_path, codebook):
    (tmp_path / "mine.parquet").write_text("text")
    line = said(tmp_path / "store", source="parquet", data=tmp_path / "mine.parquet", codebook=codebook)
    assert "mine.parquet is not a Parquet file" in line
    line = said(tmp_path / "store", source="parquet", data=tmp_path / "nothing", codebook=codebook)
    assert "nothing holds no Parquet files" in line


def test_a_parquet_file_with_a_broken_page_is_named(tmp_path, ids, codebook):
    file = parquet(tmp_path / "mine.parquet", {"ids": id_lists(ids)})
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)
    file.write_bytes(content)
    line = said(tmp_path / "store", source="parquet", data=file, codebook=codebook, grid="3,5")
    assert "mine.parquet is broken near row 0" in line


def test_files_with_different_columns_are_not_mixed(tmp_path, ids, codebook):
    folder = tmp_path / "files"
    folder.mkdir()
    parquet(folder / "a.parquet", {"ids": id_lists(ids)})
    parquet(folder / "b.parquet", {"ids": id_lists(ids), "label": [0] * ROWS})
    line = said(tmp_path / "store", source="parquet", data=folder, codebook=codebook, grid="3,5")
    assert "b.parquet has other columns than a.parquet" in line
