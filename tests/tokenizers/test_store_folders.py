"""Where stores are written: nothing that lies there is deleted, two that write one keep out of each other's way."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import tiny
from seitpp.runtime import locks
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import HOST
from seitpp.tokenizers import import_tokenizer, store_export, store_import
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset


@pytest.fixture
def config(images, tokenizer_folder, tmp_path):
    def make(output, **fields):
        fields = {"images": str(images), "rows_per_shard": 8, **fields}
        return stage.TokenizeConfig(tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / output), **fields)

    return make


@pytest.fixture
def store(tmp_path):
    return tiny.make_store(tmp_path / "given", tiny.random_ids(9, tiny.CODES, tiny.GRID))


def snapshot(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("resume", ["auto", "none"])
@pytest.mark.parametrize("read", [True, False])
def test_tars_in_the_output_folder_are_never_deleted(config, images, tmp_path, resume, read):
    web = tmp_path / "web"
    web.mkdir()
    for name in ("shard-000000.tar", "shard-000001.tar", "shard-00000.json", "skipped.csv"):
        (web / name).write_text("mine")
    before = snapshot(web)
    wanted = config("web", resume=resume, images=str(web if read else images))
    job = TokenizeJob(wanted, "cpu", images=open_image_folder(images))
    with pytest.raises(UserError, match="choose another --output_dir"):
        job.prepare()
    assert snapshot(web) == before


def test_starting_afresh_removes_the_shards_of_the_former_job_and_nothing_else(config, tmp_path):
    stage.main(config("store"))
    assert {path.name for path in (tmp_path / "store").glob("shard-*.arrow")} == {
        f"shard-{number:05d}.arrow" for number in range(4)
    }
    foreign = ("shard-000000.tar", "shard-00099.arrow", "notes.tmp", ".mine.77.tmp", "shard-notes.json")
    for name in foreign:
        (tmp_path / "store" / name).write_text("mine")
    stage.main(config("store", resume="none", rows_per_shard=30))
    names = {path.name for path in (tmp_path / "store").iterdir()}
    own = {"store.json", "codebook.safetensors", "job.json", "skipped.csv", "shard-00000.arrow", "shard-00000.json"}
    assert names == own | set(foreign)


def test_a_store_that_another_command_made_is_not_written_over(config, store):
    before = snapshot(store)
    for resume in ("auto", "none"):
        with pytest.raises(UserError, match=r"given holds .* and is not a store that seitpp tokenize made"):
            stage.main(config("given", resume=resume))
    assert snapshot(store) == before


def test_the_second_of_two_that_make_a_store_is_refused_and_disturbs_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    (tmp_path / "store").mkdir()
    half = tmp_path / "store" / f".seitpp-shard-00001.arrow.{HOST}.77.tmp"
    hold = (
        "import sys; from pathlib import Path; from seitpp.runtime.locks import *; folder = Path(sys.argv[1]); "
        "lock_folder(folder, remove=True); lock_file(folder / '.seitpp-shard-00001.arrow.lock', ''); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(half.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=tiny.ROOT,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "held\n"
        half.write_text("half")
        with pytest.raises(UserError, match="store is being written by another process"):
            stage.main(config("store"))
        assert half.exists()
        process.kill()
    stage.main(config("store"))
    assert [path.name for path in (tmp_path / "store").glob(".*")] == []


# The other commands that make stores


@pytest.fixture
def exported(store, tmp_path):
    store_export.main(store_export.ExportConfig(store=str(store), format="parquet", out=str(tmp_path / "exported")))
    return tmp_path / "exported"


def imported(exported, output):
    store_import.main(store_import.ImportConfig(source="parquet", data=str(exported), output_dir=str(output)))


def test_an_import_into_a_link_writes_what_it_points_to(exported, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    imported(exported, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(TokenStore(tmp_path / "disk")) == 9


def test_an_import_into_what_it_reads_is_refused(exported):
    before = snapshot(exported)
    for output in (exported / "store", exported, exported.parent):
        with pytest.raises(UserError, match=r"(lies in|is|holds) --data"):
            imported(exported, output)
    assert snapshot(exported) == before


def test_a_url_is_refused_before_any_work(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--source", "parquet", "--data", str(exported), "--output_dir", "s3://bucket/x"]
    with pytest.raises(SystemExit):
        run_command(store_import.main, store_import.ImportConfig, recipes="store", argv=words)
    assert "s3://bucket/x is a URL, which can't be written to" in tiny.one_line(capsys.readouterr().err)
    assert not (tmp_path / "s3:").exists()


def test_a_subset_replaces_a_subset_and_nothing_else(store, tmp_path):
    config = SubsetConfig(store=str(store), output_dir=str(tmp_path / "part"), count=3)
    make_subset(config)
    make_subset(replace(config, count=4))
    assert len(TokenStore(tmp_path / "part")) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.npy").write_text("mine")
    tiny.make_store(tmp_path / "other", tiny.random_ids(2, tiny.CODES, tiny.GRID))
    for name, message in (("mine", "holds rows.npy and is not a subset"), ("other", "and is not a subset")):
        with pytest.raises(UserError, match=message):
            make_subset(replace(config, output_dir=str(tmp_path / name)))
    assert (tmp_path / "mine" / "rows.npy").read_text() == "mine"


def test_a_folder_with_anothers_tokenizer_json_is_not_replaced(tmp_path):
    (tmp_path / "words").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / "words" / name).write_text('{"version": "1.0", "model": {}}')
    before = snapshot(tmp_path)
    config = import_tokenizer.ImportTokenizerConfig(
        kind="ldm", checkpoint="vq.ckpt", output_dir=str(tmp_path / "words"), resume="none"
    )
    with pytest.raises(UserError, match=r"words holds .* and is not a tokenizer"):
        import_tokenizer.main(config)
    assert snapshot(tmp_path) == before


def test_a_tokenizer_is_removed_but_for_what_lies_beside_it(tmp_path):
    folder = tiny.make_tokenizer(tmp_path) / "weights"
    (folder / "notes.txt").write_text("mine")
    before = snapshot(folder)
    with pytest.raises(UserError, match=r"notes.txt is no part of a tokenizer, and would be lost"):
        import_tokenizer.remove_tokenizer(folder)
    assert snapshot(folder) == before
    (folder / "notes.txt").unlink()
    import_tokenizer.remove_tokenizer(folder)
    assert list(folder.iterdir()) == []


def test_saving_a_tokenizer_from_a_program_loses_nothing(tmp_path, tokenizer_folder):
    from seitpp.tokenizers.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"project holds thesis\.tex, which would be lost"):
        tokenizer.save(tmp_path / "project")
    assert (tmp_path / "project" / "thesis.tex").read_text() == "mine"
    tokenizer.save(tmp_path / "new")
    tokenizer.save(tmp_path / "new")
    assert torch.equal(load_tokenizer(tmp_path / "new").codebook, tokenizer.codebook)
