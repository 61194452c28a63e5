"""A stranger's store is only data: nothing outside it is read, nothing it says is believed before it is checked."""

import hashlib
import io
import json
import os

import numpy as np
import pyarrow as pa
import pytest

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export_store
from seitpp.tokens import codec
from seitpp.tokens.format import verify
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

CODES, GRID, ROWS = 300, (2, 3), 9


@pytest.fixture
def folder(tmp_path):
    """9 rows in shards of 5 and 4."""
    return make(tmp_path / "store")


def make(folder, **fields):
    return tiny.make_store(folder, tiny.random_ids(ROWS, CODES, GRID), codes=CODES, rows_per_shard=5, **fields)


@pytest.fixture
def part(folder, tmp_path):
    make_subset(SubsetConfig(store=str(folder), output_dir=str(tmp_path / "part"), count=4))
    return tmp_path / "part"


def change(folder, **fields):
    """Change fields of a store.json; the names of nested ones have a double underscore between."""
    manifest = json.loads((folder / "store.json").read_text())
    for name, value in fields.items():
        *path, last = [int(key) if key.isdigit() else key for key in name.split("__")]
        place = manifest
        for key in path:
            place = place[key]
        place[last] = value
    (folder / "store.json").write_text(json.dumps(manifest))


def replace_shard(folder, table, number=0, **options):
    """Write another Arrow file in the place of a shard, and tell store.json all that it asks for."""
    path = folder / f"shard-{number:05d}.arrow"
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as file,
    ):
        file.write_table(table)
    mend(folder, number)


def mend(folder, number=0):
    content = (folder / f"shard-{number:05d}.arrow").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    change(folder, **{f"shards__{number}__sha256": digest, f"shards__{number}__bytes": len(content)})


def refused(store, match):
    """Reading all of a store is one line that matches."""
    with pytest.raises(UserError, match=match) as raised:
        read_all(store)
    return tiny.one_line(str(raised.value))


def read_all(store, **options):
    store = open_store(store, **options)
    return store.ids(range(len(store))), store.labels, store.keys()


# The manifest


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("codebook_size", 0, "codebook_size is 0, expected a whole number from 1 to 16777216"),
        ("codebook_size", True, "codebook_size is True"),
        ("codebook_size", 301.0, "codebook_size is 301.0"),
        ("codebook_size", 600, "bits is 9, which does not fit codebook_size 600"),
        ("grid", [2, -3], r"grid\[1\] is -3"),
        ("grid", [2, 3, 1], r"grid is \[2, 3, 1\], expected a list of 2"),
        ("classes", "ant", "classes is 'ant', expected a list"),
        ("classes", ["a", "\ud800"], r"classes\[1\] is '\\ud800', expected a text"),
        ("lookup", "manhattan", "lookup is 'manhattan', expected 'cosine' or 'euclidean'"),
        ("tokenizer__fingerprint", None, "tokenizer.fingerprint is None"),
        ("columns", ["tokens", "key", "label"], "columns is .*expected tokens, label, key"),
        ("shards", {}, "shards is {}, expected a list"),
        ("shards__0__rows", -1, r"shards\[0\]\.rows is -1"),
        ("shards__0__rows", 1e3, r"shards\[0\]\.rows is 1000\.0"),
        ("shards__1__content", {"tokens": -4, "label": 0, "key": 0}, r"shards\[1\]\.content\.tokens is -4"),
        ("shards__0__sha256", "A" * 64, r"shards\[0\]\.sha256 is 'AAAA.*64 hexadecimal digits"),
        ("shards__0__sha256", "../../x", r"shards\[0\]\.sha256 is '\.\./\.\./x'"),
    ],
)
def test_a_wrong_field_is_one_line_with_the_file_and_the_field(folder, field, value, says):
    change(folder, **{field: value})
    refused(folder, rf"store\.json: {says}")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{", "\xff", "", '{"format": "seitpp token store", "version": [2]}']
)
def test_a_manifest_that_is_no_json_or_of_no_version_is_one_line(folder, content):
    (folder / "store.json").write_bytes(content.encode("latin-1"))
    refused(folder, r"store\.json")


# Shards are regular files of a store


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../other/shard-00000.arrow", "a/b.arrow", "..", ".", "", "a\0b", "./shard-00000.arrow"]
)
def test_a_shard_lies_directly_in_its_store(folder, name):
    change(folder, shards__0__file=name)
    refused(folder, r"shards\[0\]\.file is .*expected the name of a file in the store's folder")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_shard_that_is_no_regular_file_is_refused_at_once(folder, kind):
    path = folder / "shard-00001.arrow"
    path.unlink()
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    refused(folder, r"shard-00001\.arrow is no file but a folder, pipe or device")


