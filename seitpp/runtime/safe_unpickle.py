"""Tensors of a torch.save file, read without running anything that the file asks for."""

import math
import struct
import warnings
import zipfile
from pathlib import Path

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.pickle_machine import PickleMachine, Placeholder, Refused

_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}
_STORAGES |= {"torch.storage.UntypedStorage": torch.uint8, "torch.UntypedStorage": torch.uint8}
_CONSTANTS = {str(dtype): dtype for dtype in (*_DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)}
_KEPT_CALLS = {  # that checkpoints hold beside their weights
    "functools.partial", "_codecs.encode", "torch.device", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
}  # fmt: skip
_HOLDS_WEIGHTS = ("state_dict", "model")
_BROKEN_PICKLE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError)
_BROKEN_ZIP = (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError, struct.error)


def read_tensors(path):
    """Read a torch.save file of any content: containers, numbers, strings and tensors; all else is a Placeholder.

    Tensors that share memory in the file share it afterwards; parameters come back as tensors.

    Args:
        path: a file of torch.save (torch 1.6 and newer, a zip) from a little-endian machine.
    Returns: the object that was saved.
    Raises: UserError if the file is damaged or of another format, or if it asks for anything to be run.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(4)
        try:
            archive = zipfile.ZipFile(file)
        except _BROKEN_ZIP as error:
            raise UserError(f"{path} {_no_zip(start)}") from error
        return _Archive(path, archive).load()


def read_state_dict(path):
    """The weights in a torch.save file, by their names.

    It may hold a bare tensor (its name is then ""), a state dict, one of these under `state_dict` or `model`, or a
    whole pickled module, whose weights get the names that its own `state_dict()` gives them.

    Args:
        path: as for `read_tensors`.
    Returns: dict of name to tensor.
    Raises: UserError as `read_tensors`, or if there are no weights in it.
    """
    value = read_tensors(path)
    for _ in range(2):  # {"model": {"state_dict": ...}} is the deepest that is published
        inner = [value[key] for key in _HOLDS_WEIGHTS if key in value] if isinstance(value, dict) else []
        if inner and isinstance(inner[0], dict | Placeholder):
            value = inner[0]
    if isinstance(value, torch.Tensor):
        return {"": value}
    if isinstance(value, Placeholder):
        weights = _module_weights(value, path)
        if not weights:
            raise UserError(f"{path} holds an object of {_shown(value.cls, 80)} without weights: give a state dict")
        return weights
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} holds no weights but a {type(value).__name__}: give a state dict or a module")
    if not all(_is_weight(*item) for item in value.items()):
        names = _shown(", ".join(sorted(map(str, value))[:5]), 80)
        raise UserError(f"{path} is no state dict, and has none under state_dict or model (it holds {names})")
    return value


def _module_weights(module, path):
    """Name to tensor of a module that was not made and of those in it, in the order of `state_dict()`."""
    weights, waiting, seen = {}, [("", module)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1
        if seen > 10**5 or len(prefix) > 1000:
            raise UserError(f"{path} holds modules inside modules without end: no such file is published")
        unsaved = module.state.get("_non_persistent_buffers_set") if isinstance(module.state, dict) else None
        for name, tensor in {**_members(module, "_parameters"), **_members(module, "_buffers")}.items():
            if _is_weight(name, tensor) and not (isinstance(unsaved, set) and name in unsaved):
                weights[f"{prefix}{name}"] = tensor
        children = [(f"{prefix}{name}.", child) for name, child in _members(module, "_modules").items()]
        waiting += [child for child in reversed(children) if isinstance(child[1], Placeholder)]
    return weights


def _is_weight(name, value):
    return isinstance(name, str) and name.isprintable() and isinstance(value, torch.Tensor)


def _members(module, kind):
    members = module.state.get(kind) if isinstance(module.state, dict) else None
    return members if isinstance(members, dict) else {}


def _shown(text, length):
    """Part of a text from the file, on one line and without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))[:length]


