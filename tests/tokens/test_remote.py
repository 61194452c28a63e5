"""Stores behind a URL: the same rows as from a folder, a cache that keeps its bound, one clear line where it fails."""

import errno
import fcntl
import functools
import json
import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime import locks
from seitpp.runtime.errors import UserError
from seitpp.tokens import transfer
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.remote import CacheConfig, RemoteFiles
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

ROWS, CODES = 45, 300


@pytest.fixture
def folder(tmp_path):
    """45 rows in 7 shards of 7, the last of 3; the first two ids spell the row."""
    ids = tiny.random_ids(ROWS, CODES, (2, 3))
    ids[:, 0, 0], ids[:, 0, 1] = 250 + torch.arange(ROWS) % 7, torch.arange(ROWS) // 7
    return tiny.make_store(tmp_path / "served" / "train", ids, codes=CODES)


LOGIN = b"<!DOCTYPE html>\n<html><title>Sign in</title>" + b"<p>" * 50_000


class Server(ThreadingHTTPServer):
    """A web server for a folder, without ranges, that counts what is asked for and fails in the ways of `troubles`.

    A trouble is a status, (status, headers), "reset", "cut off", "silence" or "login"; one a request of a shard, or of
    any file where `everywhere` is set.
    """

    daemon_threads = True

    def __init__(self, folder):
        self.asked, self.troubles, self.everywhere, self.over = [], [], False, threading.Event()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                if ("shard-" in self.path or server.everywhere) and server.troubles:
                    self.fail(server.troubles.pop(0))
                else:
                    super().do_GET()

            def fail(self, trouble):
                if trouble == "silence":
                    server.over.wait()
                if trouble in ("cut off", "login"):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(LOGIN)))
                    self.end_headers()
                    self.wfile.write(LOGIN if trouble == "login" else b"ARROW1")
                elif isinstance(trouble, int | tuple):
                    status, headers = trouble if isinstance(trouble, tuple) else (trouble, {})
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                self.close_connection = True  # "reset" and "silence": without a word

            def log_message(self, *words):
                pass

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(tmp_path, folder):
    server = Server(tmp_path / "served")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def waits():
    """Seconds that were waited between attempts, in thought."""
    return []


@pytest.fixture
def remote(server, cache, waits):
    """The store of the web server, opened; keyword arguments are CacheConfig's."""

    def opened(place="train", **fields):
        return TokenStore(place, RemoteFiles(f"{server.url}/{place}", cache(**fields), wait=waits.append))

    return opened


