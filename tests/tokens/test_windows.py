"""Windows: where the rows of a segmentation store lie, read by name, checked, kept by subsets, codings and Parquet."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import tiny
import tiny_segmentation
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.reduce_codebook import ReduceCodebookConfig
from seitpp.tokenizers.reduce_codebook import main as reduce_codebook
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export_store
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.store_import import main as import_store
from seitpp.tokens.code_store import CodeStoreConfig
from seitpp.tokens.code_store import main as code_store
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.format.windows import Windows, wrong_window
from seitpp.tokens.store import TokenStore, sha256_of, write_shard
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

PLACES = [
    [0, 0, 0, 16, 24, 16, 24],
    [1, 0, 0, 16, 25, 20, 31],
    [1, 0, 1, 16, 25, 20, 31],
    [2, 0, 0, 38, 16, 40, 17],
    [2, 16, 0, 38, 16, 40, 17],
    [2, 22, 0, 38, 16, 40, 17],
    [3, 0, 0, 16, 53, 9, 30],
    [3, 0, 24, 16, 53, 9, 30],
    [3, 0, 29, 16, 53, 9, 30],
    [4, 0, 0, 16, 23, 33, 48],
]


@pytest.fixture
def folder(tmp_path):
    """10 windows of 5 images, in shards of 3, 6 and 1."""
    return tiny_segmentation.make_segmentation_store(tmp_path / "store")[0]


def same_rows(found, store, rows):
    found.verify()
    assert found.windows_at(range(len(found))).tolist() == [PLACES[row] for row in rows]
    assert found.manifest["windows"] == store.manifest["windows"]
    assert found.manifest["mask"] == store.manifest["mask"]
    for mine, theirs in zip(found.masks_at(range(len(found))), store.masks_at(rows), strict=True):
        assert np.array_equal(mine, theirs)
    for mine, theirs in zip(found.truths_at(range(len(found))), store.truths_at(rows), strict=True):
        assert np.array_equal(mine, theirs) if theirs is not None else mine is None


def test_places_come_back_in_the_order_asked_for_across_shards(folder):
    store = TokenStore(folder)
    store.verify()
    assert store.columns == ("tokens", "label", "key", "mask", "window", "truth")
    for rows in (range(10), [9, 0, 3, 3, 7], []):
        found = store.windows_at(rows)
        assert (found.dtype, found.shape) == (np.int32, (len(rows), 7))
        assert found.tolist() == [PLACES[row] for row in rows]


def test_the_label_map_of_a_whole_image_is_at_its_first_row(tmp_path):
    folder, masks = tiny_segmentation.make_segmentation_store(tmp_path / "store")
    found = TokenStore(folder).truths_at(range(10))
    assert [row for row, each in enumerate(found) if each is not None] == [0, 1, 3, 6, 9]
    for row, mask in zip((0, 1, 3, 6, 9), masks, strict=True):
        assert np.array_equal(found[row], mask)
    plain, _ = tiny_segmentation.make_segmentation_store(tmp_path / "plain", truths=False)
    store = TokenStore(plain)
    assert store.truths_at([0, 3]) == [None, None]
    assert store.columns[-1] == "window"


def test_the_numbers_of_a_place_have_names():
    windows = Windows(np.array(PLACES, np.int32))
    assert windows.image.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert (windows.top[4], windows.left[8]) == (16, 29)
    assert windows.resized[7].tolist() == [16, 53]
    assert windows.original[3].tolist() == [40, 17]
    assert windows.image_bounds().tolist() == [0, 1, 3, 6, 9, 10]
    assert windows[3:5].top.tolist() == [0, 16]
    assert Windows(np.zeros((0, 7), np.int32)).image_bounds().tolist() == [0]


def test_pandas_reads_the_places_of_a_shard(folder):
    import pandas as pd

    frame = pd.read_feather(folder / "shard-00000.arrow")
    assert [each.tolist() for each in frame["window"]] == PLACES[:3]


def test_a_store_without_windows_says_so(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path, tiny.random_ids(3, tiny.CODES, tiny.GRID)))
    with pytest.raises(UserError, match=r"no windows .column window.*--targets masks"):
        store.windows_at([0])


def test_bytes_of_masks_and_tokens_are_counted_apart_and_places_with_the_keys(folder):
    store = TokenStore(folder)
    size, content = store.size, store.content(range(10))
    assert content["window"].tolist() == [28] * 10
    assert size.tokens == 10 * 24
    assert size.masks == content["mask"].sum() + content["truth"].sum() > 20 * 8
    assert size.keys == content["key"].sum() + 280
    assert size.total == sum(path.stat().st_size for path in folder.iterdir())


# What is kept


def test_a_subset_keeps_masks_and_places_of_its_rows(folder, tmp_path):
    make_subset(SubsetConfig(store=str(folder), output_dir=str(tmp_path / "part"), count=4))
    store, part = TokenStore(folder), TokenStore(tmp_path / "part")
    keys = store.keys()
    same_rows(part, store, [keys.index(key) for key in part.keys()])  # noqa: SIM118 (not a dict)


def test_a_coded_store_keeps_masks_and_places(folder, tmp_path):
    code_store(CodeStoreConfig(store=str(folder), output_dir=str(tmp_path / "coded")))
    same_rows(TokenStore(tmp_path / "coded"), TokenStore(folder), range(10))


def test_a_store_of_fewer_codes_keeps_masks_and_places(folder, tmp_path):
    reduce_codebook(ReduceCodebookConfig(store=str(folder), output_dir=str(tmp_path / "fewer"), codes=9))
    same_rows(TokenStore(tmp_path / "fewer"), TokenStore(folder), range(10))


def test_parquet_and_back_keeps_masks_and_places(folder, tmp_path):
    export_store(ExportConfig(store=str(folder), format="parquet", out=str(tmp_path / "out")))
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
    same_rows(TokenStore(tmp_path / "back"), TokenStore(folder), range(10))


# What is checked


@pytest.mark.parametrize(
    "wrong",
    [(-1, 0, 0, 16, 24, 9, 9), (0, -1, 0, 16, 24, 9, 9), (0, 1, 0, 16, 24, 9, 9), (0, 0, 2, 16, 25, 9, 9),
     (0, 0, 0, 0, 24, 9, 9), (0, 0, 0, 16, 24, 9, 0), (0, 1, 0, 9, 24, 9, 9), (0, 2**31 - 1, 0, 16, 24, 9, 9)],
)  # fmt: skip
def test_a_place_outside_of_its_image_is_refused_when_its_shard_is_read(folder, wrong):
    assert wrong_window(np.array([PLACES[0], wrong], np.int32), tiny_segmentation.WINDOW) == 1
    rewrite(folder, windows=[PLACES[0], PLACES[1], wrong])
    with pytest.raises(UserError, match=r"shard-00000\.arrow: row 2 has the place \[.*none of a window"):
        TokenStore(folder).ids([0])


def test_a_window_may_reach_over_an_image_that_is_smaller():
    assert wrong_window(np.array([[0, 0, 0, 9, 20, 9, 20]], np.int32), (16, 24)) is None


def test_verify_names_a_mask_of_another_size_than_its_window(folder):
    masks = TokenStore(folder).masks_at(range(3))
    rewrite(folder, masks=[masks[0], masks[1][:-1], masks[2]])
    with pytest.raises(UserError, match=r"row 1: the mask is of \(15, 24\) pixels, expected \(16, 24\)"):
        TokenStore(folder).verify()


def test_verify_names_a_label_map_of_another_size_than_its_image(folder):
    rewrite(folder, truths=[np.zeros((16, 23), np.uint8), None, None])
    with pytest.raises(UserError, match=r"row 0: the mask is of \(16, 23\) pixels, expected \(16, 24\)"):
        TokenStore(folder).verify()


def test_places_that_are_missing_are_refused(folder):
    rewrite(folder, windows=pa.array([PLACES[0], None, PLACES[2]], pa.list_(pa.int32(), 7)))
    with pytest.raises(UserError, match="the column window has 1 values that are missing"):
        TokenStore(folder).windows_at([0])


def test_a_manifest_that_does_not_say_what_windows_are_is_refused(folder):
    manifest = json.loads((folder / "store.json").read_text())
    for change, words in (
        ({"windows": None}, "windows"),
        ({"windows": {**manifest["windows"], "size": [0, 4]}}, "size"),
    ):
        (folder / "store.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UserError, match=words):
            TokenStore(folder)
    del manifest["windows"]
    (folder / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="lacks 'windows'"):
        TokenStore(folder)


def rewrite(folder, *, windows=None, masks=None, truths=None):
    """Other targets in the first shard, its checksum mended."""
    store = TokenStore(folder)
    targets = Targets.of(
        masks=store.masks_at(range(3)) if masks is None else masks,
        windows=PLACES[:3] if windows is None or isinstance(windows, pa.Array) else windows,
        truths=store.truths_at(range(3)) if truths is None else truths,
    )
    if isinstance(windows, pa.Array):
        targets = replace(targets, windows=windows)
    path = folder / "shard-00000.arrow"
    entry = write_shard(path, store.packed(range(3)), [-1] * 3, store.keys(range(3)), targets)
    assert entry["sha256"] == sha256_of(path)
    manifest = json.loads((folder / "store.json").read_text())
    manifest["shards"][0] = entry
    (folder / "store.json").write_text(json.dumps(manifest))
