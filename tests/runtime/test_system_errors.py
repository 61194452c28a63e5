"""What the operating system refuses is one line with the file and a remedy, whichever library met it."""

import errno
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError

import tiny
from seitpp.runtime.command import explain
from seitpp.runtime.files import replacing, write_json

QUOTA = "the disk quota is used up while writing {}: free some of it and start again"


def refused_while_writing(path, error):
    """The line for an error that a library raises while it writes a file."""

    def write():
        with replacing(path):
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    return tiny.one_line(explain(raised.value))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        OSError("IOError: Error writing bytes to file. Detail: [errno 122] Disk quota exceeded"),  # Arrow
    ],
    ids=["write", "safetensors", "Arrow"],
)
def test_a_used_up_quota_is_told_with_the_file(tmp_path, error):
    file = tmp_path / "features.parquet"
    assert refused_while_writing(file, error) == QUOTA.format(file)


def test_a_file_that_torch_can_not_write_to_its_end_is_named(tmp_path):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    line = refused_while_writing(tmp_path / "model.pth", error)
    assert line.startswith(f"no space left on the disk, or in its quota, while writing {tmp_path / 'model.pth'}: free")


def test_a_folder_that_torch_may_not_write_is_told_as_such(tmp_path):
    error = RuntimeError(
        "[enforce fail at inline_container.cc:747] . open file failed with strerror: Permission denied"
    )
    line = refused_while_writing(tmp_path / "model.pth", error)
    assert line.startswith(f"no permission to write or read {tmp_path / 'model.pth'}: choose")


@pytest.mark.parametrize(
    ("number", "matters"),
    [
        (errno.ENOSPC, "no space left on the disk while writing {}"),
        (errno.EFBIG, "{} gets larger than"),
        (errno.EROFS, "{} lies on a file system that can't be written"),
        (errno.EIO, "at {}: its disk, or the network file system"),
        (errno.EACCES, "no permission to write or read {}"),
        (errno.EPERM, "no permission to write or read {}"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_each_refusal_names_the_file_by_its_final_name(tmp_path, number, matters):
    line = refused_while_writing(tmp_path / "file", OSError(number, os.strerror(number)))
    assert matters.format(tmp_path / "file") in line
    assert "unexpected" not in line


def test_a_file_in_a_folder_that_is_written_is_named_by_its_final_name(tmp_path):
    def write():
        with replacing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / "deep" / "file").write_text("")

    with pytest.raises(FileNotFoundError) as raised:
        write()
    assert explain(raised.value) == f"No such file or directory: {tmp_path / 'folder' / 'deep' / 'file'}"


def test_an_error_of_reading_is_not_blamed_on_what_is_written(tmp_path):
    line = refused_while_writing(tmp_path / "out", OSError(errno.ENOENT, "No such file", "in/picture.png"))
    assert line == "No such file: in/picture.png"


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_that_may_not_be_written_is_named_where_arrow_meets_it():
    def write():
        with replacing("/features.parquet") as temporary:
            pq.ParquetWriter(temporary, pa.schema([("a", pa.int8())]))

    with pytest.raises(PermissionError) as raised:
        write()
    assert explain(raised.value).startswith("no permission to write or read /features.parquet: choose another folder")


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_that_may_not_be_written_is_named_where_json_meets_it():
    with pytest.raises(PermissionError) as raised:
        write_json("/summary.json", {})
    assert explain(raised.value).startswith("no permission to write or read /summary.json: choose another folder")


def test_too_little_memory_is_one_line_that_says_what_to_do():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert explain(raised.value) == "not enough memory: lower --batch_size, or close other programs"