@pytest.fixture
def memory(folder):
    """The same store in fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe_file(f"/bucket/train/{path.name}", path.read_bytes())
    yield "memory://bucket/train"
    system.rm("/bucket", recursive=True)


@pytest.fixture
def cache(tmp_path):
    def make(**fields):
        return CacheConfig(folder=str(tmp_path / "cache"), **fields)

    return make


def rows_of(batch):
    return (batch.ids[:, 0, 0] - 250 + 7 * batch.ids[:, 0, 1]).tolist()


def cached(cache):
    return sorted(path.name for path in cache().path.glob("*.arrow"))


def shard_bytes(folder):
    return json.loads((folder / "store.json").read_text())["shards"][0]["bytes"]


def same_rows(store, other):
    everything = np.random.default_rng(0).permutation(len(other))
    assert len(store) == len(other)
    assert np.array_equal(store.packed(everything), other.packed(everything))
    assert np.array_equal(store.labels, other.labels)
    assert store.keys() == other.keys()
    assert torch.equal(store.codebook, other.codebook)


# Reading


def test_a_store_in_memory_reads_like_its_folder(memory, folder, cache):
    same_rows(open_store(memory, cache()), TokenStore(folder))


def test_a_store_on_a_web_server_reads_like_its_folder(server, folder, cache):
    same_rows(open_store(f"{server.url}/train", cache()), TokenStore(folder))


def test_opening_fetches_no_shard_and_each_is_fetched_once(server, cache):
    store = open_store(f"{server.url}/train/", cache())
    assert not any("shard" in path for path in server.asked)
    for _ in range(3):
        store.ids([8, 44])
    store.labels_at([9])
    assert sorted({path for path in server.asked if "shard" in path}) == [
        "/train/shard-00001.arrow", "/train/shard-00006.arrow",
    ]  # fmt: skip
    asked = len(server.asked)
    open_store(f"{server.url}/train", cache()).ids([8, 44])
    assert not any("shard" in path for path in server.asked[asked:])


def test_a_subset_on_a_server_fetches_the_shards_beside_it(server, folder, cache, tmp_path):
    part = tmp_path / "served" / "part"
    make_subset(SubsetConfig(store=str(folder), output_dir=str(part), count=20))
    same_rows(open_store(f"{server.url}/part", cache()), TokenStore(part))


# The cache


def test_the_cache_never_outgrows_its_bound(memory, folder, cache):
    bound = cache(gigabytes=2.5 * shard_bytes(folder) / 1e9)
    store = open_store(memory, bound)
    expected = TokenStore(folder)
    for row in np.random.default_rng(1).integers(ROWS, size=40):
        assert np.array_equal(store.packed([row]), expected.packed([row]))
        assert sum(path.stat().st_size for path in bound.path.iterdir()) <= 2.5 * shard_bytes(folder)


def test_the_longest_unused_shard_leaves_first(memory, folder, cache):
    config = cache(gigabytes=2.5 * shard_bytes(folder) / 1e9)
    store = open_store(memory, config)
    for row in (0, 7, 14):
        store.packed([row])
    assert [store.files.keeps(shard) for shard in store.manifest["shards"][:3]] == [False, True, True]
    assert len(cached(cache)) == 2


def test_what_others_keep_in_the_caches_folder_is_neither_counted_nor_removed(memory, folder, cache):
    config = cache(gigabytes=1.5 * shard_bytes(folder) / 1e9)
    tiny.make_store(config.path / "mine", tiny.random_ids(3, CODES, (2, 3)), codes=CODES)
    (config.path / "mine" / "shard-00000.arrow").rename(config.path / "shard-00000.arrow")
    foreign = {name: config.path / name for name in ("mine.arrow", "notes.tmp", ".hidden.tmp", "shard-00000.arrow")}
    for path in foreign.values():
        path.touch()
        os.utime(path, (0, 0))  # the first to go
    foreign["mine.arrow"].write_bytes(bytes(10 * shard_bytes(folder)))
    store = open_store(memory, config)
    for row in range(0, ROWS, 7):
        store.packed([row])
    assert all(path.exists() for path in foreign.values())
    assert len([path for path in config.path.glob("*.arrow") if len(path.stem) == 64]) == 1


def test_a_cache_behind_a_url_is_refused():
    with pytest.raises(UserError, match=r"CacheConfig: folder = 's3://b/x' is a URL: name a folder of this machine"):
        CacheConfig(folder="s3://b/x")


def test_a_cache_on_a_file_system_without_locks_is_used(memory, folder, cache, monkeypatch, capsys):
    def refuse(*words):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_told", False)
    same_rows(open_store(memory, cache()), TokenStore(folder))
    assert "has no locks (No locks available)" in tiny.one_line(capsys.readouterr().err)


def test_two_stores_share_a_cache_and_reading_goes_on_when_the_other_empties_it(memory, folder, cache):
    config = cache(gigabytes=1.5 * shard_bytes(folder) / 1e9)
    first, second, expected = open_store(memory, config), open_store(memory, config), TokenStore(folder)
    for row in range(0, ROWS, 4):
        assert np.array_equal(first.packed([row]), expected.packed([row]))
        assert np.array_equal(second.packed([ROWS - 1 - row]), expected.packed([ROWS - 1 - row]))


def test_many_threads_fetch_a_shard_once(server, cache):
    stores = [open_store(f"{server.url}/train", cache()) for _ in range(6)]
    threads = [threading.Thread(target=store.packed, args=([30],)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked.count("/train/shard-00004.arrow") == 1


def test_what_a_killed_process_left_is_no_harm(memory, folder, cache):
    left = cache().path / ".0123.1.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a shard")
    same_rows(open_store(memory, cache()), TokenStore(folder))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_cache_on_a_file_system_without_locks_serves_too(memory, folder, cache, monkeypatch, number):
    def refuse(*words):
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    same_rows(open_store(memory, cache()), TokenStore(folder))


# Failures


@pytest.mark.parametrize("trouble", [503, 500, 408, 429, "reset", "cut off"])
def test_a_trouble_that_passes_is_waited_out(server, remote, folder, waits, trouble):
    store = remote()
    server.troubles = [trouble, trouble]
    assert np.array_equal(store.packed([3]), TokenStore(folder).packed([3]))
    assert waits == [0.5] if trouble == "reset" else [0.5, 1.0]  # aiohttp itself asks twice after that


def test_a_small_file_is_asked_for_again_too(server, remote, folder, waits):
    server.everywhere, server.troubles = True, [503, 503, 429]
    assert len(remote()) == ROWS
    assert waits == [0.5, 1.0, 2.0]


def test_a_server_that_says_how_long_it_is_busy_is_left_alone_that_long(server, remote, waits):
    store = remote()
    server.troubles = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})]
    store.packed([3])
    assert waits == [7.0, 1.0]


def test_a_silent_server_is_asked_again(server, remote, folder, waits, monkeypatch):
    monkeypatch.setattr(transfer, "_SILENCE", 0.05)
    store = remote()
    server.troubles = ["silence"]
    assert np.array_equal(store.packed([3]), TokenStore(folder).packed([3]))
    assert waits == [0.5]


@pytest.mark.parametrize(
    ("trouble", "matters"),
    [(503, r"\(503 Service Unavailable\)"), (429, r"\(429 Too Many Requests\)"), ("reset", r"\(Server disconnected\)")],
)
def test_a_trouble_that_stays_is_one_line_with_url_and_status(server, remote, waits, trouble, matters):
    store = remote(attempts=3)
    server.troubles = [trouble] * 100
    with pytest.raises(
        UserError, match=rf"/train/shard-00000\.arrow can't be fetched {matters}, tried 3 times"
    ) as raised:
        store.packed([3])
    assert waits == [0.5, 1.0]
    assert not re.search("delete|upload", tiny.one_line(str(raised.value)))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_server_that_refuses_access_is_asked_once(server, remote, waits, status, everywhere):
    server.everywhere = everywhere
    server.troubles = [status] * 100
    with pytest.raises(UserError, match=rf"/train/\S+: the server refuses access \({status} .*\): log in") as raised:
        remote().packed([3])
    assert not re.search("delete|upload", tiny.one_line(str(raised.value)))
    assert len(server.troubles) == 99
    assert waits == []


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_login_page_is_said_to_be_one(server, remote, cache, waits, everywhere):
    server.everywhere = everywhere
    server.troubles = ["login"] * 100
    with pytest.raises(
        UserError, match=r"/train/\S+: the server answers with a web page instead of the file"
    ) as raised:
        remote().packed([3])
    assert not re.search("delete|upload", tiny.one_line(str(raised.value)))
    assert waits == cached(cache) == []


def test_a_server_without_ranges_serves_shards_of_any_size_in_small_parts(server, remote, folder, monkeypatch):
    monkeypatch.setattr(transfer, "_BLOCK", 100)
    url = f"{server.url}/train/shard-00000.arrow"
    parts = list(transfer.Server(url, 1).blocks(url))
    assert b"".join(parts) == (folder / "shard-00000.arrow").read_bytes()
    assert max(map(len, parts)) <= 100 < shard_bytes(folder)
    same_rows(remote(), TokenStore(folder))


def test_a_large_shard_may_take_as_long_as_it_takes(server):
    assert transfer.Server(server.url, 1).system.client_kwargs["timeout"].total is None


def test_a_shard_that_is_gone_is_named_at_once(server, folder, remote, waits):
    store = remote()
    (folder / "shard-00002.arrow").unlink()
    with pytest.raises(
        UserError, match=r"/train/shard-00002\.arrow is not there: check that the whole store was copied there"
    ):
        store.packed([14])
    assert waits == []


def test_a_disk_without_room_is_no_fault_of_the_server(remote, waits, monkeypatch):
    def full(*words):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = remote()
    monkeypatch.setattr(RemoteFiles, "_reserve", full)
    with pytest.raises(OSError, match="No space left"):
        store.packed([3])
    assert waits == []


@pytest.mark.parametrize("harm", ["a flipped bit", "cut off", "longer"])
def test_a_broken_copy_never_enters_the_cache(remote, folder, cache, waits, harm):
    whole = (folder / "shard-00001.arrow").read_bytes()
    half = len(whole) // 2
    broken = {
        "a flipped bit": (whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :], "the checksum differs.*upload"),
        "cut off": (whole[:100], f"100 bytes came, store.json says {len(whole)}"),
        "longer": (whole + b"more", f"{len(whole) + 4} bytes came, store.json says {len(whole)}"),
    }  # fmt: skip
    content, matters = broken[harm]
    (folder / "shard-00001.arrow").write_bytes(content)
    with pytest.raises(UserError, match=rf"shard-00001\.arrow can't be fetched \({matters}"):
        remote(attempts=2).packed([7])
    assert waits == [0.5]
    assert cached(cache) == []


def test_a_url_without_a_store_is_one_line(server, cache):
    with pytest.raises(UserError, match=r"/nothing is not a token store \(no store\.json there\)"):
        open_store(f"{server.url}/nothing", cache())


def test_a_server_that_is_not_there_is_one_line(cache):
    with pytest.raises(UserError, match=r"can't be fetched") as raised:
        open_store("http://127.0.0.1:9/train", cache(attempts=1))
    tiny.one_line(str(raised.value))


def test_an_unknown_protocol_is_one_line(cache):
    with pytest.raises(UserError, match=r"nosuch://bucket/train can't be read: .*nosuch") as raised:
        open_store("nosuch://bucket/train", cache())
    tiny.one_line(str(raised.value))


def test_a_shard_larger_than_the_cache_is_refused(memory, cache):
    with pytest.raises(UserError, match=r"alone has .* GB, the cache only 1e-07: allow more \(--cache\.gigabytes\)"):
        open_store(memory, cache(gigabytes=1e-7))


def test_windows_larger_than_the_cache_are_refused(memory, folder, cache):
    store = open_store(memory, cache(gigabytes=3 * shard_bytes(folder) / 1e9, window=14))
    with pytest.raises(UserError, match=r"windows of 14 rows need up to .* \(--cache\.window\)"):
        TrainingBatches(store, 2, seed=0)


# Training and evaluation


@pytest.mark.parametrize(
    ("window", "world_size", "batch_size"), [(10, 1, 3), (7, 2, 2), (45, 3, 5), (1, 1, 9), (16, 4, 1)]
)
def test_an_epoch_takes_each_row_at_most_once_and_leaves_less_than_a_step(
    memory, cache, window, world_size, batch_size
):
    store = open_store(memory, cache(window=window))
    for epoch in range(2):
        seen = []
        for rank in range(world_size):
            batches = TrainingBatches(store, batch_size, seed=3, rank=rank, world_size=world_size)
            steps = batches.steps_per_epoch
            seen += [row for step in range(epoch * steps, (epoch + 1) * steps) for row in rows_of(batches(step))]
        assert len(seen) == len(set(seen)) == steps * batch_size * world_size
        assert ROWS - len(seen) < world_size * (batch_size + 1)


def test_batches_are_a_function_of_the_step_alone(memory, cache):
    one, other = (TrainingBatches(open_store(memory, cache(window=12)), 4, seed=1) for _ in range(2))
    expected = [rows_of(one(step)) for step in range(25)]
    assert [rows_of(other(step)) for step in reversed(range(25))] == expected[::-1]


def test_epochs_and_seeds_differ(memory, cache):
    store = open_store(memory, cache(window=20))
    first, second = (TrainingBatches(store, 5, seed=seed) for seed in (0, 1))
    orders = [
        [rows_of(batches(step)) for step in range(start, start + 9)] for batches in (first, second) for start in (0, 9)
    ]
    assert len({json.dumps(order) for order in orders}) == 4


def test_a_window_of_rows_is_shuffled_across_its_shards(memory, cache):
    batches = TrainingBatches(open_store(memory, cache(window=21)), 7, seed=0)
    rows = [row for step in range(3) for row in rows_of(batches(step))]
    shards = {row // 7 for row in rows}
    assert len(shards) <= 4  # three shards, or four where the short one is among them
    assert len({row // 7 for row in rows[:7]}) > 1
    assert rows != sorted(rows)


def test_labels_go_with_their_rows(memory, folder, cache):
    batches = TrainingBatches(open_store(memory, cache(window=11)), 6, seed=0)
    expected = TokenStore(folder).labels
    for step in range(9):
        batch = batches(step)
        assert batch.labels.tolist() == expected[rows_of(batch)].tolist()


def test_the_next_window_is_fetched_before_it_is_needed(memory, cache):
    batches = TrainingBatches(open_store(memory, cache(window=14)), 7, seed=0)
    batches(0)
    batches.store.files._fetcher.shutdown(wait=True)
    assert len(cached(cache)) >= 4


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_covers_each_row_once_from_a_url_too(memory, cache, world_size):
    store = open_store(memory, cache())
    seen = [
        row
        for rank in range(world_size)
        for batch in evaluation_batches(store, 4, rank=rank, world_size=world_size)
        for row in rows_of(batch)
    ]
    assert sorted(seen) == list(range(ROWS))
