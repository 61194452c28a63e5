"""Reading torch.save files: everything that is data comes back, nothing that is code runs."""

import argparse
import functools
import os
import pickle
import shutil
import struct
import sys
import time
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
from seitpp.runtime.foreign.state_dict import read_state_dict
from seitpp.runtime.foreign.torch_file import Placeholder, read_tensors


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
        self.folder, self.root, self.table = Path("a/b"), np.float64(0.5), np.arange(3)
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
    torch.save(value, file)
    assert read_tensors(file) == value


def test_an_object_is_kept_as_its_name_and_its_attributes(file):
    torch.save({"args": argparse.Namespace(lr=0.1, name="x")}, file)
    kept = read_tensors(file)["args"]
    assert isinstance(kept, Placeholder)
    assert (kept.named, kept.state) == ("argparse.Namespace", {"lr": 0.1, "name": "x"})


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


def write_archive(file, program, records=None, *, folder="archive", byteorder=b"little"):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", program)
        archive.writestr(f"{folder}/version", b"3\n")
        archive.writestr(f"{folder}/byteorder", byteorder)
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
    touch, write = f"touch {marker}", f"__import__('pathlib').Path({marker!r}).touch()"
    shell, arguments = b"csubprocess\ngetoutput\n", b"(" + text(touch) + b"t"
    yield "reduce", "subprocess.getoutput", shell + arguments + b"R."
    stacked = b"\x80\x04" + text("subprocess") + text("getoutput") + b"\x93"
    yield "reduce in protocol 4", "protocol 4", stacked + arguments + b"R."
    yield "reduce in hidden protocol 4", "operand 147", stacked[2:] + arguments + b"R."
    yield "inst", "operand 105", b"(" + text(touch) + b"isubprocess\ngetoutput\n."
    yield "obj", "operand 111", b"(" + shell + text(touch) + b"o."
    yield "eval", "builtins.eval", b"cbuiltins\neval\n(" + text(write) + b"tR."
    yield "exec", "builtins.exec", b"cbuiltins\nexec\n(" + text(write) + b"tR."
    yield "old eval", "builtins.eval", b"c__builtin__\neval\n(" + text(write) + b"tR."
    dotted = text("subprocess") + text("getoutput.__call__") + b"\x93"
    yield "dotted", "protocol 4", b"\x80\x04" + dotted + arguments + b"R."
    dotted = b"csubprocess\ngetoutput.__call__\n"
    yield "dotted in protocol 2", "subprocess.getoutput.__call__", dotted + arguments + b"R."
    yield "getattr", "builtins.getattr", b"cbuiltins\ngetattr\n(" + shell + text("__call__") + b"tR" + arguments + b"R."
    yield "partial", "functools.partial", b"cfunctools\npartial\n(" + shell + text(touch) + b"tR)R."
    yield "map", "builtins.map", b"cbuiltins\nlist\n(cbuiltins\nmap\n(" + shell + b"](" + text(touch) + b"etRtR."
    state = b"cargparse\nNamespace\n)\x81}" + text("a") + shell
    yield "in a state", "subprocess.getoutput", state + arguments + b"Rsb."
    yield "as an object", "subprocess.Popen", b"csubprocess\nPopen\n(" + text(touch) + b"tR."
    reconstructor = b"ccopy_reg\n_reconstructor\n(" + shell + b"cbuiltins\nobject\nNtR"
    yield "copyreg", "copyreg._reconstructor", reconstructor + arguments + b"R."
    setstate = b"cargparse\nNamespace\n)\x81}" + text("__setstate__") + shell + b"sb" + text(touch) + b"b"
    yield "setstate", "argparse.Namespace", setstate + b")R."
    yield "setstate and more", "operand 48", setstate + b"q\x000" + shell + b"h\x00)R."
    append = b"cargparse\nNamespace\n)\x81}" + text("append") + shell + b"sb"
    yield "append", "argparse.Namespace", append + text(touch) + b"a."
    yield "extend", "argparse.Namespace", append.replace(b"append", b"extend") + b"(" + text(touch) + b"e."
    yield "items of a class", "_Inert", b"cshutil\nwhich\n" + text("A") + text("B") + b"s."
    yield "attributes of a class", "only build", b"ctorch.nn\nModule\n}" + text("forward") + shell + b"sb."
    yield "slots of a class", "only build", b"ctorch.nn\nModule\n}}" + text("forward") + shell + b"s\x86b."
    yield "extension", "operand 130", b"\x80\x02\x82\x01."
    yield "extension 2", "operand 131", b"\x80\x02\x83\x01\x00."
    yield "extension 4", "operand 132", b"\x80\x02\x84\x01\x00\x00\x00."
    yield "persistent text", "operand 80", b"Pmodule\n."
    storage = b"(" + text("storage") + shell + text("0") + text("cpu")
    yield "odd storage", "subprocess.getoutput", storage + b"K\x01tQ."
    yield "object of a call", "got {}", b"}(" + text(touch) + b"t\x81."
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + shell + b"ctorch\nTensor\n" + arguments + b"}tR."
    yield "call through torch", "subprocess.getoutput", rebuild
    for module in ("os", "posix", "nt", "sys"):
        yield f"named of {module}", f"{module}.system", f"c{module}\nsystem\n.".encode()


