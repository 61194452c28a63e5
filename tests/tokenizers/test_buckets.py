"""Images that stay in a bucket, stores that are written to one: the bytes of a local run, after troubles too."""

import json
import multiprocessing
import os
import signal
import socket
import time

import numpy as np
import pytest

import tiny
from bucket_servers import S3
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.remote import place as remote_place
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.store_place import bucket as bucket_place
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokenizers.tokenize_ray import ShardMaker, TokenizeRayConfig
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore, open_store

SIZE = tiny.IMAGE_SIZE


@pytest.fixture(scope="module")
def running(images):
    """A server whose s3://bucket/train holds the 30 images."""
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir("bucket")
        server.upload(images, "train")
        yield server
        fsspec.filesystem("s3").clear_instance_cache()
    server.close()


@pytest.fixture
def s3(running, monkeypatch, tmp_path):
    """The same, without former troubles; nobody waits long for it."""
    running.asked.clear()
    running.troubles, running.slow, running.hits = [], 0.0, lambda method, path: "/bucket/" in path
    monkeypatch.setenv("SEITPP_CACHE", str(tmp_path / "cache"))
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(f"seitpp.tokens.transfer.{name}", 0.01)
    return running


@pytest.fixture
def config(tmp_path, tokenizer_folder):
    def make(images="s3://bucket/train", output=None, **fields):
        fields = {"tokenizer": str(tokenizer_folder), "rows_per_shard": 8, "workers": 4, **fields}
        return stage.TokenizeConfig(images=str(images), output_dir=str(output or tmp_path / "store"), **fields)

    return make


@pytest.fixture(scope="module")
def whole(images, tokenizer_folder, tmp_path_factory):
    """{name: bytes} of the store that a local run makes."""
    folder = tmp_path_factory.mktemp("local") / "store"
    stage.main(
        stage.TokenizeConfig(
            images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(folder), rows_per_shard=8
        )
    )
    return content(folder)


