"""Stores behind a URL: the same rows as from a folder, a cache that keeps its bound, one clear line where it fails."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.remote import CacheConfig
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


class Server(ThreadingHTTPServer):
    """A web server for a folder that counts what is asked for and fails when it is told to."""

    daemon_threads = True

    def __init__(self, folder):
        self.asked, self.failures = [], 0
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                if "shard-" in self.path and server.failures > 0:
                    server.failures -= 1
                    self.send_error(503)
                else:
                    super().do_GET()

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
    server.shutdown()
    server.server_close()
    thread.join()


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


# Failures


def test_a_server_that_fails_twice_is_asked_again(server, folder, cache):
    store = open_store(f"{server.url}/train", cache())
    server.failures = 2
    assert np.array_equal(store.packed([3]), TokenStore(folder).packed([3]))


def test_a_server_that_keeps_failing_is_one_line(server, cache):
    store = open_store(f"{server.url}/train", cache(attempts=2))
    server.failures = 100
    with pytest.raises(UserError, match=r"/train/shard-00000\.arrow can't be fetched \(503.*tried 2 times") as raised:
        store.packed([3])
    tiny.one_line(str(raised.value))


def test_a_shard_that_is_gone_is_named_at_once(server, folder, cache):
    store = open_store(f"{server.url}/train", cache(attempts=50))
    (folder / "shard-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"/train/shard-00002\.arrow is missing: upload the store again"):
        store.packed([14])


@pytest.mark.parametrize("harm", ["a flipped bit", "cut off"])
def test_a_broken_copy_never_enters_the_cache(server, folder, cache, harm):
    content = bytearray((folder / "shard-00001.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "shard-00001.arrow").write_bytes(content if harm == "a flipped bit" else content[:100])
    store = open_store(f"{server.url}/train", cache(attempts=2))
    with pytest.raises(UserError, match=r"shard-00001\.arrow can't be fetched \(the checksum differs"):
        store.packed([7])
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