PROGRAMS = {name: (named, program) for name, named, program in hostile("MARKER")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_pickle_runs_nothing(file, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    named, program = PROGRAMS[name]
    assert named in refusal(write_archive(file, program))
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize(
    "name", ["reduce", "reduce in protocol 4", "inst", "obj", "eval", "exec", "dotted", "partial", "map", "in a state"]
)
def test_the_hostile_pickles_would_run_elsewhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PROGRAMS[name][1])
    assert (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("function", [os.system, shutil.rmtree])
@pytest.mark.parametrize("where", ["alone", "beside weights", "in an attribute", "as an argument"])
def test_torch_files_with_a_call_in_them_are_refused(file, tmp_path, function, where):
    marker = tmp_path / "marker"
    call = Call(function, f"touch {marker}")
    value = {
        "alone": call,
        "beside weights": {"model": {"a": torch.zeros(2)}, "args": call},
        "in an attribute": argparse.Namespace(deep=[{"a": call}]),
        "as an argument": functools.partial(print, call),
    }[where]
    torch.save(value, file)
    assert f"{function.__module__}.{function.__name__}" in refusal(file)
    assert not marker.exists()


def test_a_call_without_arguments_is_refused_too(file):
    torch.save({"model": Call(time.time)}, file)
    assert "time.time" in refusal(file)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_newer_pickle_protocols_are_named(file, protocol):
    torch.save({"a": torch.zeros(2)}, file, pickle_protocol=protocol)
    assert f"protocol {protocol}" in refusal(file)


class Allowed:
    """A class that some other package has allowed to be made."""

    def __setstate__(self, state):
        raise AssertionError("nothing of the file runs")

    def __getstate__(self):
        return {"a": 1}


@pytest.mark.parametrize("beside", [[], Call(time.time)])
def test_what_others_allow_is_not_made_here_and_stays_allowed_there(file, beside):
    torch.save([Allowed(), beside], file)
    with torch.serialization.safe_globals([Allowed]):
        if beside:
            assert "time.time" in refusal(file)
        else:
            assert read_tensors(file)[0].state == {"a": 1}
        assert Allowed in torch.serialization.get_safe_globals()
    assert Allowed not in torch.serialization.get_safe_globals()


def test_what_a_terminal_would_obey_is_not_shown(file):
    assert "a.b?[2Jc" in refusal(write_archive(file, b"ca\nb\x1b[2Jc\n)R."))
    torch.save({"a\x1b[2J": torch.zeros(1)}, file)
    assert "it holds a?[2J" in refusal(file)


def test_a_placeholder_is_never_called(file):
    program = b"cargparse\nNamespace\n)\x81)R."
    assert "an object of argparse.Namespace" in refusal(write_archive(file, program))


def test_the_line_on_the_console_is_one(file, capsys):
    write_archive(file, PROGRAMS["reduce"][1])
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda _: read_tensors(file), StageConfig, recipes="tokenize", argv=["--output_dir", "x"])
    assert stopped.value.code == 1
    assert "subprocess.getoutput" in tiny.one_line(capsys.readouterr().err)


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
        ({"offset": 1}, "storage"),
        ({"offset": -1}, "-1"),
        ({"stride": (3, 2)}, "storage"),
        ({"stride": (2**61, 1)}, str(2**61)),
        ({"stride": (-3, 1)}, "-3"),
        ({"size": (2**40, 3), "stride": (0, 0)}, str(3 * 2**40)),
        ({"size": (2**62, 3)}, "overflow"),
        ({"size": (2, 3, 1)}, "3"),
        ({"size": (True, 3)}, "set_"),
        ({"size": (-2, 3)}, "overflow"),
        ({"count": 7}, "6 values"),
        ({"count": 2**62}, "6 values"),
        ({"count": -6}, "storage"),
        ({"storage": "DoubleStorage"}, "6 values"),
        ({"storage": "QInt8Storage"}, "form"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(file, fields, reason):
    assert reason in refusal(write_archive(file, tensor_program(**fields), {"0": SIX}))


@pytest.mark.parametrize("record", [10**6, 2**30])
def test_a_storage_larger_than_its_part_is_refused(file, record):
    """As CVE-2026-24747 has it: torch before 2.10 would read, and write, outside the part's memory."""
    body = tensor_program(size=(record,), stride=(1,), count=record)[2:-1]
    written = b"\x80\x02(" + body + b"q\x01K\x05cbuiltins\ncomplex\n(K\x01K\x00tRs\x75h\x01."
    for program in (b"\x80\x02" + body + b".", written):
        refusal(write_archive(file, program, {"0": SIX}))


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(2).to_sparse(), torch.empty(2, device="meta"), torch.ones(2, dtype=torch.complex64).conj()],
    ids=["sparse", "meta", "conjugate"],
)
def test_a_tensor_of_another_form_is_refused(file, tensor):
    torch.save({"a": tensor}, file)
    assert "damaged" in refusal(file)


