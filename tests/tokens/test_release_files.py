"""The release format of SeiT: bytes to ids and back, as streams; what is broken is named by file and row."""

import gzip
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from published import FOLDER, release_ids, release_labels
from seitpp.runtime.errors import UserError
from seitpp.tokens.exchange.published import count_rows, encode, index_path, read_labels, read_rows, reads_back, writing


def release(folder, rows, *, offsets=None, tail=b""):
    """Write the two files of some rows, each given as its bytes; returns the data file."""
    offsets = np.cumsum([0, *map(len, rows)]) if offsets is None else offsets
    data = folder / "toy-token.data.bin.gz"
    with gzip.open(data, "wb") as file:
        file.write(b"".join(map(bytes, rows)) + tail)
    write_index(folder, np.asarray(offsets, np.int64))
    return data


def write_index(folder, array):
    with gzip.open(folder / "toy-token.index.npy.gz", "wb") as file:
        np.save(file, array)


def byte_loop(data, start, stop):
    """Ids by the rule alone: a byte of 255 means that 255 is to be added to what comes next."""
    ids, add = [], 0
    for byte in data[start:stop]:
        if byte == 255:
            add += 255
        else:
            ids.append(byte + add)
            add = 0
    assert add == 0
    return ids


def decoded_slowly(data):
    """All rows of a release file, one byte at a time."""
    with gzip.open(data) as file, gzip.open(str(data).replace("data.bin", "index.npy")) as index:
        content, offsets = file.read(), np.load(index)
    return [byte_loop(content, start, stop) for start, stop in pairwise(offsets)]


def read(data, tokens, **options):
    """All rows at once."""
    blocks = list(read_rows(data, tokens, **options))
    return np.concatenate(blocks) if blocks else np.zeros((0, tokens), np.int32)


def said(data, tokens=3):
    with pytest.raises(UserError) as raised:
        read(data, tokens)
    return tiny.one_line(str(raised.value))


# The release's own files


def test_the_files_of_the_release_decode_to_the_parity_ids():
    data = FOLDER / "tiny-train-token.data.bin.gz"
    expected = release_ids()
    assert count_rows(data) == len(expected)
    assert read(data, expected.shape[1]).tolist() == expected.tolist()


def test_parity_ids_are_written_to_files_that_a_byte_loop_reads(tmp_path):
    expected = release_ids()
    data = tmp_path / "mine-token.data.bin.gz"
    with writing(data, len(expected)) as append:
        append(expected[:13])
        append(expected[13:])
    assert decoded_slowly(data) == expected.tolist()
    assert read(data, expected.shape[1]).tolist() == expected.tolist()


def test_parity_bytes_are_those_of_the_release(tmp_path):
    data = FOLDER / "tiny-train-token.data.bin.gz"
    with gzip.open(data) as file, gzip.open(index_path(data)) as index:
        content, offsets = file.read(), np.load(index)
    again, lengths = encode(release_ids())
    assert again == content
    assert lengths.tolist() == np.diff(offsets).tolist()


def test_parity_labels_are_read():
    labels = np.concatenate(list(read_labels(FOLDER / "tiny-train-label.txt", block=7)))
    assert labels.tolist() == release_labels()
    assert len(labels) == len(release_ids())


# Bytes


@pytest.mark.parametrize(
    ("row", "ids"),
    [
        ([0, 1, 254], [0, 1, 254]),
        ([255, 0, 255, 1, 255, 254], [255, 256, 509]),
        ([255, 255, 0, 255, 255, 255, 9, 7], [510, 774, 7]),
        ([*[255] * 257, 0, 0, 0], [65535, 0, 0]),
    ],
    ids=str,
)
def test_each_255_adds_255_to_the_byte_that_follows(tmp_path, row, ids):
    assert read(release(tmp_path, [row, row]), 3).tolist() == [ids, ids]
    content, lengths = encode([ids, ids])
    assert content == bytes(row + row)
    assert lengths.tolist() == [len(row), len(row)]


