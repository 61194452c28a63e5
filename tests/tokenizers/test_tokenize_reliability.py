"""Tokenising survives: kills, full disks, broken shards, a process that fails among several, readers meanwhile."""

import errno
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.sources.decode_ahead import AHEAD, decoded_batches
from seitpp.tokenizers.sources.pixels import BrokenImage
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokens.store import TokenStore

ROOT = tiny.ROOT


@pytest.fixture
def config(tmp_path, images, tokenizer_folder):
    """Configurations of one-image shards of the 30 images."""

    def make(output="store", **fields):
        fields = {"images": str(images), "tokenizer": str(tokenizer_folder), "rows_per_shard": 1, **fields}
        return stage.TokenizeConfig(output_dir=str(tmp_path / output), **fields)

    return make


@pytest.fixture
def processes():
    """Fresh processes that have imported already what takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["seitpp.tokenizers.tokenize", "accelerate", "diffusers.models.autoencoders.vq_model"]
    )
    return context


def content(folder):
    """{name: bytes} of all visible files."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


def flags(config):
    """The command line of a configuration, without the defaults that are None."""
    return [word for name, value in vars(config).items() if value is not None for word in (f"--{name}", str(value))]


def finished(folder):
    """Shards that are done."""
    return sorted(path.stem for path in Path(folder).glob("shard-*.json"))


# Kills


