"""Batches: an epoch is every row once, and who reads what is arithmetic."""

from collections import Counter

import numpy as np
import pytest
import torch

import tiny
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.store import TokenStore

CODES = 300
ROWS = 48


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """48 rows in shards of 7; the first two ids of a row spell its number, the label is its number too."""
    ids = tiny.random_ids(ROWS, CODES, (2, 3))
    ids[:, 0, 0], ids[:, 0, 1] = 250 + torch.arange(ROWS) % 7, torch.arange(ROWS) // 7
    classes = [f"class {row}" for row in range(ROWS)]
    folder = tmp_path_factory.mktemp("store")
    return TokenStore(tiny.make_store(folder, ids, codes=CODES, labels=np.arange(ROWS), classes=classes))


def rows_of(batch):
    """Which rows of the store a batch holds, read from its ids."""
    return (batch.ids[:, 0, 0] - 250 + 7 * batch.ids[:, 0, 1]).tolist()


def global_batch(store, step, *, batch_size, accum_iter, world_size, **rest):
    """Rows and positions of all micro-steps and ranks of a step, in the order of their positions."""
    places = {}
    for rank in range(world_size):
        batches = TrainingBatches(
            store, batch_size, accum_iter=accum_iter, world_size=world_size, rank=rank, seed=5, **rest
        )
        for micro in range(accum_iter):
            batch = batches(step, micro)
            assert len(batch.ids) == batch_size
            places |= dict(zip(batch.positions.tolist(), rows_of(batch), strict=True))
    return places


# Training


@pytest.mark.parametrize("batch_size", [1, 6, 16, 48])
def test_an_epoch_visits_every_row_once(store, batch_size):
    batches = TrainingBatches(store, batch_size, seed=0)
    for epoch in range(2):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        assert sorted(row for step in steps for row in rows_of(batches(step))) == list(range(ROWS))


def test_an_incomplete_batch_at_the_end_of_an_epoch_is_dropped(store):
    batches = TrainingBatches(store, 10, seed=0)
    assert batches.steps_per_epoch == 4
    first, second = ([row for step in steps for row in rows_of(batches(step))] for steps in (range(4), range(4, 8)))
    assert max(Counter(first).values()) == 1
    assert max(Counter(second).values()) == 1
    assert set(first) != set(second)  # another epoch leaves other rows out


def test_each_epoch_and_each_seed_has_its_own_order(store):
    one, other = TrainingBatches(store, 48, seed=0), TrainingBatches(store, 48, seed=1)
    orders = {tuple(rows_of(batches(epoch))) for batches in (one, other) for epoch in range(3)}
    assert len(orders) == 6


def test_a_batch_holds_ids_labels_and_places_of_its_rows(store):
    batch = TrainingBatches(store, 6, seed=0)(3)
    assert batch.ids.tolist() == store.ids(rows_of(batch)).tolist()
    assert batch.labels.tolist() == rows_of(batch)
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert {batch.ids.dtype, batch.labels.dtype, batch.positions.dtype} == {torch.int64}


@pytest.mark.parametrize(
    ("batch_size", "accum_iter", "world_size"), [(6, 1, 2), (3, 1, 4), (6, 2, 1), (3, 2, 2), (1, 3, 4), (4, 3, 1)]
)
@pytest.mark.parametrize("step", [0, 3, 9])
def test_ranks_and_micro_steps_divide_the_same_global_batch(store, batch_size, accum_iter, world_size, step):
    whole = global_batch(store, step, batch_size=12, accum_iter=1, world_size=1)
    divided = global_batch(store, step, batch_size=batch_size, accum_iter=accum_iter, world_size=world_size)
    assert sorted(whole) == list(range(12))
    assert divided == whole


def test_ranks_of_a_micro_step_stand_side_by_side(store):
    # world 2, accum 2, batch 3: micro-step 1 of rank 0 comes after micro-step 0 of rank 1
    batches = TrainingBatches(store, 3, accum_iter=2, world_size=2, rank=0, seed=0)
    assert batches(0, 0).positions.tolist() == [0, 1, 2]
    assert batches(0, 1).positions.tolist() == [6, 7, 8]


def test_a_batch_is_the_same_for_a_loader_that_starts_at_its_step(store):
    running = TrainingBatches(store, 10, seed=2)
    for step in range(9):
        last = running(step)
    resumed = TrainingBatches(store, 10, seed=2)(8)
    assert torch.equal(resumed.ids, last.ids)
    assert torch.equal(resumed.labels, last.labels)


def test_labels_are_read_only_when_they_are_asked_for(store):
    class Counting(TokenStore):
        asked = 0

        def labels_at(self, indices):
            Counting.asked += 1
            return super().labels_at(indices)

    counting = Counting(store.folder)
    batches = [TrainingBatches(counting, 6, seed=0)(3), *evaluation_batches(counting, 20)]
    assert [len(batch.ids) + len(batch.positions) for batch in batches] == [12, 40, 40, 16]
    assert Counting.asked == 0
    assert batches[1].labels.tolist() == batches[1].labels.tolist() == list(range(20))
    assert Counting.asked == 1


def test_rows_and_labels_may_be_others_than_the_stores(store):
    rows = np.array([40, 3, 8, 21, 5])
    labels = np.arange(ROWS) * 2
    batches = TrainingBatches(store, 5, seed=0, rows=rows, labels=labels)
    assert len(batches) == 5
    batch = batches(0)
    assert sorted(rows_of(batch)) == sorted(rows)
    assert batch.labels.tolist() == [2 * row for row in rows_of(batch)]


# Evaluation


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
@pytest.mark.parametrize("batch_size", [1, 5, 48, 100])
def test_evaluation_covers_every_row_exactly_once(store, batch_size, world_size):
    seen = [
        (row, label, position)
        for rank in range(world_size)
        for batch in evaluation_batches(store, batch_size, rank=rank, world_size=world_size)
        for row, label, position in zip(rows_of(batch), batch.labels.tolist(), batch.positions.tolist(), strict=True)
    ]
    assert sorted(seen) == [(row, row, row) for row in range(ROWS)]


def test_evaluation_goes_through_given_rows_in_their_order(store):
    rows = np.array([40, 3, 8, 21, 5])
    batches = list(evaluation_batches(store, 2, rows=rows, labels=np.arange(ROWS) + 1))
    assert [rows_of(batch) for batch in batches] == [[40, 3], [8, 21], [5]]
    assert [batch.labels.tolist() for batch in batches] == [[41, 4], [9, 22], [6]]
    assert [batch.positions.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