@pytest.mark.parametrize("name", ["codebook.safetensors", "store.json"])
def test_a_pipe_in_the_place_of_another_file_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=r"codebook\.safetensors is missing|is not a token store"):
        TokenStore(folder).codebook  # noqa: B018


@pytest.mark.parametrize("private", ["/etc/passwd", "../../etc/passwd", "../store/../store/shard-00000.arrow"])
def test_a_subset_names_no_file_by_an_absolute_or_a_winding_path(part, private):
    change(part, shards__0__file=private)
    refused(part, r"shards\[0\]\.file is|is a subset of another store, and .* is not a token store")


def test_a_subset_names_no_file_that_is_not_a_shard_of_a_store(part, folder, tmp_path):
    content = (folder / "shard-00000.arrow").read_bytes()
    (tmp_path / "private.arrow").write_bytes(content)
    change(part, shards__0__file="../private.arrow")
    refused(part, r"part is a subset of another store, and .* is not a token store")
    (folder / "private.arrow").write_bytes(content)  # beside the shards of a store, but none of them
    change(part, shards__0__file="../store/private.arrow")
    refused(part, r"store/private\.arrow is no shard of the store in that folder")
    change(part, shards__0__file="../store/shard-00000.arrow")
    read_all(part)


# Arrow


def columns(rows=5, **others):
    packed = codec.pack(tiny.random_ids(rows, CODES, GRID), CODES).numpy()
    return {
        "tokens": pa.array([row.tobytes() for row in packed], pa.binary(packed.shape[1])),
        "label": pa.array([0] * rows, pa.int32()),
        "key": pa.array([f"{row}.png" for row in range(rows)]),
        **others,
    }


@pytest.mark.parametrize("verified", [True, False])
def test_offsets_that_point_outside_of_the_file_are_found_before_anything_is_read(tmp_path, verified):
    """`export` of such a store read foreign memory into its output, or crashed."""
    folder = make(tmp_path / "store")
    path = folder / "shard-00000.arrow"
    content = bytearray(path.read_bytes())
    keys = np.cumsum([0, *(len(f"{row:04d}.png") for row in range(5))]).astype(np.int32).tobytes()
    place = content.index(keys)
    content[place : place + len(keys)] = np.array([0, 8, 16, 24, 32, 1 << 30], np.int32).tobytes()
    path.write_bytes(content)
    mend(folder)
    line = r"shard-00000\.arrow is cut off or broken \(.*"
    with pytest.raises(UserError, match=line):
        read_all(folder, verify_shards=verified)
    for kind in ("parquet", "seit"):
        config = {"store": str(folder), "format": kind, "out": str(tmp_path / kind), "verify_shards": verified}
        with pytest.raises(UserError, match=line):
            export_store(ExportConfig(**config))
        assert not (tmp_path / kind).exists()


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_shard_is_refused_before_it_is_unpacked(folder, compression):
    table = pa.table(columns(**{"more": pa.array(["x" * 10_000] * 5)}))
    replace_shard(folder, table, compression=compression)
    refused(folder, r"shard-00000\.arrow .*it is compressed")


def test_a_dictionary_encoded_shard_is_refused(folder):
    replace_shard(folder, pa.table(columns(key=pa.array(["a"] * 5).dictionary_encode())))
    refused(folder, r"shard-00000\.arrow .*dictionary-encoded columns")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("label", pa.array([0, 1, None, 0, 0], pa.int32()), "the column label has 1 values that are missing"),
        ("key", pa.array(["a", None, None, "b", "c"]), "the column key has 2 values that are missing"),
        ("label", pa.array([0] * 5, pa.int64()), "the column label is of type int64, expected int32"),
        ("key", pa.array(["a"] * 5, pa.large_string()), "the column key is of type large_string, expected string"),
        ("tokens", pa.array([b"x" * 7] * 5), "the column tokens is of type binary, expected fixed_size_binary"),
        ("label", pa.array([0, 1, 2, 3, 0], pa.int32()), "label 3 with 3 classes"),
    ],
)
def test_columns_of_other_types_or_with_gaps_are_refused(folder, name, values, says):
    replace_shard(folder, pa.table(columns(**{name: values})))
    refused(folder, rf"shard-00000\.arrow: {says}")


def test_a_list_of_labels_with_gaps_or_of_no_class_is_refused(tmp_path):
    folder = make(tmp_path / "store", targets=Targets.of(labels=[[0, 2], None, [], [1], [2], [0], [1], [1], None]))
    read_all(folder)
    for values, says in (([None], "labels has 1 values that are missing"), ([3], "label 3 with 3 classes")):
        lists = pa.array([[0], values, None, [], [1]], pa.list_(pa.int32()))
        replace_shard(folder, pa.table(columns(labels=lists)))
        with pytest.raises(UserError, match=says):
            open_store(folder).label_lists_at([0])