@pytest.mark.slow
def test_killed_at_five_random_moments_the_store_is_that_of_an_uninterrupted_run(config, processes, tmp_path):
    moments = random.Random(5)
    many = str(tiny.make_images(tmp_path / "many", {"ant": 90, "bee": 70}))
    killed, former = config("killed", images=many), 0
    for _ in range(5):
        shards = former + moments.randint(1, 20)
        process = processes.Process(target=stage.main, args=(killed,))
        process.start()
        while len(finished(killed.output_dir)) < shards and process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.004))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert former < len(finished(killed.output_dir)) < 160
        assert not (tmp_path / "killed" / "store.json").exists()
        former = len(finished(killed.output_dir))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("shard-*.json")}
    stage.main(killed)
    stage.main(config("whole", images=many))
    assert content(killed.output_dir) == content(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in times} == times  # what was done was not made again
    assert [path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_process_had_half_written_is_removed(config, tmp_path):
    (tmp_path / "store").mkdir()
    half = [
        tmp_path / "store" / name
        for name in (".shard-00003.arrow.77.tmp", ".shard-00003.json.77.tmp", ".store.json.7.tmp")
    ]
    for path in half:
        path.write_bytes(b"half")
    stage.main(config())
    assert not any(path.exists() for path in half)


def test_a_shard_that_was_cut_off_is_made_again_by_the_same_command(config, tmp_path):
    stage.main(config(rows_per_shard=8))
    before = content(tmp_path / "store")
    path = tmp_path / "store" / "shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="cut off or broken"):
        TokenStore(tmp_path / "store").verify()
    stage.main(config(rows_per_shard=8))
    assert content(tmp_path / "store") == before


def test_a_sidecar_that_is_no_json_only_costs_its_shard(config, tmp_path):
    stage.main(config(rows_per_shard=8))
    before = content(tmp_path / "store")
    (tmp_path / "store" / "shard-00001.json").write_text("")
    stage.main(config(rows_per_shard=8))
    assert content(tmp_path / "store") == before


# Full disks


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_was_finished_stays(config, tmp_path):
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    inside = 'mount -t tmpfs -o size=100k none "$1" || exit 77; shift; "$@"; code=$?; cp -r {} {}; exit $code'
    words = [sys.executable, "-m", "seitpp.tokenizers.tokenize", *flags(config("small"))]
    try:
        done = subprocess.run(
            [*mount, inside.format(small, kept), "sh", str(small), *words], cwd=ROOT, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here, which gives a small disk without rights")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this system gives no small disk without rights")
    line = tiny.one_line(done.stderr)
    assert done.returncode == 1
    assert line.startswith("error: no space left on the disk while writing ")
    assert line.endswith(": free some and start again")
    assert 1 <= len(finished(kept)) < 30
    times = {path: path.stat().st_mtime_ns for path in kept.glob("shard-*.json")}
    stage.main(config("kept"))
    stage.main(config("whole"))
    assert content(kept) == content(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in times} == times


# Several processes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_make_the_store_that_one_makes(config, tmp_path):
    several = config("several", rows_per_shard=4, batch_size=3)
    done = tiny.run(
        "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port(),
        "-m", "seitpp.tokenizers.tokenize", *flags(several), ACCELERATE_USE_CPU="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stage.main(config("one", rows_per_shard=4, batch_size=3))
    assert content(tmp_path / "several") == content(tmp_path / "one")


def as_rank(rank, port, argv, error_file):
    """Be one process of two, as a launcher starts them."""
    os.dup2(os.open(error_file, os.O_CREAT | os.O_WRONLY), 2)
    os.environ |= {
        "ACCELERATE_USE_CPU": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    run_command(stage.main, stage.TokenizeConfig, recipes="tokenize", argv=argv)


@pytest.fixture
def launch(processes, tmp_path):
    """Run two processes that no launcher ends when one of them fails; returns exit codes and errors."""

    def start(*configs):
        port, files = free_port(), [tmp_path / f"errors {rank}" for rank in (0, 1)]
        running = [
            processes.Process(target=as_rank, args=(rank, port, flags(config), str(file)))
            for rank, (config, file) in enumerate(zip(configs, files, strict=True))
        ]
        for process in running:
            process.start()
        for process in running:
            process.join(100)
            process.kill()
        return [process.exitcode for process in running], [file.read_text() for file in files]

    return start


def test_an_error_of_one_process_ends_all_of_them_each_with_one_line(launch, config, tmp_path):
    TokenizeJob(config(), "cpu").prepare()
    (tmp_path / "store" / "shard-00003.arrow").mkdir()  # process 1 can't write this one
    codes, errors = launch(config(), config())
    assert codes == [1, 1]
    assert tiny.one_line(errors[1]).startswith("error: process 1: Is a directory: ")
    assert tiny.one_line(errors[0]).startswith("error: another process ended before its work was done")
    assert set(finished(tmp_path / "store")) >= {f"shard-{number:05d}" for number in range(0, 30, 2)}
    (tmp_path / "store" / "shard-00003.arrow").rmdir()
    stage.main(config())
    stage.main(config("whole"))
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_an_error_that_all_processes_meet_is_said_once(launch, config, tmp_path):
    (tmp_path / "empty").mkdir()
    codes, errors = launch(*[config(images=str(tmp_path / "empty"))] * 2)
    assert codes == [1, 1]
    assert "holds no images" in tiny.one_line(errors[0])
    assert errors[1] == ""


def test_an_error_that_one_process_meets_at_its_start_is_said_by_the_main_one(launch, config, tmp_path):
    codes, errors = launch(config(), config(images=str(tmp_path / "nowhere")))
    assert codes == [1, 1]
    assert tiny.one_line(errors[0]).startswith(f"error: process 1: {tmp_path}/nowhere is not a folder of images")
    assert errors[1] == ""
    assert not (tmp_path / "store").exists()


# Broken images


def test_the_job_ends_as_soon_as_more_images_are_broken_than_may_be(config, tmp_path):
    own = tiny.make_images(tmp_path / "own", {"ant": 10})
    for name in ("001", "002"):
        (own / "ant" / f"{name}.png").write_text("no image")
    job = config(images=str(own), max_skipped=0.15)
    with pytest.raises(UserError, match=r"2 of 10 images can't be decoded \(first: .*ant/001\.png: it is no image"):
        stage.main(job)
    assert finished(tmp_path / "store") == ["shard-00000"]  # those with broken images are to be read again


class FailingDisk:
    """A source whose disk fails at one row."""

    def read(self, row, size, resize):
        if row == 5:
            raise OSError(errno.EIO, "Input/output error", "/photos/5.png")
        return np.full((3, *size), row, np.uint8)


def test_a_disk_that_fails_is_an_error_and_no_broken_image():
    with ThreadPoolExecutor(2) as threads, pytest.raises(OSError, match=r"Input/output error.*5\.png"):
        list(decoded_batches(FailingDisk(), range(9), (2, 3), 2, threads))


class CountingSource:
    """A source that knows how many of its images were asked for."""

    def __init__(self):
        self.read_rows = []

    def read(self, row, size, resize):
        self.read_rows.append(row)
        if row % 7 == 3:
            raise BrokenImage("odd")
        return np.full((3, *size), row, np.uint8)


def test_decoding_runs_ahead_by_a_bounded_number_of_batches_and_keeps_the_order():
    source, seen = CountingSource(), []
    with ThreadPoolExecutor(3) as threads:
        for number, (pixels, rows, skipped) in enumerate(decoded_batches(source, range(4, 40), (2, 3), 5, threads)):
            time.sleep(0.005)
            assert len(source.read_rows) <= 5 * (number + 1 + AHEAD)
            assert pixels.shape == (len(rows), 3, 2, 3)
            assert pixels[:, 0, 0, 0].tolist() == rows
            assert [row % 7 for row, _ in skipped] == [3] * len(skipped)
            assert [reason for _, reason in skipped] == ["odd"] * len(skipped)
            seen += sorted([*rows, *(row for row, _ in skipped)])
    assert seen == list(range(4, 40))


# Readers meanwhile


def read_until(store_folder, stop, ready, failed):
    """Read a store again and again; each time all rows must be those of the first time."""
    store = TokenStore(store_folder)
    first, keys = store.ids(range(len(store))), store.keys()
    ready.release()
    while not stop.is_set():
        if not torch.equal(store.ids(range(len(store))), first) or store.keys() != keys:
            failed.set()


def test_two_processes_read_while_a_third_makes_missing_shards_again(config, processes, tmp_path):
    stage.main(config())
    before = content(tmp_path / "store")
    stop, ready, failed = processes.Event(), processes.Semaphore(0), processes.Event()
    readers = [
        processes.Process(target=read_until, args=(str(tmp_path / "store"), stop, ready, failed)) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    assert all(ready.acquire(timeout=60) for _ in readers)
    for number in range(5, 25):
        (tmp_path / "store" / f"shard-{number:05d}.arrow").unlink()
    stage.main(config())
    stop.set()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0]
    assert not failed.is_set()
    assert content(tmp_path / "store") == before


def test_a_store_that_is_being_made_is_no_store_yet(config, tmp_path):
    stage.main(config())
    shutil.copytree(tmp_path / "store", tmp_path / "half")
    for name in ("store.json", "shard-00029.json", "shard-00029.arrow"):
        (tmp_path / "half" / name).unlink()
    with pytest.raises(UserError, match=r"is not a token store \(no store\.json\)"):
        TokenStore(tmp_path / "half")
