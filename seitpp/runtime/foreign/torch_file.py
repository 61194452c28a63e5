"""Files of torch.save from anywhere, read by torch's `weights_only` loading, which imports and runs nothing of them.

That loading knows tensors, containers and numbers. Each other name in a file gets an inert class, made here, that keeps
what its objects would have been made of; it can't be called, so a file that wants anything to be run is refused.

A file is mapped while it is read: otherwise torch before 2.10 believes the size that a file gives for a storage, and
reads and writes outside its memory (CVE-2026-24747), whereas a mapped storage ends with the file.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from contextlib import contextmanager
from pathlib import Path

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown

_KEPT_CALLS = {  # that checkpoints hold beside their weights
    "functools.partial", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
}  # fmt: skip
_BROKEN_ZIP = (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError, struct.error)


class _Refused(Exception):
    """The file asks for something that plain data has no need of; nothing of it was done."""


class _Inert(type):
    """The type of Placeholder and its classes."""

    named: str

    def __call__(cls, *args: object) -> "Placeholder":
        if cls.named not in _KEPT_CALLS:
            raise _Refused(f"asks for {cls.named} to be called")
        return cls.__new__(cls, *args)  # pyright: ignore[reportCallIssue, reportArgumentType] - the type of classes

    def __repr__(cls) -> str:
        return cls.named


class Placeholder(metaclass=_Inert):
    """Stands for an object that was not made. Its class stands for a class or function that was not looked up.

    Attributes:
        named: dotted name of the class that the object would have been of.
        args: what it would have been made with.
        state: what would have become its attributes, usually a dict.
    """

    __slots__ = ("args", "state")
    named = ""

    def __new__(cls, *args: object) -> "Placeholder":
        """Keep the arguments."""
        placeholder = super().__new__(cls)
        placeholder.args, placeholder.state = args, None
        return placeholder

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"an object of {self.named}"


def read_tensors(path: str | Path) -> object:
    """Read a torch.save file of any content: containers, numbers, strings and tensors; all else is a Placeholder.

    Tensors that share memory in the file share it afterwards. None of them lies in the file.

    Args:
        path: a file of torch.save (torch 1.6 and newer, a zip) with its default pickle protocol, 2.
    Returns: the object that was saved.
    Raises: UserError if the file is damaged or of another format, or if it asks for anything to be run.
    """
    path = Path(path)
    sizes = _checked_parts(path)
    try:
        with warnings.catch_warnings(), _only_allowed((frozenset, "builtins.frozenset")):
            warnings.simplefilter("ignore")  # of odd content, which a broken file may have
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            with torch.serialization.safe_globals([(_class_named(name), name) for name in names]):
                value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _settle(value, sizes)
    except (_Refused, pickle.UnpicklingError) as error:
        reason = error if isinstance(error, _Refused) else f"is not plain data ({error.__context__ or error})"
        raise UserError(
            f"{path} {shown(reason, 160)}: refused, and nothing of it was run; get the file from a source you trust"
        ) from error
    except Exception as error:  # a broken pickle is a program that may fail in any way
        reason = shown(error, 120) or type(error).__name__
        raise UserError(f"{path} is damaged: its pickle can't be read ({reason}); get it again") from error
    return value


def _class_named(name):
    return _Inert(shown(name, 80), (Placeholder,), {"__slots__": (), "named": shown(name, 80)})


@contextmanager
def _only_allowed(*classes):
    """Allow these beside torch's defaults, and nothing that other packages have allowed."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(classes))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _checked_parts(path):
    """Sizes of the parts of a torch.save archive, in bytes, after a look at all their checksums."""
    with path.open("rb") as file:
        start = file.read(4)
        try:
            archive = zipfile.ZipFile(file)
        except _BROKEN_ZIP as error:
            raise UserError(f"{path} {_no_zip(start)}") from error
        parts = archive.infolist()
        names = [part.filename for part in parts if re.fullmatch("[^/]*/data.pkl", part.filename)]
        if len(names) != 1:
            raise UserError(f"{path} is a zip, but no file of torch.save (no data.pkl in it): give a checkpoint")
        if compressed := [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]:
            raise UserError(f"{path} is compressed ({shown(compressed[0], 40)}), which torch.save never does: refused")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise UserError(f"{path} is damaged: its parts overlap; get it again")
        try:
            program = archive.read(names[0])
            broken = archive.testzip()
        except _BROKEN_ZIP as error:
            raise UserError(f"{path} is damaged ({shown(error, 80)}): get it again") from error
    if broken is not None:
        raise UserError(f"{path} is damaged in its part {shown(broken, 40)} (wrong CRC-32): get it again")
    if program[:1] == b"\x80" and program[1:2] > b"\x02":
        raise UserError(
            f"{path} is of pickle protocol {program[1]}, of which torch has no safe reader: "
            f"load it where you trust it and torch.save it again with pickle_protocol=2"
        )
    return {part.file_size for part in parts}


def _no_zip(start):
    if start == b"PK\x03\x04":
        return "is cut short or damaged: get it again"
    if start[:1] == b"\x80":
        return "is a bare pickle, or of a torch older than 1.6: load it where you trust it and torch.save it again"
    return "is no file of torch.save: give a checkpoint"


def _settle(value, sizes):
    """Check that each tensor lies inside a storage as large as a part of the file, and move it out of the file."""
    waiting, seen, moved = [value], set(), {}
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor | OrderedDict | Counter):
            vars(value).clear()  # an attribute of the file's could hide a method
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or value.is_quantized or value.is_conj() or value.is_neg():
                raise ValueError("a tensor in it has another form")
            held = value.untyped_storage()
            if held.nbytes() not in sizes or value.numel() * value.element_size() > held.nbytes():
                raise ValueError(f"a tensor of {value.numel()} values reaches outside a storage of the file")
            key = held.data_ptr(), held.nbytes()
            if key not in moved:
                moved[key] = held.clone()
            place = value.storage_offset(), value.shape, value.stride()
            value.data = torch.empty(0, dtype=value.dtype).set_(moved[key], *place)
        elif isinstance(value, Placeholder):
            waiting += [value.args, value.state]
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
