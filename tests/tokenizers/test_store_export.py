"""Token stores in other programs' forms: Parquet, the SeiT release's files, pictures."""

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tiny
from published import FOLDER, recording, release_ids, release_labels
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import store_export, store_import
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.pixels import read_image
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore

GRID = (3, 5)
CODES = 391
LABELS = [-1, 2, 0, 1] * 4


@pytest.fixture
def ids():
    ids = tiny.random_ids(16, CODES, GRID)
    ids[0, 0, :4] = torch.tensor([0, 255, 256, 390])
    return ids


@pytest.fixture
def folder(tmp_path, ids):
    """16 rows in shards of 7, 7 and 2, some without a label."""
    keys = [f"klasse ü/{row}.jpg" for row in range(16)]
    return tiny.make_store(tmp_path / "store", ids, codes=CODES, labels=LABELS, keys=keys)


def export(folder, out, kind, **fields):
    store_export.main(ExportConfig(store=str(folder), out=str(out), format=kind, **fields))
    return out


def said(folder, out, kind, **fields):
    """The line of an export that fails and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(UserError) as raised:
        export(folder, out, kind, **fields)
    assert sorted(out.parent.iterdir()) == before
    return tiny.one_line(str(raised.value))


def read_back(folder, **fields):
    fields = {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
    store_import.main(ImportConfig(output_dir=str(folder), **fields))
    store = TokenStore(folder)
    store.verify()
    return store


def rows_by_the_byte(data, index):
    """The ids of the release's files: 255 is added to the byte behind a byte of 255."""
    content, rows = gzip.decompress(data.read_bytes()), []
    with gzip.open(index) as file:
        offsets = np.load(file)
    for start, stop in pairwise(offsets.tolist()):
        row, add = [], 0
        for byte in content[start:stop]:
            if byte == 255:
                add = 255
            else:
                row.append(byte + add)
                add = 0
        rows.append(row)
    return rows


# Parquet