def _no_zip(start):
    if start == b"PK\x03\x04":
        return "is cut short or damaged: get it again"
    if start[:1] == b"\x80":
        return "is a bare pickle, or of a torch older than 1.6: load it where you trust it and torch.save it again"
    return "is no file of torch.save: give a checkpoint"


class _Archive:
    """One file of torch.save: its pickle, and the storages that it names, read when they are first asked for."""

    def __init__(self, path, archive):
        self.path = path
        self.archive = archive
        self.storages = {}
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip, but no file of torch.save (no data.pkl in it): give a checkpoint")
        self.folder = pickles[0].removesuffix("data.pkl")

    def load(self):
        """The object that was saved."""
        if f"{self.folder}byteorder" in self.archive.namelist() and self.record("byteorder") != b"little":
            raise UserError(f"{self.path} is of a big-endian machine: torch.save it again on a little-endian one")
        calls = {
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.typed_tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch.Size": tuple,
        }
        machine = PickleMachine(calls=calls, kept=_KEPT_CALLS, constants=_CONSTANTS, persistent=self.storage)
        program = self.record("data.pkl")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in texts, which a broken file may have
                return machine.run(program)
        except Refused as refused:
            raise UserError(
                f"{self.path} {_shown(refused, 120)}, which weights have no need of: "
                f"refused, and nothing of it was run; get the file from a source you trust"
            ) from refused
        except _BROKEN_PICKLE as error:
            reason = _shown(error, 80)
            raise UserError(f"{self.path} is damaged: its pickle can't be read ({reason}); get it again") from error

    def record(self, name):
        """Bytes of a part, checked by its checksum."""
        try:
            info = self.archive.getinfo(f"{self.folder}{name}")
            if info.compress_type != zipfile.ZIP_STORED:  # so that a small file can't grow without end
                raise ValueError("it is compressed, which torch.save never does")
            return self.archive.read(info)
        except (KeyError, *_BROKEN_ZIP) as error:
            reason = f"{name[:40]!r} ({_shown(error, 80)})"
            raise UserError(f"{self.path} is damaged in its part {reason}: get it again") from error

    def storage(self, persistent_id):
        """A storage as a flat tensor, from ("storage", type, key, device, number of values)."""
        kind, cls, key, _, count = persistent_id
        dtype = _STORAGES.get(str(cls))
        if kind != "storage" or dtype is None or not isinstance(key, str):
            raise Refused(f"asks for a storage of {str(cls)[:60]}")
        if key not in self.storages:
            content = bytearray(self.record(f"data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()
        held = self.storages[key]
        if type(count) is not int or count * dtype.itemsize != held.numel():
            raise ValueError(f"storage {key[:20]} has {held.numel()} bytes, not {str(count)[:30]} values of {dtype}")
        return held.view(dtype)

    def tensor(self, storage, offset, size, stride, *_):
        """The part of a storage that `torch._utils._rebuild_tensor_v2` makes, if it lies inside."""
        if not isinstance(storage, torch.Tensor) or len(size) != len(stride) or len(size) > 16:
            raise ValueError("a tensor in it has another form")
        if any(type(number) is not int or not 0 <= number < 2**62 for number in (offset, *size, *stride)):
            raise ValueError("a tensor in it has an impossible size")
        count = math.prod(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count > storage.numel() or (count and last >= storage.numel()):
            raise ValueError(f"a tensor of {count} values reaches outside its storage of {storage.numel()}")
        return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)

    def typed_tensor(self, storage, offset, size, stride, _requires_grad, _hooks, dtype, *_):
        """The same for dtypes without a storage type, `torch._utils._rebuild_tensor_v3`."""
        return self.tensor(storage.view(dtype), offset, size, stride)


def _parameter(tensor, *_):
    if not isinstance(tensor, torch.Tensor):
        raise ValueError("a parameter in it is no tensor")
    return tensor