@given(st.lists(st.lists(st.integers(0, 65535), min_size=5, max_size=5), max_size=9), st.integers(1, 4))
def test_any_ids_come_back_whatever_the_blocks(tmp_path_factory, ids, block):
    folder = tmp_path_factory.mktemp("release")
    array = np.array(ids, np.int64).reshape(-1, 5)
    with writing(folder / "toy.data.bin.gz", len(ids)) as append:
        append(array[:2])
        append(array[2:])
    assert decoded_slowly(folder / "toy.data.bin.gz") == ids
    assert read(folder / "toy.data.bin.gz", 5, block=block).tolist() == ids


def test_the_same_ids_give_the_same_files(tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with writing(tmp_path / name / "x.data.bin.gz", 2) as append:
            append(np.array([[1, 2], [300, 4]]))
        written.append([(tmp_path / name / file).read_bytes() for file in ("x.data.bin.gz", "x.index.npy.gz")])
    assert written[0] == written[1]


def test_the_published_code_reads_510_codes_on_1024_places_only():
    assert reads_back(510, (32, 32))
    assert not reads_back(511, (32, 32))
    assert not reads_back(391, (28, 28))


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, ">i8"])
def test_offsets_may_be_integers_of_any_kind(tmp_path, dtype):
    data = release(tmp_path, [[1, 2, 3], [4, 255, 5, 6]])
    write_index(tmp_path, np.array([0, 3, 7], dtype))
    assert read(data, 3).tolist() == [[1, 2, 3], [4, 260, 6]]


def test_neither_stream_nor_index_is_ever_held_whole(tmp_path):
    rows = 200_000  # 1.6 MB of offsets, 1.4 MB of ids
    data = tmp_path / "long.data.bin.gz"
    with writing(data, rows) as append:
        for _ in range(rows // 1000):
            append(np.full((1000, 7), 3))
    tracemalloc.start()
    try:
        assert sum(len(ids) for ids in read_rows(data, 7)) == rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 600_000


# What is broken


def test_offsets_that_do_not_rise_are_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 4, offsets=[0, 3, 3, 9, 12])
    assert "toy-token.index.npy.gz: row 1 goes from byte 3 to 3, but offsets must rise" in said(data)


@pytest.mark.parametrize(("offsets", "row"), [([0, 3, 5, 12], 1), ([0, 3, 10**15, 10**15 + 3], 1)])
def test_rows_that_can_not_hold_the_ids_are_named_before_they_are_read(tmp_path, offsets, row):
    data = release(tmp_path, [[1, 2, 3]] * 4, offsets=offsets)
    assert f"index.npy.gz: row {row} has {offsets[2] - 3} bytes, which can't be 3 ids" in said(data)


def test_an_index_that_begins_elsewhere_is_refused(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 2, offsets=[3, 6])
    assert "the first offset is 3, expected 0" in said(data)


@pytest.mark.parametrize(("row", "count"), [([1, 2, 3, 4], 4), ([1, 255, 255, 2], 2)])
def test_a_row_of_another_length_is_named(tmp_path, row, count):
    data = release(tmp_path, [[1, 2, 3], [9, 9, 9], row])
    assert f"data.bin.gz: row 2 has {count} ids, expected 3" in said(data)


def test_a_row_that_ends_with_255_is_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3], [4, 5, 6, 255], [7, 8, 9]])
    assert "data.bin.gz: row 1 ends with 255" in said(data)


@pytest.mark.parametrize(("missing", "row"), [(1, 2), (3, 2), (4, 1), (8, 0)])
def test_a_stream_that_ends_before_its_index_is_named(tmp_path, missing, row):
    rows = [1, 2, 3, 4, 5, 6, 7, 8, 9][:-missing]
    data = release(tmp_path, [rows], offsets=[0, 3, 6, 9])
    assert f"data.bin.gz ends within row {row}, but toy-token.index.npy.gz goes on" in said(data)