def test_parquet_has_a_file_for_each_shard_with_ids_labels_classes_and_keys(tmp_path, folder, ids):
    out = export(folder, tmp_path / "out", "parquet")
    files = sorted(out.glob("*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [7, 7, 2]
    frame = pd.concat([pd.read_parquet(file) for file in files])
    assert list(frame.columns) == ["ids", "label", "class", "key"]
    assert [row.tolist() for row in frame.ids] == ids.flatten(1).tolist()
    assert frame.label.tolist() == LABELS
    names = frame["class"].astype(object)
    assert names.where(names.notna(), None).tolist() == [None, "cow", "ant", "bee"] * 4
    assert frame.key.tolist() == [f"klasse ü/{row}.jpg" for row in range(16)]
    schema = pq.read_schema(files[0])
    assert str(schema.field("ids").type).startswith("fixed_size_list<")
    assert str(schema.field("ids").type.value_type) == "uint16"


def test_an_exported_store_comes_back_byte_for_byte(tmp_path, folder):
    out = export(folder, tmp_path / "out", "parquet")
    read_back(tmp_path / "again", source="parquet", data=out, rows_per_shard=7)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "again").iterdir()}
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_the_codebook_beside_must_be_the_stores_own(tmp_path, folder, ids):
    out = export(folder, tmp_path / "out", "parquet")
    other = tiny.make_store(tmp_path / "other", ids, codes=CODES, codebook=torch.ones(CODES, 5))
    (out / "codebook.safetensors").write_bytes((other / "codebook.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"is not the codebook that .* was exported with"):
        read_back(tmp_path / "again", source="parquet", data=out)
    (out / "codebook.safetensors").unlink()
    with pytest.raises(UserError, match="comes without a codebook"):
        read_back(tmp_path / "again", source="parquet", data=out)


def test_files_of_two_stores_are_not_mixed(tmp_path, folder, ids):
    out = export(folder, tmp_path / "out", "parquet")
    other = tiny.make_store(tmp_path / "other", ids, codes=CODES, fingerprint="b" * 64)
    (export(other, tmp_path / "out2", "parquet") / "part-00000.parquet").rename(out / "zzz.parquet")
    with pytest.raises(UserError, match=r"zzz\.parquet was exported from another store than part-00000\.parquet"):
        read_back(tmp_path / "again", source="parquet", data=out)


def test_metadata_that_is_broken_is_named(tmp_path, folder):
    out = export(folder, tmp_path / "out", "parquet")
    file = out / "part-00000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"seitpp": "{}"}), file)
    with pytest.raises(UserError, match=r"part-00000\.parquet"):
        read_back(tmp_path / "again", source="parquet", data=file)


def test_another_tokenizer_than_the_exported_stores_is_refused(tmp_path, folder, tokenizer_folder):
    out = export(folder, tmp_path / "out", "parquet")
    with pytest.raises(UserError, match="was made by another tokenizer"):
        read_back(tmp_path / "again", source="parquet", data=out, tokenizer=tokenizer_folder)


def test_a_store_without_rows_is_exported_too(tmp_path):
    folder = tiny.make_store(tmp_path / "empty", torch.zeros(0, *GRID, dtype=torch.int64), codes=CODES)
    export(folder, tmp_path / "out", "parquet")
    assert len(read_back(tmp_path / "again", source="parquet", data=tmp_path / "out")) == 0
    export(folder, tmp_path / "release", "seit", name="x")
    back = read_back(
        tmp_path / "again2", source="seit", data=tmp_path / "release" / "x-token.data.bin.gz", grid="3,5",
        codebook=tmp_path / "release" / "codebook.ckpt", classes=tmp_path / "release" / "classes.txt",
    )  # fmt: skip
    assert len(back) == 0
    assert back.classes == ["ant", "bee", "cow"]


# The release


def test_the_release_has_the_published_names_and_decodes_by_the_byte(tmp_path, folder, ids):
    out = export(folder, tmp_path / "out", "seit", name="imagenet1k-train")
    assert sorted(path.name for path in out.iterdir()) == [
        "classes.txt",
        "codebook.ckpt",
        "imagenet1k-train-label.txt",
        "imagenet1k-train-token.data.bin.gz",
        "imagenet1k-train-token.index.npy.gz",
        "synonyms.json",
    ]
    data, index = (out / f"imagenet1k-train-token.{kind}.gz" for kind in ("data.bin", "index.npy"))
    assert rows_by_the_byte(data, index) == ids.flatten(1).tolist()
    assert (out / "imagenet1k-train-label.txt").read_text() == "".join(f"{label}\n" for label in LABELS)
    assert torch.equal(torch.load(out / "codebook.ckpt", weights_only=True), TokenStore(folder).codebook)


def test_the_release_comes_back(tmp_path, folder, ids):
    out = export(folder, tmp_path / "out", "seit")
    store = read_back(
        tmp_path / "again", source="seit", data=out / "store-token.data.bin.gz", labels=out / "store-label.txt",
        codebook=out / "codebook.ckpt", synonyms=out / "synonyms.json", classes=out / "classes.txt", grid="3,5",
    )  # fmt: skip
    assert store.ids(range(16)).tolist() == ids.tolist()
    assert store.labels.tolist() == LABELS
    assert store.classes == ["ant", "bee", "cow"]
    assert torch.equal(store.codebook, TokenStore(folder).codebook)
    assert (tmp_path / "again" / "synonyms.json").read_bytes() == (out / "synonyms.json").read_bytes()


def test_parity_files_come_back_to_the_same_ids_by_the_byte(tmp_path):
    torch.save(recording("codebook")["codebook"], tmp_path / "codebook.ckpt")
    read_back(
        tmp_path / "store", source="seit", data=FOLDER / "tiny-train-token.data.bin.gz",
        labels=FOLDER / "tiny-train-label.txt", codebook=tmp_path / "codebook.ckpt", rows_per_shard=6,
    )  # fmt: skip
    out = export(tmp_path / "store", tmp_path / "out", "seit", name="tiny-train")
    data, index = out / "tiny-train-token.data.bin.gz", out / "tiny-train-token.index.npy.gz"
    assert rows_by_the_byte(data, index) == release_ids().tolist()
    assert gzip.decompress(data.read_bytes()) == gzip.decompress((FOLDER / data.name).read_bytes())
    with gzip.open(index) as ours, gzip.open(FOLDER / index.name) as theirs:
        assert np.load(ours).tolist() == np.load(theirs).tolist()
    assert list(map(int, (out / "tiny-train-label.txt").read_text().splitlines())) == release_labels()


def test_synonyms_are_computed_where_the_store_has_none_and_else_its_own(tmp_path, folder):
    out = export(folder, tmp_path / "out", "seit")
    codes = TokenStore(folder).codebook.double().numpy()
    written = json.loads((out / "synonyms.json").read_text())
    for code in (0, 255, 390):
        order = np.argsort(((codes - codes[code]) ** 2).sum(axis=1))
        assert written[str(code)] == order[1:6].tolist()
    mine = {str(code): [(code + 1) % CODES] for code in range(CODES)}
    (folder / "synonyms.json").write_text(json.dumps(mine))
    assert json.loads((export(folder, tmp_path / "out2", "seit") / "synonyms.json").read_text()) == mine
    assert json.loads((export(folder, tmp_path / "out3", "parquet") / "synonyms.json").read_text()) == mine


def test_what_the_published_code_can_not_read_is_said(tmp_path, folder, capsys):
    export(folder, tmp_path / "out", "seit")
    assert "the published code knows only grids of 1,024 tokens and K up to 510" in capsys.readouterr().out
    large = tiny.make_store(tmp_path / "large", tiny.random_ids(2, 700, (32, 32)), codes=700)
    export(large, tmp_path / "out2", "seit")
    assert "published code" in capsys.readouterr().out
    small = tiny.make_store(tmp_path / "small", tiny.random_ids(2, 510, (32, 32)), codes=510)
    export(small, tmp_path / "out3", "seit")
    assert "published code" not in capsys.readouterr().out


# Pictures


@pytest.fixture
def pictures(tmp_path, tokenizer_folder):
    """A store of 7 rows that the tiny tokenizer made, three of whose names meet in a class, two unlabelled."""
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = tiny.random_ids(7, tiny.CODES, tiny.GRID)
    keys = ["ant/a.jpg", "ant/a-3.webp", "c.png", "ant/x/a.png", "../../d.jpg", "hfds/ü:7", "cow/" + 150 * "ü"]
    folder = tiny.make_store(
        tmp_path / "store", ids, labels=[0, 0, -1, 0, -1, 1, 2], keys=keys, fingerprint=tokenizer.fingerprint,
        codebook=tokenizer.codebook,
    )  # fmt: skip
    return folder, tokenizer.decode(ids)


def test_pictures_lie_in_class_folders_under_the_names_of_their_keys(tmp_path, pictures, tokenizer_folder):
    folder, decoded = pictures
    out = export(folder, tmp_path / "out", "imagefolder", tokenizer=str(tokenizer_folder), batch_size=3)
    names = ["ant/a.png", "ant/a-3.png", "c.png", "ant/a-3-3.png", "d.png", "bee/ü:7.png", f"cow/{100 * 'ü'}.png"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == sorted(names)
    for name, image in zip(names, decoded, strict=True):
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
        found = read_image(out / name, tiny.IMAGE_SIZE)
        assert np.abs(found / 255.0 - image.numpy()).max() <= 0.5 / 255 + 1e-6


def test_pictures_are_a_folder_of_images_with_the_same_labels(tmp_path, pictures, tokenizer_folder):
    out = export(pictures[0], tmp_path / "out", "imagefolder", tokenizer=str(tokenizer_folder))
    images = open_image_folder(out)
    assert images.classes == ["ant", "bee", "cow"]
    assert sorted(np.asarray(images.labels).tolist()) == [-1, -1, 0, 0, 0, 1, 2]


def test_another_tokenizer_than_the_stores_is_refused(tmp_path, pictures):
    other = tiny.make_tokenizer(tmp_path / "tokenizer", seed=5)
    line = said(pictures[0], tmp_path / "out", "imagefolder", tokenizer=str(other))
    assert "their ids mean different things" in line


def test_a_class_that_can_be_no_folder_is_refused(tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    folder = tiny.make_store(
        tmp_path / "store", tiny.random_ids(2, tiny.CODES, tiny.GRID), classes=["ant", "../bee"],
        fingerprint=tokenizer.fingerprint,
    )  # fmt: skip
    line = said(folder, tmp_path / "out", "imagefolder", tokenizer=str(tokenizer_folder))
    assert "'../bee', which can't be the name of a folder" in line


# What is wrong


@pytest.mark.parametrize("kind", ["parquet", "seit"])
def test_a_target_that_is_there_is_not_touched(tmp_path, folder, kind):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "is there already" in said(folder, tmp_path / "out", kind)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["parquet", "seit"])
def test_an_export_that_fails_leaves_nothing(tmp_path, folder, kind):
    content = bytearray((folder / "shard-00002.arrow").read_bytes())
    content[-8:] = bytes(8)
    (folder / "shard-00002.arrow").write_bytes(content)
    assert "shard-00002.arrow is cut off or broken" in said(folder, tmp_path / "out", kind)


def test_impossible_values_are_refused_by_name():
    good = ExportConfig(store="a", format="seit", out="b")
    with pytest.raises(UserError, match="batch_size"):
        replace(good, batch_size=0)
    with pytest.raises(UserError, match="imagefolder needs it: give --tokenizer"):
        replace(good, format="imagefolder")
    with pytest.raises(UserError, match="name = 'a/b'"):
        replace(good, name="a/b")
