"""Subsets: class-balanced parts of a store, within a count, a share or a number of bytes, nothing copied."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import SubsetConfig, main, parse_bytes

LABELS = np.array([0] * 20 + [1] * 9 + [2] * 3 + [-1] * 5)
ROW = 24 + 3 + 4 + 4 + len("0000.png")  # bytes of a row of 24 ids below 512, its label, its key and the key's offset


@pytest.fixture
def ids():
    return tiny.random_ids(len(LABELS), 391, tiny.GRID)


@pytest.fixture
def folder(tmp_path, ids):
    """37 rows in shards of 7: 20 ants, 9 bees, 3 cows, 5 unknown."""
    return tiny.make_store(tmp_path / "stores" / "all", ids, codes=391, labels=LABELS)


@pytest.fixture
def subset(folder, tmp_path):
    def make(name="part", of=folder, **fields):
        main(SubsetConfig(store=str(of), output_dir=str(tmp_path / "subsets" / name), **fields))
        return TokenStore(tmp_path / "subsets" / name)

    return make


def rows_of(store):
    """Rows of the whole store that a subset consists of, by its keys."""
    return [int(key.removesuffix(".png")) for key in store.keys()]  # noqa: SIM118 (not a dict)


def counts(store):
    return dict(Counter(store.labels.tolist()))


def test_a_subset_holds_the_rows_that_its_keys_name(subset, ids):
    store = subset(count=17)
    store.verify()
    rows = rows_of(store)
    assert len(store) == len(set(rows)) == 17
    assert rows == sorted(rows)
    assert store.labels.tolist() == LABELS[rows].tolist()
    assert store.labels_at([3, 0, 16]).tolist() == LABELS[[rows[3], rows[0], rows[16]]].tolist()
    assert torch.equal(store.ids(range(17)), ids[rows])
    assert torch.equal(store.ids([16, 2, 2]), ids[[rows[16], rows[2], rows[2]]])
    assert store.keys(range(4, 9)) == [f"{row:04d}.png" for row in rows[4:9]]


def test_no_shard_is_copied(subset):
    folder = subset(count=5).folder
    assert sorted(path.name for path in folder.iterdir()) == ["codebook.safetensors", "rows.npy", "store.json"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, {-1: 1, 0: 1, 1: 1, 2: 1}),
        (12, {-1: 3, 0: 3, 1: 3, 2: 3}),
        (18, {-1: 5, 0: 5, 1: 5, 2: 3}),
        (37, {-1: 5, 0: 20, 1: 9, 2: 3}),
    ],
)
def test_classes_are_taken_in_turn_until_they_are_used_up(subset, count, expected):
    assert counts(subset(count=count)) == expected


def test_a_smaller_subset_of_the_same_seed_lies_within_a_larger_one(subset):
    small, large = (set(rows_of(subset(f"{count}", count=count))) for count in (9, 21))
    assert small < large


def test_another_seed_chooses_other_rows(subset):
    assert rows_of(subset("a", count=10)) != rows_of(subset("b", count=10, seed=1))
    assert rows_of(subset("c", count=10)) == rows_of(subset("a", count=10))


def test_an_unbalanced_subset_takes_each_row_with_the_same_chance(subset):
    taken = Counter(row for seed in range(60) for row in rows_of(subset("a", count=11, balanced=False, seed=seed)))
    expected = 60 * 11 / 37  # 17.8, deviation of a binomial 3.5
    assert set(taken) == set(range(37))
    assert max(abs(count - expected) for count in taken.values()) < 4 * 3.5


def test_a_share_is_rounded(subset):
    assert len(subset(fraction=0.25)) == 9


@pytest.mark.parametrize(
    ("budget", "rows"), [(f"{10 * ROW}", 10), (f"{11 * ROW - 1}B", 10), ("0.5kB", 500 // ROW), ("1GB", 37)]
)
def test_a_budget_of_bytes_is_never_exceeded_and_used_up(subset, budget, rows):
    assert len(subset(budget=budget)) == rows


def test_a_budget_counts_what_a_store_of_those_rows_takes(tmp_path, ids, subset):
    """Real files: a store written with the chosen rows alone stays within 2 % once it has some thousand rows."""
    rows = 4000
    big = tiny.make_store(tmp_path / "big", tiny.random_ids(rows, 391, (16, 16)), codes=391, rows_per_shard=4000)
    size = sum(path.stat().st_size for path in big.glob("*.arrow"))
    assert len(subset(of=big, budget=str(size), balanced=False)) == pytest.approx(rows, rel=0.02)


def test_chosen_classes_are_numbered_anew_and_others_left_out(subset, ids):
    store = subset(classes=("cow", "ant"))
    store.verify()
    assert store.classes == ["cow", "ant"]
    assert counts(store) == {0: 3, 1: 20}
    rows = rows_of(store)
    assert [LABELS[row] for row in rows] == [{0: 2, 1: 0}[label] for label in store.labels.tolist()]
    assert torch.equal(store.ids(range(23)), ids[rows])


def test_classes_and_a_count_together(subset):
    assert counts(subset(classes=("bee", "ant"), count=11)) in ({0: 5, 1: 6}, {0: 6, 1: 5})


def test_a_subset_of_a_subset_points_to_the_first_shards(subset, ids):
    first = subset("first", classes=("bee", "cow", "ant"))
    second = subset("second", of=first.folder, classes=("ant", "bee"), count=8)
    second.verify()
    rows = rows_of(second)
    assert set(rows) < set(rows_of(first))
    assert torch.equal(second.ids(range(8)), ids[rows])
    assert [{0: 0, 1: 1}[label] for label in second.labels.tolist()] == LABELS[rows].tolist()
    assert all("stores/all/shard-" in shard["file"] for shard in second.manifest["shards"])


def test_a_store_and_its_subset_can_move_together(subset, tmp_path):
    expected = rows_of(subset(count=6))
    (tmp_path / "elsewhere").mkdir()
    for name in ("stores", "subsets"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert rows_of(open_store(tmp_path / "elsewhere" / "subsets" / "part")) == expected


def test_a_store_without_labels_has_subsets_too(tmp_path, ids, subset):
    plain = tiny.make_store(tmp_path / "plain", ids, codes=391, labels=[-1] * len(ids), classes=())
    assert len(subset(of=plain, fraction=0.5)) == 18


# What is refused


def test_lost_or_changed_rows_are_named(subset):
    file = subset(count=5).folder / "rows.npy"
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.npy: the checksum differs from store\.json.*seitpp store subset"):
        TokenStore(file.parent)
    file.unlink()
    with pytest.raises(UserError, match=r"rows\.npy is missing: make the subset again"):
        TokenStore(file.parent)


def test_a_subset_whose_store_is_gone_names_the_missing_shard(subset, folder):
    part = subset(count=5).folder
    (folder / "shard-00003.arrow").unlink()
    with pytest.raises(UserError, match=r"shard-00003\.arrow is missing"):
        TokenStore(part)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of --count, --fraction and --budget, or --classes"),
        ({"count": 3, "budget": "1GB"}, "give one of --count"),
        ({"count": 38}, "has 37 such rows, fewer than --count 38"),
        ({"count": 0}, "count = 0 must be at least 1"),
        ({"fraction": 1.5}, r"fraction = 1.5 must lie in \(0, 1\]"),
        ({"budget": "much"}, "'much' is not a size: expected something like 0.3GB"),
        ({"budget": "0GB"}, "'0GB' is not a size"),
        ({"budget": "10B"}, "10B select no rows"),
        ({"classes": ("dog",)}, "has no class 'dog'; it has ant, bee, cow"),
        ({"classes": ("ant", "ant")}, "--classes names 'ant' twice"),
    ],
)
def test_wrong_wishes_are_one_clear_line(subset, fields, message):
    with pytest.raises(UserError, match=message) as raised:
        subset(**fields)
    tiny.one_line(str(raised.value))


def test_a_subset_does_not_overwrite_a_store(folder):
    before = json.loads((folder / "store.json").read_text())
    with pytest.raises(UserError, match=r"--output_dir .* is --store .*: choose another --output_dir"):
        main(SubsetConfig(store=str(folder), output_dir=str(folder), count=3))
    assert json.loads((folder / "store.json").read_text()) == before


@pytest.mark.parametrize(
    ("text", "size"),
    [("1200", 1200), ("0.3GB", 300_000_000), ("500 mb", 500_000_000), ("2k", 2000), (".5T", 5 * 10**11)],
)
def test_sizes_are_read_in_powers_of_a_thousand(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("linked", ["store", "subset", "both", "part of a part"])
def test_a_subset_that_was_made_through_a_link_can_be_read(folder, tmp_path, linked):
    """`..` of a link is where the link leads to."""
    (tmp_path / "disk" / "deep" / "down").mkdir(parents=True)
    (tmp_path / "disk link").symlink_to(tmp_path / "disk" / "deep" / "down")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "stores link").symlink_to(folder.parent)
    of = folder if linked == "subset" else tmp_path / "deep" / "stores link" / "all"
    out = tmp_path / "subsets" / "part" if linked == "store" else tmp_path / "disk link" / "part"
    main(SubsetConfig(store=str(of), output_dir=str(out), count=17))
    if linked == "part of a part":
        main(SubsetConfig(store=str(out), output_dir=str(tmp_path / "subsets" / "least"), count=9))
        out = tmp_path / "subsets" / "least"
    store = open_store(out)
    store.verify()
    assert len(store) == (9 if linked == "part of a part" else 17)
    assert open_store(out.resolve()).fingerprint == store.fingerprint