def test_a_stream_that_goes_on_after_its_index_is_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 2, tail=b"\x01")
    assert "data.bin.gz goes on after row 1" in said(data)


def test_a_truncated_stream_is_named_with_its_row(tmp_path):
    random = np.random.default_rng(0)
    data = tmp_path / "toy-token.data.bin.gz"
    with writing(data, 2000) as append:
        append(random.integers(0, 391, (2000, 30)))
    data.write_bytes(data.read_bytes()[:30_000])
    assert "toy-token.data.bin.gz is cut off or broken near row" in said(data, 30)


def test_a_stream_without_its_checksum_is_cut_off(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 2)
    data.write_bytes(data.read_bytes()[:-5])
    assert "is cut off or broken near row" in said(data)


def test_a_flipped_byte_is_found(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 2)
    content = bytearray(data.read_bytes())
    content[-6] ^= 1  # of the checksum
    data.write_bytes(content)
    assert "is cut off or broken" in said(data)


def test_a_truncated_index_is_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 900)
    index = index_path(data)
    index.write_bytes(index.read_bytes()[:-20])
    assert "index.npy.gz is cut off or broken" in said(data)


def test_an_index_shorter_or_longer_than_its_header_says_is_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3]] * 2)
    index = index_path(data)
    content = gzip.decompress(index.read_bytes())
    index.write_bytes(gzip.compress(content[:-8]))
    assert "index.npy.gz ends before offset 3" in said(data)
    index.write_bytes(gzip.compress(content + bytes(8)))
    assert "index.npy.gz goes on after offset 2" in said(data)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.int64), np.zeros(3), np.zeros(0, np.int64), np.array(5)],
    ids=["2-D", "float", "empty", "0-D"],
)
def test_an_index_of_another_shape_is_refused(tmp_path, array):
    data = release(tmp_path, [[1, 2, 3]])
    write_index(tmp_path, array)
    assert "expected integers, one more than images" in said(data)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"text", mtime=0), gzip.compress(b"", mtime=0)],
    ids=["empty", "text", "gzipped text", "gzipped nothing"],
)
def test_an_index_that_is_no_array_is_refused(tmp_path, content):
    data = release(tmp_path, [[1, 2, 3]])
    index_path(data).write_bytes(content)
    assert "index.npy.gz" in said(data)


def test_a_pickle_in_place_of_the_index_is_not_run(tmp_path):
    data = release(tmp_path, [[1, 2, 3]])
    with gzip.open(index_path(data), "wb") as file:
        np.save(file, np.array([{}, 1], object), allow_pickle=True)
    assert "expected integers" in said(data)


def test_a_missing_file_is_named(tmp_path):
    data = release(tmp_path, [[1, 2, 3]])
    index_path(data).unlink()
    assert "toy-token.index.npy.gz is missing" in said(data)
    with pytest.raises(UserError, match=r"its name must hold data\.bin"):
        count_rows(tmp_path / "ids.gz")


def test_the_folder_may_be_called_anything(tmp_path):
    folder = tmp_path / "data.bin"
    folder.mkdir()
    assert read(release(folder, [[1, 2, 3]]), 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [("1\nbee\n", 2, "bee"), ("1\n2\n\n", 3, ""), ("1\n2.5\n", 2, "2.5"), (f"{2**70}\n", 1, "118")],
)
def test_a_line_that_is_no_label_is_named(tmp_path, text, line, word):
    (tmp_path / "label.txt").write_text(text)
    with pytest.raises(UserError, match=rf"label\.txt: line {line} is '{word}") as raised:
        list(read_labels(tmp_path / "label.txt"))
    tiny.one_line(str(raised.value))


def test_a_missing_or_binary_file_of_labels_is_named(tmp_path):
    with pytest.raises(UserError, match="is not a file of labels"):
        list(read_labels(tmp_path / "nothing.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a file of labels"):
        list(read_labels(tmp_path / "binary.txt"))