def content(folder):
    """{name: bytes} of all visible files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def same_store(made, whole):
    """A store from a bucket is that from a folder; only job.json says of which listing it is."""
    job, local = json.loads(made["job.json"]), json.loads(whole["job.json"])
    assert len(job.pop("images listed")) == 64
    assert job == local
    assert {**made, "job.json": b""} == {**whole, "job.json": b""}


def pages(s3):
    """Requests that list images."""
    return [query for _, _, query in s3.asked if "list-type=2" in query and "prefix=train" in query]


# Images


def test_a_folder_in_a_bucket_is_that_folder(s3, images):
    local, remote = open_image_folder(images), open_source("s3://bucket/train/")
    assert remote.keys == local.keys
    assert remote.classes == local.classes
    assert remote.labels.tolist() == local.labels.tolist()
    assert remote.sizes(range(30)).tolist() == local.sizes(range(30)).tolist()
    assert remote.where(14) == "s3://bucket/train/bee/001.png"
    assert np.array_equal(remote.read(14, SIZE), local.read(14, SIZE))


def test_what_is_no_image_is_left_out_as_in_a_folder(s3, tmp_path):
    folder = tiny.make_images(tmp_path / "odd", {"ant": 1, "bee": 1, ".cache": 1})
    for name in ("notes", "ant/a.xyz", "ant/.b.png", "dew/readme.txt", "bee/deep/deeper/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    s3.upload(folder, "odd")
    remote, local = open_source("s3://bucket/odd"), open_image_folder(folder)
    assert remote.keys == local.keys == ["ant/000.png", "bee/000.png"]
    hidden = {(each.file.split("/")[0], each.kind) for each in remote.left_out if ".cache" in each.file}
    assert hidden == {(".cache", "hidden or system folder")}
    assert remote.left_out == local.left_out


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("s3://bucket/nothing", r"s3://bucket/nothing holds no images: expected .* check --images"),
        ("s3://bucket/nothing.tar", r"s3://bucket/nothing\.tar is not there: check --images"),
        ("s3://bucket/no*.tar", r"no file fits s3://bucket/no\*\.tar: check --images"),
        ("s3://other-bucket/train", r"holds no images|is not there"),
        ("file:///etc", r"file:///etc is of no kind .* \(s3://, .*\): a folder of this machine is named without file:"),
        ("zip://x.tar::s3://bucket/a.zip", r"is of no kind that is read"),
        ("simplecache::s3://bucket/train", r"is of no kind that is read"),
        ("ftp://host/a.tar", r"ftp://host/a.tar is of no kind that is read"),
        ("s3://bucket/a.tar,https://host/b.tar", r"name tars of one kind of place at a time"),
        ("https://host/train", r"a web server lists no images: name \.tar files"),
        ("s3://bucket/{9..0}.tar", r"\{9\.\.0\} counts backwards"),
        ("s3://bucket/{0..9999}{0..9999}.tar", r"makes more than 1,000,000 names"),
    ],
)
def test_what_can_not_be_opened_is_one_line(s3, spec, words):
    with pytest.raises(UserError, match=words) as raised:
        open_source(spec)
    tiny.one_line(str(raised.value))


def test_without_credentials_nothing_is_tried_twice(s3, monkeypatch):
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"s3://bucket/train: no access \(Unable to locate credentials\)"):
        open_source("s3://bucket/train")
    fsspec.filesystem("s3").clear_instance_cache()


def test_an_image_that_changed_since_it_was_listed_ends_the_job(s3, tmp_path):
    folder = tiny.make_images(tmp_path / "new", {"ant": 2})
    s3.upload(folder, "new")
    source = open_source("s3://bucket/new")
    (folder / "ant" / "001.png").write_bytes(b"longer" + (folder / "ant" / "001.png").read_bytes())
    s3.upload(folder, "new")
    with pytest.raises(UserError, match=r"s3://bucket/new/ant/001\.png has changed since it was listed"):
        source.read(1, SIZE)


# Stores


def test_a_store_of_a_bucket_is_byte_for_byte_that_of_the_folder(s3, config, whole, tmp_path):
    stage.main(config())
    same_store(content(tmp_path / "store"), whole)
    assert len(pages(s3)) == 5  # its root twice, and each class folder
    gets = [path for method, path, query in s3.asked if method == "GET" and path.endswith(".png")]
    assert sorted(gets) == sorted(set(gets))
    assert len(gets) == 30


def test_a_store_is_written_to_a_bucket_shard_by_shard_and_its_manifest_last(s3, config, whole, capsys):
    stage.main(config(output="s3://bucket/stores/train/"))
    same_store(s3.content("stores/train"), whole)
    assert capsys.readouterr().out.splitlines()[-1] == "s3://bucket/stores/train: 30 images, 3 classes, 0 skipped"
    puts = [path.rsplit("/", 1)[-1] for method, path, _ in s3.asked if method == "PUT"]
    assert puts[:2] == ["job.json", "listing.arrow"]
    assert puts[2:-3] == [f"shard-{number:05d}.{ending}" for number in range(4) for ending in ("arrow", "json")]
    assert puts[-3:] == ["skipped.csv", "codebook.safetensors", "store.json"]
    assert not list((CacheConfig().path / "uploads").iterdir())
    store = open_store("s3://bucket/stores/train")
    store.verify()
    assert len(store) == 30


def test_a_coded_store_in_a_bucket_is_the_coded_store_of_a_folder(s3, config, images, tmp_path):
    many = tiny.make_images(tmp_path / "many", {"ant": 40, "bee": 40})
    fields = {"images": many, "coding": "auto", "rows_per_shard": 50}
    stage.main(config(output=tmp_path / "coded", **fields))
    stage.main(config(output="s3://bucket/stores/coded", **fields))
    assert s3.content("stores/coded") == content(tmp_path / "coded")


def test_finished_shards_are_not_made_again(s3, config, whole, tmp_path):
    wanted = config(output="s3://bucket/stores/half")
    job = TokenizeJob(wanted, "cpu")
    stage.make_shards(job, [job.shards[number] for number in job.prepare()][:2], job.tokenizer.codebook.device)
    del job
    s3.asked.clear()
    stage.main(wanted)
    same_store(s3.content("stores/half"), whole)
    assert not pages(s3)  # they are known from the listing
    made = [path for method, path, _ in s3.asked if method == "PUT" and path.endswith(".arrow") and "shard" in path]
    assert made == ["/bucket/stores/half/shard-00002.arrow", "/bucket/stores/half/shard-00003.arrow"]


def test_other_images_under_the_same_names_are_refused(s3, config, tmp_path):
    folder = tiny.make_images(tmp_path / "twice", {"ant": 3, "bee": 2})
    s3.upload(folder, "twice")
    stage.main(config("s3://bucket/twice"))
    (folder / "bee" / "001.png").write_bytes((folder / "bee" / "000.png").read_bytes() + b"x")
    s3.upload(folder, "twice")
    with pytest.raises(UserError, match=r"holds a store of other input \(images listed differs\)"):
        stage.main(config("s3://bucket/twice"))
    stage.main(config("s3://bucket/twice", resume="none"))
    assert len(TokenStore(tmp_path / "store")) == 5


def test_a_folder_of_a_bucket_that_is_another_s_is_left_alone(s3, config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    s3.upload(tmp_path / "mine", "mine")
    for resume in ("auto", "none"):
        with pytest.raises(UserError, match=r"s3://bucket/mine holds thesis\.tex and is not a store"):
            stage.main(config(output="s3://bucket/mine", resume=resume))
    assert s3.content("mine") == {"thesis.tex": b"words"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"output": "s3://bucket/train"},
            r"--output_dir s3://bucket/train is --images s3://bucket/train, which",
        ),
        ({"output": "s3://bucket/train/x"}, r"lies in --images s3://bucket/train"),
        ({"output": "s3://bucket/"}, r"holds --images|is a whole bucket: name a folder in it"),
        ({"output": "https://host/store"}, r"https://host/store is of no kind that is read or written here \(s3://"),
        ({"output": "file:///tmp/x"}, r"is of no kind"),
    ],
)
def test_where_a_store_can_not_go_is_one_line(s3, config, fields, words):
    with pytest.raises(UserError, match=words) as raised:
        stage.main(config(**fields))
    tiny.one_line(str(raised.value))
    assert not [path for method, path, _ in s3.asked if method in ("PUT", "DELETE")]


def test_other_stages_still_refuse_to_write_to_a_url(capsys):
    from seitpp.tokenizers.train import TrainTokenizerConfig, main

    with pytest.raises(SystemExit):
        run_command(main, TrainTokenizerConfig, recipes="tokenizer", argv=["--images", "a", "--output_dir", "s3://b/c"])
    assert "--output_dir s3://b/c is a URL, which can't be written to" in tiny.one_line(capsys.readouterr().err)


# Troubles


def test_troubles_that_pass_change_nothing(s3, config, whole):
    s3.troubles = [503, None, 500, 503, None, None, 429, None] * 6
    stage.main(config(output="s3://bucket/stores/troubled"))
    assert s3.troubles == []
    same_store(s3.content("stores/troubled"), whole)


def test_a_trouble_that_stays_is_one_line_and_the_same_command_goes_on(s3, config, whole, monkeypatch):
    for module in (remote_place, bucket_place):
        monkeypatch.setattr(module, "ATTEMPTS", 2)
    wanted = config(output="s3://bucket/stores/stopped")
    s3.troubles = [503] * 500
    s3.hits = lambda method, path: path.endswith("shard-00001.arrow") and method != "GET"
    with pytest.raises(UserError, match=r"shard-00001\.arrow can't be uploaded \(") as raised:
        stage.main(wanted)
    tiny.one_line(str(raised.value))
    s3.troubles = []
    stage.main(wanted)
    same_store(s3.content("stores/stopped"), whole)


def test_unreadable_images_are_skipped_and_listed_in_the_bucket(s3, config, tmp_path):
    folder = tiny.make_images(tmp_path / "some", {"ant": 5, "bee": 3})
    (folder / "bee" / "001.png").write_bytes(b"no picture")
    s3.upload(folder, "some")
    stage.main(config("s3://bucket/some", "s3://bucket/stores/some", max_skipped=0.5))
    made = s3.content("stores/some")
    assert made["skipped.csv"].decode().splitlines()[1].startswith("bee/001.png,not decodable: it is no image")
    with pytest.raises(UserError, match=r"1 of 8 images can't be decoded \(first: s3://bucket/some/bee/001\.png: "):
        stage.main(config("s3://bucket/some", "s3://bucket/stores/some-more"))
    s3.upload(tiny.make_images(tmp_path / "mended", {"bee": 3}), "some")
    assert "store.json" not in s3.content("stores/some-more")


@pytest.mark.slow
def test_killed_again_and_again_the_store_in_the_bucket_is_that_of_an_uninterrupted_run(s3, config, whole, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["seitpp.tokenizers.tokenize", "accelerate", "diffusers.models.autoencoders.vq_model"]
    )
    wanted, kills = config(output="s3://bucket/stores/killed"), 0
    for shards in (1, 2, 3):
        s3.asked.clear()
        s3.slow = 0.03
        process = context.Process(target=_make, args=(wanted, dict(os.environ)))
        process.start()
        done = f"shard-{shards - 1:05d}.json"
        while process.is_alive() and not any(m == "PUT" and p.endswith(done) for m, p, _ in s3.asked):
            time.sleep(0.005)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    assert kills >= 2
    s3.slow = 0.0
    stage.main(wanted)
    same_store(s3.content("stores/killed"), whole)


def _make(config, environment):
    os.environ.update(environment)
    stage.main(config)


@pytest.mark.slow
def test_two_processes_list_the_bucket_once_and_make_the_bytes_of_one(s3, config, whole, tmp_path):
    context = multiprocessing.get_context("forkserver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    wanted = config(output="s3://bucket/stores/several")
    running = [context.Process(target=_as_rank, args=(rank, port, wanted, dict(os.environ))) for rank in (0, 1)]
    for process in running:
        process.start()
    for process in running:
        process.join(100)
    assert [process.exitcode for process in running] == [0, 0]
    same_store(s3.content("stores/several"), whole)
    assert len(pages(s3)) == 5


def _as_rank(rank, port, config, environment):
    os.environ |= {
        **environment, "ACCELERATE_USE_CPU": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    stage.main(config)


def test_workers_of_ray_read_the_same_addresses_and_make_the_same_bytes(s3, config, whole):
    fields = {name: getattr(config(), name) for name in ("images", "tokenizer", "rows_per_shard", "workers")}
    wanted = TokenizeRayConfig(output_dir="s3://bucket/stores/ray", resume="none", **fields)
    job = TokenizeJob(wanted, "cpu")  # what the command does, and its workers, wherever Ray has them
    workers, missing = [ShardMaker(wanted), ShardMaker(wanted)], job.prepare()
    listed = len(pages(s3))
    for number in missing:
        answer = workers[number % 2]({"number": np.array([number])})
        assert answer["problem"] == [""]
    job.finish()
    same_store(s3.content("stores/ray"), whole)
    assert len(pages(s3)) == listed == 5