# rows.npy


def numbers(values, dtype="<i8"):
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (numbers([0, 2, 5, 9]), "must hold rising numbers from 0 to 8"),
        (numbers([-1, 2, 5, 8]), "must hold rising numbers"),
        (numbers([0, 5, 2, 8]), "must hold rising numbers"),
        (numbers([0, 2, 2, 8]), "must hold rising numbers"),
        (numbers([0, 2, 5]), r"holds int64 of shape \(3,\), expected int64 \(4,\)"),
        (numbers([[0, 2], [5, 8]]), r"holds int64 of shape \(2, 2\)"),
        (numbers([0, 2, 5, 8], "<f8"), "holds float64"),
        (numbers([0, 2, 5, 8])[:-3], "has 29 bytes of numbers, expected 32"),
        (numbers([0, 2, 5, 8]).replace(b"'shape'", b"'sh\0pe'"), "is no file of NumPy"),
        (b"PK\3\4" + bytes(60), "is no file of NumPy"),
    ],
)
def test_rows_that_are_no_rising_numbers_of_rows_are_refused(part, content, says):
    (part / "rows.npy").write_bytes(content)
    change(part, subset__sha256=hashlib.sha256(content).hexdigest())
    refused(part, rf"rows\.npy {says}")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("subset__label_of", [0, 1], "subset.label_of does not number 3 classes anew as 3"),
        ("subset__label_of", [0, 1, 3], "subset.label_of does not number"),
        ("subset__of_classes", 2, "subset.of_classes is 2, but there are 3 classes"),
        ("subset__file", "../rows.npy", "subset.file is '../rows.npy'"),
        ("subset__rows", -1, "subset.rows is -1"),
        ("subset__how__fraction", "half", "subset.how.fraction is 'half'"),
    ],
)
def test_what_a_subset_says_of_itself_is_checked(part, field, value, says):
    change(part, **{field: value})
    refused(part, rf"store\.json: {says}")


def test_a_subset_is_made_of_shards_that_do_not_tell_their_columns(tmp_path):
    """They may be written elsewhere: `content` may be missing."""
    folder = make(tmp_path / "store", targets=Targets.of(labels=[[0]] * ROWS))
    manifest = json.loads((folder / "store.json").read_text())
    del manifest["shards"][1]["content"]
    (folder / "store.json").write_text(json.dumps(manifest))
    make_subset(SubsetConfig(store=str(folder), output_dir=str(tmp_path / "part"), count=4))
    assert open_store(tmp_path / "part").columns == ("tokens", "label", "key", "labels")


# Checksums


def spoil(path, needle):
    """Change a byte of what is written, and no length."""
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 1
    path.write_bytes(content)


def test_a_changed_shard_is_not_read_unless_it_is_asked_for(folder):
    spoil(folder / "shard-00001.arrow", b"0007.png")
    refused(folder, r"shard-00001\.arrow: the checksum differs from store\.json, so it was damaged or changed")
    assert "1007.png" in read_all(folder, verify_shards=False)[2]
    with pytest.raises(UserError, match="checksum differs"):
        open_store(folder, verify_shards=False).verify()
    export = {"store": str(folder), "format": "parquet", "out": str(folder.parent / "out")}
    with pytest.raises(UserError, match="checksum differs"):
        export_store(ExportConfig(**export))
    export_store(ExportConfig(**export, verify_shards=False))


def test_other_shards_are_read_without_the_changed_one(folder):
    spoil(folder / "shard-00001.arrow", b"0007.png")
    assert len(open_store(folder).keys(range(5))) == 5


def test_a_shard_is_read_whole_once_a_process_and_again_when_it_was_written_since(folder, monkeypatch):
    hashed = []
    monkeypatch.setattr(verify, "sha256_of", lambda path: hashed.append(path.name) or sha256(path))
    for _ in range(3):
        read_all(folder)
    assert hashed == ["shard-00000.arrow", "shard-00001.arrow"]
    (folder / "shard-00001.arrow").write_bytes((folder / "shard-00001.arrow").read_bytes())
    read_all(folder)
    assert hashed[2:] == ["shard-00001.arrow"]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_id_that_is_no_code_is_found_before_it_is_looked_up(folder):
    packed = codec.pack(tiny.random_ids(5, 512, GRID) * 0 + 511, 512).numpy()
    tokens = pa.array([row.tobytes() for row in packed], pa.binary(packed.shape[1]))
    replace_shard(folder, pa.table(columns(tokens=tokens)))
    refused(folder, r"shard-00000\.arrow: id 511 with a codebook of 300")


