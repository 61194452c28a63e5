"""Reading torch.save files: everything that is data comes back, nothing that is code runs."""

import argparse
import functools
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from einops.layers.torch import Rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.pickle_machine import Placeholder
from seitpp.runtime.safe_unpickle import read_state_dict, read_tensors


class Block(nn.Module):
    """Some of everything that a published module holds."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 5), nn.ModuleList([nn.LayerNorm(5), nn.Linear(5, 3, bias=False)])])
        self.positions = nn.Parameter(torch.randn(1, 4, 3), requires_grad=False)
        self.register_buffer("counts", torch.arange(6).reshape(2, 3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_parameter("nothing", None)
        self.fold = nn.Sequential(Rearrange("b (h w) c -> b c h w", h=2), nn.Conv2d(3, 2, 1))
        self.make_norm = functools.partial(nn.LayerNorm, eps=1e-6)
        self.device, self.dtype, self.shape = torch.device("cpu"), torch.bfloat16, torch.Size([2, 3])
        self.folder, self.root = Path("a/b"), np.float64(0.5)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.layers[0].weight
        self.unused = None


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Block()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.ckpt"


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


# What comes back


def test_a_pickled_module_gives_its_state_dict(module, file):
    torch.save(module, file)
    assert_same(read_state_dict(file), module.state_dict())


def test_a_module_of_unknown_code_gives_its_state_dict(file, monkeypatch):
    class Gone(nn.Sequential):
        def __setstate__(self, state):
            raise AssertionError("nothing of the file runs")

    Gone.__module__, Gone.__qualname__ = "gone", "Gone"
    monkeypatch.setitem(sys.modules, "gone", types.SimpleNamespace(Gone=Gone))
    module = Gone(nn.Linear(2, 3))
    torch.save(module, file)
    monkeypatch.delitem(sys.modules, "gone")
    assert_same(read_state_dict(file), module.state_dict())


def test_tied_weights_stay_tied(module, file):
    torch.save(module, file)
    weights = read_state_dict(file)
    assert weights["head.weight"].data_ptr() == weights["layers.0.weight"].data_ptr()


@pytest.mark.parametrize("wrap", [dict, OrderedDict])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_state_dict_is_found_alone_and_beside_other_things(module, file, wrap, key):
    weights = wrap(module.state_dict())
    beside = {"args": argparse.Namespace(lr=0.1, names=["a"], nested=argparse.Namespace(x=1)), "epoch": 3}
    torch.save(weights if key is None else {**beside, key: weights}, file)
    assert_same(read_state_dict(file), module.state_dict())


def test_a_module_beside_its_arguments_is_found(module, file):
    torch.save({"model": module, "args": argparse.Namespace(lr=0.1)}, file)
    assert_same(read_state_dict(file), module.state_dict())


def test_a_bare_tensor_has_no_name(file):
    tensor = torch.randn(3, 4)
    torch.save(tensor, file)
    assert_same(read_state_dict(file), {"": tensor})


def test_plain_data_comes_back_as_it_was(file):
    value = {
        "numbers": [1, -(2**40), 2**70, 0.5, True, None], "text": "grün", "sets": [{1}, frozenset({3})],
        7: (1, (2,), ()),
        "nested": OrderedDict(a=[{}], b=torch.Size([2, 3])), "empty": [[], {}, set()], "type": torch.float16,
    }  # fmt: skip
    for protocol in (2, 4, 5):
        torch.save(value, file, pickle_protocol=protocol)
        assert read_tensors(file) == value


def test_an_object_is_kept_as_its_name_and_its_attributes(file):
    torch.save({"args": argparse.Namespace(lr=0.1, name="x")}, file)
    kept = read_tensors(file)["args"]
    assert isinstance(kept, Placeholder)
    assert (str(kept.cls), kept.state) == ("argparse.Namespace", {"lr": 0.1, "name": "x"})


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
     torch.uint8, torch.uint16, torch.bool],
)  # fmt: skip
def test_every_type_of_number_comes_back(file, dtype):
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    torch.save({"a": tensor, "none": tensor[:0]}, file)
    assert_same(read_state_dict(file), {"a": tensor, "none": tensor[:0]})


def test_views_have_their_strides_and_share_their_storage(file):
    whole = torch.arange(24.0).reshape(4, 6)
    parts = {"whole": whole, "column": whole[1:, 2], "turned": whole.T, "number": whole[2, 3], "spread": whole[:1]}
    torch.save(parts, file)
    found = read_state_dict(file)
    assert_same(found, parts)
    found["whole"][3, 2] = -1
    assert found["column"][2] == -1
    assert found["turned"].stride() == (1, 6)


# What is refused


class Call:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def write_archive(file, program, records=None, folder="archive"):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", program)
        archive.writestr(f"{folder}/byteorder", b"little")
        for key, content in (records or {}).items():
            archive.writestr(f"{folder}/data/{key}", content)
    return file


def refusal(file):
    with pytest.raises(UserError) as refused:
        read_state_dict(file)
    line = tiny.one_line(str(refused.value))
    assert str(file) in line
    return line


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def hostile(marker):
    """Name, what the refusal names, and a program that makes the file `marker` in a machine that trusts it."""
    touch = f"touch {marker}"
    write = f"__import__('pathlib').Path({marker!r}).touch()"
    arguments = b"(" + text(touch) + b"t"
    yield "reduce", "os.system", b"cos\nsystem\n" + arguments + b"R."
    yield "reduce in protocol 4", "os.system", b"\x80\x04" + text("os") + text("system") + b"\x93" + arguments + b"R."
    yield "inst", "os.system", b"(" + text(touch) + b"ios\nsystem\n."
    yield "obj", "os.system", b"(cos\nsystem\n" + text(touch) + b"o."
    yield "eval", "builtins.eval", b"cbuiltins\neval\n(" + text(write) + b"tR."
    yield "exec", "builtins.exec", b"cbuiltins\nexec\n(" + text(write) + b"tR."
    yield "old eval", "__builtin__.eval", b"c__builtin__\neval\n(" + text(write) + b"tR."
    dotted = text("os") + text("system.__call__") + b"\x93"
    yield "dotted", "os.system.__call__", b"\x80\x04" + dotted + arguments + b"R."
    yield "getattr", "builtins.getattr", b"cbuiltins\ngetattr\n(cos\npath\n" + text("join") + b"tR" + arguments + b"R."
    yield "partial", "functools.partial", b"cfunctools\npartial\n(cos\nsystem\n" + text(touch) + b"tR)R."
    yield "map", "builtins.map", b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n](" + text(touch) + b"etRtR."
    yield (
        "in a state",
        "os.system",
        (b"cargparse\nNamespace\n)\x81}" + text("a") + b"cos\nsystem\n" + arguments + b"Rsb."),
    )
    yield "as an object", "subprocess.Popen", b"csubprocess\nPopen\n(" + text(touch) + b"tR."
    reconstructor = b"ccopy_reg\n_reconstructor\n(cos\nsystem\ncbuiltins\nobject\nNtR"
    yield "copyreg", "copy_reg._reconstructor", reconstructor + arguments + b"R."
    setstate = b"cargparse\nNamespace\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb"
    yield "setstate", "argparse.Namespace", setstate + text(touch) + b"bq\x00" + b"cos\nsystem\n0h\x00" + b")R."
    append = b"cargparse\nNamespace\n)\x81}" + text("append") + b"cos\nsystem\nsb"
    yield "append", "argparse.Namespace", append + text(touch) + b"a."
    yield "extend", "argparse.Namespace", append.replace(b"append", b"extend") + b"(" + text(touch) + b"e."
    yield "items of a class", "os.environ", b"cos\nenviron\n" + text("A") + text("B") + b"s."
    yield "attributes of a class", "torch.nn.Module", b"ctorch.nn\nModule\n}" + text("forward") + b"cos\nsystem\nsb."
    yield "extension", "EXT1", b"\x80\x02\x82\x01."
    yield "extension 2", "EXT2", b"\x80\x02\x83\x01\x00."
    yield "extension 4", "EXT4", b"\x80\x02\x84\x01\x00\x00\x00."
    yield "persistent text", "PERSID", b"Pmodule\n."
    yield "odd storage", "os.system", b"(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x01tQ."
    yield "object of a call", "dict", b"}(" + text(touch) + b"t\x81."


PROGRAMS = {name: (named, program) for name, named, program in hostile("MARKER")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_pickle_runs_nothing(file, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    named, program = PROGRAMS[name]
    line = refusal(write_archive(file, program))
    assert named in line
    assert "refused, and nothing of it was run" in line
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("name", ["reduce", "reduce in protocol 4", "inst", "obj", "eval", "exec", "in a state"])
def test_the_hostile_pickles_would_run_elsewhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PROGRAMS[name][1])
    assert (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("where", ["alone", "beside weights", "in an attribute", "as an argument"])
def test_torch_files_with_a_call_in_them_are_refused(file, tmp_path, protocol, where):
    import os

    marker = tmp_path / "marker"
    call = Call(os.system, f"touch {marker}")
    value = {
        "alone": call,
        "beside weights": {"model": {"a": torch.zeros(2)}, "args": call},
        "in an attribute": argparse.Namespace(deep=[{"a": call}]),
        "as an argument": functools.partial(print, call),
    }[where]
    torch.save(value, file, pickle_protocol=protocol)
    assert ".system to be called" in refusal(file)
    assert not marker.exists()


def test_a_call_without_arguments_is_refused_too(file):
    import os

    torch.save({"model": Call(os.getcwd)}, file)
    assert ".getcwd to be called" in refusal(file)


def test_what_a_terminal_would_obey_is_not_shown(file):
    line = refusal(write_archive(file, b"cos\nsys\x1b[2Jtem\n)R."))
    assert "asks for os.sys?[2Jtem to be called" in line
    torch.save({"a\x1b[2J": torch.zeros(1)}, file)
    assert "it holds a?[2J" in refusal(file)


def test_a_placeholder_is_never_called(file):
    program = b"cargparse\nNamespace\n)\x81)R."
    assert "an object of argparse.Namespace to be called" in refusal(write_archive(file, program))


def test_the_line_on_the_console_is_one(file, capsys):
    write_archive(file, PROGRAMS["reduce"][1])
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda _: read_tensors(file), StageConfig, recipes="tokenize", argv=["--output_dir", "x"])
    assert stopped.value.code == 1
    assert "asks for os.system to be called" in tiny.one_line(capsys.readouterr().err)


# Damage


def tensor_program(offset=0, size=(2, 3), stride=(3, 1), count=6, storage="FloatStorage"):
    """A pickle of one tensor of storage 0."""
    numbers = [pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride, count)]
    offset, size, stride, count = (number.replace(b"q\x00", b"") for number in numbers)
    identity = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text("0") + text("cpu") + count + b"tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + identity + offset + size + stride + b"\x89}tR."


SIX = np.arange(6, dtype=np.float32).tobytes()


def test_a_tensor_written_by_hand_is_read(file):
    found = read_state_dict(write_archive(file, tensor_program(), {"0": SIX}))[""]
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"offset": 1}, "reaches outside its storage of 6"),
        ({"offset": -1}, "impossible size"),
        ({"stride": (3, 2)}, "reaches outside its storage of 6"),
        ({"stride": (2**61, 1)}, "reaches outside its storage of 6"),
        ({"stride": (-3, 1)}, "impossible size"),
        ({"size": (2**40, 3), "stride": (0, 0)}, "reaches outside its storage of 6"),
        ({"size": (2**62, 3)}, "impossible size"),
        ({"size": (2, 3, 1)}, "another form"),
        ({"size": (True, 3)}, "impossible size"),
        ({"count": 7}, "has 24 bytes, not 7 values"),
        ({"count": 2**62}, "has 24 bytes, not 4611686018427387904 values"),
        ({"storage": "DoubleStorage"}, "has 24 bytes, not 6 values"),
        ({"storage": "QInt8Storage"}, "a storage of torch.QInt8Storage"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(file, fields, reason):
    assert reason in refusal(write_archive(file, tensor_program(**fields), {"0": SIX}))


def test_a_missing_storage_is_named(file):
    assert "damaged in its part 'data/0'" in refusal(write_archive(file, tensor_program()))


def test_a_flipped_byte_is_found(module, file):
    torch.save({"a": torch.arange(1000.0)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "is damaged in its part 'data/0' (Bad CRC-32" in refusal(file)


def test_a_file_cut_short_is_damaged_wherever_it_is_cut(module, file):
    torch.save(module, file)
    content = file.read_bytes()
    for length in range(4, len(content), 997):
        file.write_bytes(content[:length])
        assert "is cut short or damaged: get it again" in refusal(file)


def test_a_pickle_cut_short_is_damaged_wherever_it_is_cut(file):
    program = pickle.dumps({"a": [1, (2, "three"), {4: 5.0}], "b": {6}}, 2)
    for length in range(len(program)):
        assert "its pickle can't be read" in refusal(write_archive(file, program[:length]))


@pytest.mark.parametrize(
    ("program", "reason"),
    [(b"0.", "stack"), (b"(0.", "stack"), (b"h\x07.", "read (7)"), (b"}]Ns.", "key"), (b"}(]t)s.", "key"), (b"t.", "")],
)
def test_a_broken_pickle_is_one_line(file, program, reason):
    assert reason in refusal(write_archive(file, program))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """(file, its pickle, its storages) of a module, to be written again with other bytes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("fuzzed") / "weights.ckpt"
    torch.save({"model": Block(), "args": argparse.Namespace(lr=0.1)}, file)
    with zipfile.ZipFile(file) as archive:
        storages = {name.split("/")[-1]: archive.read(name) for name in archive.namelist() if "/data/" in name}
        return file, archive.read("weights/data.pkl"), storages


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 9)), min_size=1))
@settings(max_examples=150)
def test_any_other_bytes_are_read_or_refused_in_one_line(fuzzed, changes):
    file, program, storages = fuzzed
    for place, insert, remove in changes:
        at = int(place * len(program))
        program = program[:at] + insert + program[at + remove :]
    write_archive(file, program, storages)
    weights, line = {}, ""
    try:
        weights = read_state_dict(file)
    except UserError as refused:
        line = str(refused)
    assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    assert line.isprintable()


