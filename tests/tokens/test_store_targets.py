"""Targets beside the one label: several labels a row, and masks; stored, checked, cut into subsets, exchanged."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.reduce_codebook import remap
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export_store
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.store_import import main as import_store
from seitpp.tokens.format.targets import Targets, first_labels, only_labels
from seitpp.tokens.store import TokenStore, sha256_of, write_manifest, write_shard
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

LISTS = [[0], [2, 0], [], None, [1], [1, 2], [2], [0, 1, 2], None, [2, 1]]
MASKS = [
    None if row % 4 == 3 else (np.arange((2 + row) * 5).reshape(2 + row, 5) % 3).astype((np.uint8, np.uint16)[row % 2])
    for row in range(len(LISTS))
]
MEANING = {"classes": ["sky", "grass", "road"], "ignore": 255}


@pytest.fixture
def folder(tmp_path):
    """10 rows in shards of 4, 4 and 2, with lists of labels and masks of growing height."""
    return tiny.make_store(
        tmp_path / "store", tiny.random_ids(len(LISTS), tiny.CODES, tiny.GRID), rows_per_shard=4,
        labels=only_labels(pa.array(LISTS, pa.list_(pa.int32()))), targets=Targets.of(labels=LISTS, masks=MASKS),
        mask=MEANING,
    )  # fmt: skip


def listed(lists):
    return [None if each is None else each.tolist() for each in lists]


def same_masks(found, expected):
    assert [None if each is None else (each.dtype, each.tolist()) for each in found] == [
        None if each is None else (each.dtype, each.tolist()) for each in expected
    ]


# Reading


def test_targets_come_back_in_the_order_asked_for_across_shards(folder):
    store = TokenStore(folder)
    store.verify()
    assert store.columns == ("tokens", "label", "key", "labels", "mask")
    for rows in (range(10), [9, 0, 3, 3, 7, 5], []):
        assert listed(store.label_lists_at(rows)) == [LISTS[row] for row in rows]
        same_masks(store.masks_at(rows), [MASKS[row] for row in rows])


def test_a_row_that_nobody_annotated_is_none_and_one_of_no_class_is_empty(folder):
    unknown, nothing = TokenStore(folder).label_lists_at([3, 2])
    assert unknown is None
    assert nothing.tolist() == []
    assert nothing.dtype == np.int32


def test_label_is_the_only_label_of_a_row_or_unknown(folder):
    assert TokenStore(folder).labels.tolist() == [0, -1, -1, -1, 1, -1, 2, -1, -1, -1]


def test_first_labels_of_a_slice_are_those_of_its_rows():
    lists = pa.array(LISTS, pa.list_(pa.int32()))[1:8]
    assert first_labels(lists).tolist() == [2, -1, -1, 1, 1, 2, 0]
    assert only_labels(lists).tolist() == [-1, -1, -1, 1, -1, 2, -1]


def test_a_store_without_targets_says_so_in_one_line(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path, tiny.random_ids(3, tiny.CODES, tiny.GRID)))
    for read, named in ((store.masks_at, "mask"), (store.label_lists_at, "labels")):
        with pytest.raises(UserError, match=rf"column {named}.*tokens, label, key") as raised:
            read([0])
        tiny.one_line(str(raised.value))


def test_pandas_reads_the_targets_of_a_shard(folder):
    frame = pd.read_feather(folder / "shard-00001.arrow")
    assert list(frame.columns) == ["tokens", "label", "key", "labels", "mask"]
    assert [list(each) for each in frame["labels"]] == LISTS[4:8]


def test_further_columns_of_a_shard_are_left_alone(folder):
    path = folder / "shard-00001.arrow"
    table = pa.ipc.open_file(path).read_all().append_column("depth", pa.array([1.0, 2.0, 3.0, 4.0]))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    manifest = json.loads((folder / "store.json").read_text())
    manifest["shards"][1].update(bytes=path.stat().st_size, sha256=sha256_of(path))
    (folder / "store.json").write_text(json.dumps(manifest))
    store = TokenStore(folder)
    assert listed(store.label_lists_at(range(10))) == LISTS
    assert store.size.container > 8 * 4


# Writing


def test_targets_of_another_number_of_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 values of labels for 3 rows"):
        write_shard(tmp_path / "x.arrow", np.zeros((3, 4), np.uint8), [0, 0, 0], ["a"] * 3, Targets.of(labels=[[], []]))


def test_shards_of_other_columns_make_no_store(tmp_path):
    rows = (np.zeros((1, 24), np.uint8), [0], ["a"])
    plain = write_shard(tmp_path / "shard-00000.arrow", *rows)
    listed = write_shard(tmp_path / "shard-00001.arrow", *rows, Targets.of(labels=[[1]]))
    with pytest.raises(UserError, match=r"shard-00001\.arrow has other columns than shard-00000"):
        write_manifest(
            tmp_path, tokenizer={}, codebook=torch.zeros(tiny.CODES, 2), lookup="cosine", grid=tiny.GRID,
            preprocessing={}, classes=[], shards=[plain, listed],
        )  # fmt: skip


# Checking


def rewritten(folder, targets, *, name="shard-00001.arrow"):
    """The store with other targets in its second shard, checksums mended."""
    store = TokenStore(folder)
    packed = store.packed(range(4, 8))
    entry = write_shard(folder / name, packed, [-1] * 4, ["k"] * 4, targets)
    manifest = json.loads((folder / "store.json").read_text())
    manifest["shards"][1] = entry
    (folder / "store.json").write_text(json.dumps(manifest))
    return TokenStore(folder)


def broken_mask():
    targets = Targets.of(labels=LISTS[4:8], masks=MASKS[4:8])
    contents = targets.masks.to_pylist()
    contents[2] = contents[2][:30]
    return Targets(labels=targets.labels, masks=pa.array(contents, pa.large_binary()))


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (Targets.of(labels=[[0], [3], [], []], masks=[None] * 4), "label 3 with 3 classes"),
        (Targets.of(labels=[[0], [-1], [], []], masks=[None] * 4), "label -1 with 3 classes"),
        (
            Targets.of(labels=[None] * 4, masks=[np.full((2, 3), value, np.uint8) for value in (2, 255, 3, 0)]),
            "row 2: the mask holds 3 with 3 classes",
        ),
        (broken_mask(), "row 2: a mask is no whole PNG"),
    ],
    ids=["label too large", "label negative", "value unknown", "mask cut off"],
)  # fmt: skip
def test_verify_names_the_shard_and_row_of_wrong_targets(folder, targets, named):
    store = rewritten(folder, targets)
    with pytest.raises(UserError, match=rf"shard-00001\.arrow.*{named}"):
        store.verify()


def test_a_broken_mask_is_named_when_it_is_read(folder):
    store = rewritten(folder, broken_mask())
    assert store.masks_at([4])[0].tolist() == MASKS[4].tolist()
    with pytest.raises(UserError, match="no whole PNG"):
        store.masks_at([6])


def test_a_shard_that_lacks_a_column_of_the_manifest_is_named(folder):
    with pytest.raises(UserError, match=r"store\.json: shards\[1\]\.content has other columns than `columns`"):
        rewritten(folder, Targets.of(labels=LISTS[4:8]))
    manifest = json.loads((folder / "store.json").read_text())
    del manifest["shards"][1]["content"]  # which it may leave out
    (folder / "store.json").write_text(json.dumps(manifest))
    store = TokenStore(folder)
    with pytest.raises(
        UserError, match=r"shard-00001\.arrow has the columns tokens, label, key, labels, expected .*mask"
    ):
        store.masks_at([4])


# Subsets


@pytest.fixture
def subset(folder, tmp_path):
    def make(**fields):
        of = fields.pop("of", folder)
        name = f"part-{len(list(tmp_path.iterdir()))}"
        make_subset(SubsetConfig(store=str(of), output_dir=str(tmp_path / name), **fields))
        return TokenStore(tmp_path / name)

    return make


def rows_of(store):
    return [int(key.removesuffix(".png")) for key in store.keys()]  # noqa: SIM118 (not a dict)


def test_a_subset_of_rows_keeps_their_targets(subset):
    store = subset(count=6)
    store.verify()
    rows = rows_of(store)
    assert listed(store.label_lists_at(range(6))) == [LISTS[row] for row in rows]
    same_masks(store.masks_at([5, 0, 2]), [MASKS[rows[row]] for row in (5, 0, 2)])
    assert store.manifest["mask"] == MEANING


def test_a_subset_of_classes_takes_rows_with_any_of_them_and_numbers_them_anew(subset):
    store = subset(classes=("cow", "ant"))  # 2 and 0 become 0 and 1
    store.verify()
    assert rows_of(store) == [0, 1, 5, 6, 7, 9]
    assert listed(store.label_lists_at(range(6))) == [[1], [0, 1], [0], [0], [1, 0], [0]]
    assert store.labels.tolist() == [1, -1, -1, 0, -1, -1]


def test_a_subset_of_a_subset_of_classes_numbers_them_through_both(subset):
    first = subset(classes=("cow", "ant"))
    second = subset(of=first.folder, classes=("ant",))
    assert rows_of(second) == [0, 1, 7]
    assert listed(second.label_lists_at(range(3))) == [[0], [0], [0]]


def test_rows_without_a_single_label_are_balanced_by_their_first(subset):
    store = subset(count=3, classes=("ant", "bee", "cow"))
    first = {0: 0, 1: 2, 4: 1, 5: 1, 6: 2, 7: 0, 9: 2}
    assert sorted(first[row] for row in rows_of(store)) == [0, 1, 2]


def test_a_budget_counts_masks_and_lists(folder, subset):
    whole = TokenStore(folder)
    sizes = sum(whole.content(range(10)).values())
    masks = [0 if each is None else len(each) for each in whole.targets_at(range(10)).masks.to_pylist()]
    expected = [
        24 + 4 + (4 + 8) + (4 + 4 * len(labels or ())) + (8 + mask) for labels, mask in zip(LISTS, masks, strict=True)
    ]
    assert sizes.tolist() == expected
    part = subset(budget=str(int(sizes.sum()) - 1))
    assert len(part) == 9
    assert part.size.tokens + part.size.labels + part.size.masks + part.size.keys == sizes[rows_of(part)].sum()


# Other forms


def test_targets_go_through_parquet(folder, tmp_path):
    export_store(ExportConfig(store=str(folder), format="parquet", out=str(tmp_path / "out")))
    assert pq.read_table(sorted((tmp_path / "out").glob("*.parquet")))["labels"].to_pylist() == LISTS
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
    store, back = TokenStore(folder), TokenStore(tmp_path / "back")
    back.verify()
    assert back.columns == store.columns
    assert back.manifest["mask"] == MEANING
    assert back.labels.tolist() == store.labels.tolist()
    assert listed(back.label_lists_at(range(10))) == LISTS
    same_masks(back.masks_at(range(10)), MASKS)


def test_a_subset_goes_through_parquet_with_its_own_numbers(subset, tmp_path):
    part = subset(classes=("cow", "ant"))
    export_store(ExportConfig(store=str(part.folder), format="parquet", out=str(tmp_path / "out")))
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
    back = TokenStore(tmp_path / "back")
    assert back.classes == ["cow", "ant"]
    assert listed(back.label_lists_at(range(6))) == listed(part.label_lists_at(range(6)))


@pytest.fixture
def foreign(tmp_path):
    """Import anyone's Parquet of 3 rows on a grid of 1 x 2, K = 9, with further columns."""
    torch.save(torch.zeros(9, 2), tmp_path / "codebook.ckpt")

    def read(columns, **fields):
        number = len(list(tmp_path.iterdir()))
        table = pa.table({"ids": [[0, 1], [2, 3], [4, 5]], **columns})
        pq.write_table(table, tmp_path / f"{number}.parquet")
        target = tmp_path / f"store-{number}"
        config = {"codebook": str(tmp_path / "codebook.ckpt"), "grid": "1,2", "output_dir": str(target), **fields}
        import_store(ImportConfig(source="parquet", data=str(tmp_path / f"{number}.parquet"), **config))
        return TokenStore(target)

    return read