@pytest.mark.parametrize(
    "codes",
    [1, 37, 255, 256, 257, 300, 391, 511, 512, 513, 600, 768, 1000, 5000, 65535, 65536, 65537, 2**18, 2**24 - 5],
)
@pytest.mark.parametrize("tokens", [6, 8, 13])
def test_rows_with_an_id_that_is_no_code_are_those_that_unpacking_finds(codes, tokens):
    width = 1 << codec.bits_per_token(codes)
    random = np.random.default_rng(codes)
    near = [0, codes - 1, codes, min(codes + 1, width - 1), width - 1, codes // 2]
    ids = random.choice([each for each in near if each < width], size=(200, 1, tokens), p=None)
    ids[::3] = np.minimum(ids[::3], codes - 1)
    packed = codec.pack(tiny.torch.from_numpy(ids), width).numpy()
    if tokens % 8:  # what fills the last byte of a plane is no token, whatever it is
        packed[:, tokens + -(-tokens // 8) - 1 :: -(-tokens // 8)] |= 0x80
    assert codec.rows_outside(packed, codes, tokens).tolist() == (ids >= codes).any(axis=(1, 2)).tolist()


def test_a_codebook_of_another_shape_is_refused(folder):
    from safetensors.torch import save

    for name, tensor in (
        ("codebook", tiny.torch.zeros(7, 5)),
        ("codebook", tiny.torch.zeros(CODES)),
        ("c", tiny.torch.zeros(2)),
    ):
        content = save({name: tensor})
        (folder / "codebook.safetensors").write_bytes(content)
        change(folder, codebook={"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        with pytest.raises(UserError, match=r"codebook\.safetensors"):
            open_store(folder).codebook  # noqa: B018


# Behind a URL


@pytest.fixture
def served(folder, part):
    """Both in fsspec's memory file system, and a private file in another bucket."""
    import fsspec

    system = fsspec.filesystem("memory")
    for path in [*folder.iterdir(), *part.iterdir()]:
        system.pipe_file(f"/bucket/{path.parent.name}/{path.name}", path.read_bytes())
    yield lambda name, path: system.pipe_file(f"/{name}", path.read_bytes())
    system.rm("/", recursive=True)


@pytest.fixture
def cache(tmp_path):
    return CacheConfig(folder=str(tmp_path / "cache" / "shards"), attempts=1)


def test_a_checksum_is_no_path_in_the_cache(served, folder, cache, tmp_path):
    change(folder, shards__0__sha256="../../escaped")
    served("bucket/store/store.json", folder / "store.json")
    with pytest.raises(UserError, match=r"shards\[0\]\.sha256 is"):
        read_all("memory://bucket/store", cache=cache)
    assert not list(tmp_path.glob("**/*escaped*"))


def test_a_shard_of_another_source_is_not_taken_from_the_cache_by_its_checksum(served, folder, part, cache, tmp_path):
    read_all("memory://bucket/store", cache=cache)
    shards = len(list(cache.path.glob("*.arrow")))
    read_all("memory://bucket/part", cache=cache)  # of the same source: fetched once
    assert len(list(cache.path.glob("*.arrow"))) == shards == 2
    served("strangers/store/store.json", folder / "store.json")
    served("strangers/store/codebook.safetensors", folder / "codebook.safetensors")
    with pytest.raises(UserError, match=r"strangers/store/shard-00000\.arrow"):
        read_all("memory://strangers/store", cache=cache)


def test_a_manifest_behind_a_url_does_not_lead_out_of_its_bucket_or_host(served, part, folder, cache):
    change(part, shards__0__file="../../private/shard-00000.arrow")
    served("bucket/part/store.json", part / "store.json")
    served("private/shard-00000.arrow", folder / "shard-00000.arrow")
    served("private/store.json", folder / "store.json")
    with pytest.raises(UserError, match="lies outside of what the URL is of"):
        read_all("memory://bucket/part", cache=cache)


def test_a_server_that_sends_more_than_the_manifest_says_is_not_read_to_its_end(served, folder, cache):
    content = (folder / "shard-00000.arrow").read_bytes() + bytes(10**6)
    (folder / "shard-00000.arrow").write_bytes(content)
    served("bucket/store/shard-00000.arrow", folder / "shard-00000.arrow")
    with pytest.raises(UserError, match=r"bytes came, store\.json says"):
        read_all("memory://bucket/store", cache=cache)
    assert not list(cache.path.glob("*.tmp"))