def test_attributes_in_a_file_hide_no_method(file):
    parameter = nn.Parameter(torch.ones(2))
    parameter.detach = "nothing to call"
    torch.save({"a": parameter}, file)
    assert_same(read_state_dict(file), {"a": torch.ones(2)})
    shadowed = b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"K\x05sb"
    write_archive(file, shadowed + text("a") + tensor_program()[2:-1] + b"s.", {"0": SIX})
    assert_same(read_state_dict(file), {"a": torch.arange(6.0).reshape(2, 3)})


def test_weights_stay_though_the_file_changes_and_the_file_though_they_change(file):
    torch.save({"a": torch.arange(10**5)}, file)
    content = file.read_bytes()
    weights = read_state_dict(file)
    weights["a"][:] += 1
    assert file.read_bytes() == content
    with file.open("r+b") as written:
        written.write(bytes(len(content)))
    assert torch.equal(weights["a"], torch.arange(1, 10**5 + 1))


def test_a_missing_storage_is_named(file):
    assert "data/0" in refusal(write_archive(file, tensor_program()))


def test_a_flipped_byte_is_found(file):
    torch.save({"a": torch.arange(1000.0)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "data/0 (wrong CRC-32)" in refusal(file)


def test_a_file_cut_short_is_damaged_wherever_it_is_cut(module, file):
    torch.save(module, file)
    content = file.read_bytes()
    for length in range(4, len(content), 997):
        file.write_bytes(content[:length])
        assert "is cut short or damaged: get it again" in refusal(file)


def test_a_pickle_cut_short_is_damaged_wherever_it_is_cut(file):
    program = pickle.dumps({"a": [1, (2, "three"), {4: 5.0}], "b": {6}}, 2)
    for length in range(len(program)):
        refusal(write_archive(file, program[:length]))


@pytest.mark.parametrize(
    ("program", "reason"),
    [(b"0.", "operand 48"), (b"R.", "pop"), (b"h\x07.", "(7)"), (b"}]Ns.", "list"), (b"}(]t)s.", "list"), (b"t.", "")],
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
    assert "compressed" in refusal(file)


def test_parts_that_overlap_are_not_read(file):
    write_archive(file, tensor_program(), {"0": SIX * 1000})
    with zipfile.ZipFile(file, "a") as archive:
        archive.filelist *= 3
        archive._didModify = True
    assert "overlap" in refusal(file)


def test_a_compiled_module_is_no_checkpoint(file):
    write_archive(file, b"N.")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", b").")
    assert "torchscript" in refusal(file)


def test_big_endian_files_are_read(file):
    content = np.arange(6, dtype=">f4").tobytes()
    found = read_state_dict(write_archive(file, tensor_program(), {"0": content}, byteorder=b"big"))[""]
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


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