def test_anyones_lists_and_png_masks_are_imported(foreign, tmp_path):
    masks = Targets.of(masks=MASKS[:3]).masks.to_pylist()
    (tmp_path / "names.txt").write_text("sky\ngrass\nroad\n")
    store = foreign(
        {"tags": [[3, 1], None, [0]], "map": masks}, labels_column="tags", mask_column="map", mask_ignore=255,
        mask_classes=str(tmp_path / "names.txt"),
    )  # fmt: skip
    store.verify()
    assert store.classes == ["0", "1", "2", "3"]
    assert listed(store.label_lists_at(range(3))) == [[3, 1], None, [0]]
    assert store.labels.tolist() == [-1, -1, 0]
    assert store.manifest["mask"] == MEANING
    same_masks(store.masks_at(range(3)), MASKS[:3])


def test_columns_that_are_called_like_targets_but_are_none_stay_out(foreign):
    store = foreign({"labels": ["a", "b", "c"], "mask": [True, False, True]})
    assert store.columns == ("tokens", "label", "key")


@pytest.mark.parametrize(
    ("columns", "fields", "named"),
    [
        ({"labels": [[0], [1], [2, 7]]}, {"classes": "two"}, r"row 1 has label 1, .*1 classes"),
        ({"labels": [[0], [None], []]}, {}, "row 1 lacks one of its labels"),
        ({"mask": [None, b"x", None]}, {}, "row 1: a mask is no whole PNG"),
        ({"t": ["a", "b", "c"]}, {"labels_column": "t"}, "column t is of type string, expected lists of integers"),
        ({}, {"mask_column": "map"}, "no column map.*--mask_column"),
    ],
)
def test_wrong_targets_of_others_are_named(foreign, tmp_path, columns, fields, named):
    (tmp_path / "one.txt").write_text("ant\n")
    fields = {name: str(tmp_path / "one.txt") if name == "classes" else value for name, value in fields.items()}
    with pytest.raises(UserError, match=named) as raised:
        foreign(columns, **fields)
    tiny.one_line(str(raised.value))


def test_a_reduced_codebook_leaves_targets_as_they_are(folder, tmp_path):
    store = TokenStore(folder)
    shards = remap(store, torch.zeros(tiny.CODES, dtype=torch.int64), 1, tmp_path / "reduced", lambda done: None)
    write_manifest(
        tmp_path / "reduced", tokenizer=store.tokenizer, codebook=store.codebook[:1], lookup="cosine", grid=store.grid,
        preprocessing={}, classes=store.classes, shards=shards, mask=store.manifest["mask"],
    )  # fmt: skip
    reduced = TokenStore(tmp_path / "reduced")
    reduced.verify()
    assert listed(reduced.label_lists_at(range(10))) == LISTS
    same_masks(reduced.masks_at(range(10)), MASKS)