def test_old_files_and_bare_pickles_are_named_as_such(module, file):
    torch.save(module.state_dict(), file, _use_new_zipfile_serialization=False)
    assert "of a torch older than 1.6" in refusal(file)
    file.write_bytes(pickle.dumps({"a": 1}))
    assert "is a bare pickle" in refusal(file)


def test_other_files_are_no_checkpoints(file):
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>"):
        file.write_bytes(content)
        assert "is no file of torch.save" in refusal(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "x")
    assert "no data.pkl in it" in refusal(file)


def test_compressed_parts_are_not_read(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N." + b"0" * 10**6)
    assert "it is compressed" in refusal(file)


def test_big_endian_files_are_refused(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
        archive.writestr("archive/byteorder", b"big")
    assert "big-endian" in refusal(file)


@pytest.mark.parametrize("value", [3, "text", {}, {"epoch": 1}, {"model": {"a": 1}}, [torch.zeros(2)], Path("x")])
def test_a_file_without_weights_says_so(file, value):
    torch.save(value, file)
    line = refusal(file)
    assert "give a state dict" in line or "is no state dict" in line


def test_modules_without_end_are_refused(file):
    inside = b"cx\nModule\n)\x81q\x00}" + text("_modules") + b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00usb."
    assert "modules inside modules without end" in refusal(write_archive(file, inside))


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "nothing.ckpt")
