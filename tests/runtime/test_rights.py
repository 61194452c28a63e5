"""Rights of files: the umask is honoured, and a file that may not be read is not called missing or broken."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import torch

import tiny
import toy_training
from seitpp.downstream.robustness import find_classifiers
from seitpp.runtime.command import explain
from seitpp.runtime.files import replacing
from seitpp.runtime.schema import record
from seitpp.runtime.weights import load_weights, save_weights
from seitpp.tokenizers.networks.vq import VQTokenizer
from seitpp.tokens.exchange.codebook_file import read_codebook
from seitpp.tokens.exchange.parquet_rows import ParquetRows
from seitpp.tokens.store import TokenStore
from seitpp.tokens.synonyms import read_synonyms


@pytest.fixture
def umask(request):
    """What a user keeps from others, for the test."""
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


@pytest.fixture
def public():
    """A folder that every user can enter; pytest's own are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="seitpp-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def rights_in(folder):
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


# Writing


@pytest.mark.parametrize("umask", [0o022, 0o007, 0o077], indirect=True, ids=oct)
def test_weights_and_stores_have_the_rights_that_the_umask_leaves(tmp_path, umask):
    save_weights(tmp_path / "weights", {"a": torch.ones(2)}, {"of": "a test"})
    tiny.make_store(tmp_path / "store", tiny.random_ids(3, 37, (2, 3)))
    tiny.make_tokenizer(tmp_path / "tokenizer")
    for name, rights in rights_in(tmp_path).items():
        assert rights == (0o777 if (tmp_path / name).is_dir() else 0o666) & ~umask, name


@pytest.mark.parametrize("umask", [0o022], indirect=True, ids=oct)
@pytest.mark.usefixtures("umask")
def test_checkpoints_have_the_rights_that_the_umask_leaves(tmp_path):
    toy_training.main(toy_training.ToyConfig(output_dir=str(tmp_path), steps=2, trackers=()))
    rights = {name: mode for name, mode in rights_in(tmp_path).items() if not (tmp_path / name).is_dir()}
    assert any(name.endswith("model.safetensors") for name in rights)
    assert {name for name, mode in rights.items() if mode != 0o644} == set()


def test_a_file_that_is_private_already_stays_in_place_if_it_is_a_link(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secret").chmod(0o600)
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "link").symlink_to(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


# Reading


def weights_of(folder):
    save_weights(folder, {"a": torch.ones(2)}, {"of": "a test"})
    return folder


def read_weights_of(folder):
    return load_weights(folder, record({}))


READERS = {
    "model.safetensors": (weights_of, read_weights_of),
    "config.json": (weights_of, read_weights_of),
    "store.json": (lambda folder: tiny.make_store(folder, tiny.random_ids(3, 37, (2, 3))), TokenStore),
    "codebook.safetensors": (
        lambda folder: tiny.make_store(folder, tiny.random_ids(3, 37, (2, 3))),
        lambda folder: (TokenStore(folder).codebook, read_codebook(folder / "codebook.safetensors")),
    ),
    "shard-00000.arrow": (
        lambda folder: tiny.make_store(folder, tiny.random_ids(3, 37, (2, 3))),
        lambda folder: TokenStore(folder).labels,
    ),
    "tokenizer.json": (lambda folder: tiny.make_tokenizer(folder) / "weights", VQTokenizer.load),
    "diffusion_pytorch_model.safetensors": (lambda folder: tiny.make_tokenizer(folder) / "weights", VQTokenizer.load),
}
"""File: (what makes the folder that it lies in, what reads it)."""


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_is_not_called_missing_or_broken(public, request, name):
    make, read = READERS[name]
    file = make(public / "made") / name
    file.chmod(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionError) as raised:
        read(file.parent)
    line = explain(raised.value)
    assert line == f"no permission to write or read {file}: choose another folder or change its rights"


@pytest.mark.parametrize("read", [lambda file: read_synonyms(file, 3), ParquetRows])
def test_a_file_of_others_that_may_not_be_read_is_not_called_broken(public, request, read):
    file = public / "file.json"
    file.touch(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionError) as raised:
        read(file)
    assert str(file) in explain(raised.value)


@pytest.mark.parametrize("read", [ParquetRows, lambda folder: find_classifiers((str(folder),), "a" * 64)])
def test_a_folder_that_may_not_be_looked_into_is_not_called_empty(public, request, read):
    folder = public / "folder"
    folder.mkdir(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionError) as raised:
        read(folder)
    assert str(folder) in explain(raised.value)
