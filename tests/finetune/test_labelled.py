"""The labelled rows of a store: its own labels or a table's, and their division."""

import os

import numpy as np
import pytest

import tiny
from seitpp.finetune.labelled import open_labelled, open_train_and_test, split_labelled
from seitpp.finetune.train import FinetuneConfig
from seitpp.runtime.errors import UserError


def test_without_a_table_the_stores_labels_count_and_unlabelled_rows_are_left_out(stores):
    labelled = open_labelled(stores / "train")
    assert labelled.rows.tolist() == list(range(36))
    assert labelled.targets.tolist() == [row % 3 for row in range(36)]
    assert labelled.classes == ["ant", "bee", "cow"]


def test_a_table_gives_other_labels_and_leaves_out_what_it_does_not_name(stores, table):
    path = table("label,note,key\nred,x,0005.png\nblue,y,0001.png\nred,,0038.png\ngreen,,nowhere.png\n")
    labelled = open_labelled(stores / "train", path)
    assert labelled.classes == ["blue", "green", "red"]
    assert labelled.rows.tolist() == [1, 5, 38]
    assert labelled.targets.tolist() == [0, 2, 2]
    assert len(labelled.labels) == 40


def test_names_of_classes_that_look_like_numbers_stay_names(stores, table):
    labelled = open_labelled(stores / "train", table("key,label\n0001.png,10\n0002.png,9\n0003.png,010\n"))
    assert labelled.classes == ["010", "10", "9"]


def test_rows_with_an_empty_label_are_left_out(stores, table):
    labelled = open_labelled(stores / "train", table("key,label\n0001.png,a\n0002.png,\n0003.png,b\n"))
    assert labelled.rows.tolist() == [1, 3]


@pytest.mark.parametrize("name", ["null", "NA", "None", "nan", "", "N/A", "#N/A", "true", "1e3", "-1"])
def test_a_class_may_have_any_name(stores, table, name):
    """pandas takes most of these for a missing value, and such rows were left out without a word."""
    rows = [f"{row:04d}.png,{('ant', name)[row % 2]}" for row in range(10)]
    if name == "":  # that is what a missing value looks like
        rows[1:3] = ["0001.png,bee", "0002.png,bee"]
    labelled = open_labelled(stores / "train", table("\n".join(["key,label", *rows])))
    if name == "":
        assert (labelled.classes, labelled.rows.tolist()) == (["ant", "bee"], [0, 1, 2, 4, 6, 8])
    else:
        assert (labelled.classes, labelled.rows.tolist()) == (sorted(["ant", name]), list(range(10)))


def test_a_table_of_a_spreadsheet_is_read(stores, tmp_path):
    """With a byte order mark, carriage returns, blank lines and quotes."""
    text = '\ufeffkey,label\r\n0001.png,"ant, big"\r\n\r\n0002.png,"6"" bee"\r\n'
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert open_labelled(stores / "train", tmp_path / "labels.csv").classes == ['6" bee', "ant, big"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,label\n0001.png,ant\n0002.png,b\xe9b\xe9\n", "line 3: invalid continuation byte, .*UTF-8"),
        ('key,label\n0001.png,ant\n0002.png,"bee\n0003.png,ant\n', "line 3: unexpected end of data"),
        ('key,label\n0001.png,"ant\n0002.png,"bee"\n', "line 2: ',' expected"),
        ('key,label\n0001.png,"ant\n0002.png,bee"\n0003.png,cow\n', "line 2: a name goes over several lines"),
        ("key,label\n0001.png,ant\n0002.png\n", "line 3: 1 fields, expected 2: key, label"),
        ("key,label\n0001.png,ant,\n", "line 2: 3 fields, expected 2"),
        ("key label\n0001.png ant\n", "has no column key, or two; it has key label: name them by --key_column and"),
        ("key,label\n1.png,ant|bee\n", "line 2: 'ant.bee' is several labels, or none: .*--multi_label true learns"),
        ("key,label\n1.png,ant\n0002.png,cow\n1.png,bee\n", "line 4: 1.png is 'bee' here and 'ant' in line 2"),
    ],
    ids=range(9),
)
def test_a_fault_in_a_table_is_named_with_its_file_and_line(stores, tmp_path, text, message):
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"labels.csv,? {message}") as refused:
        open_labelled(stores / "train", tmp_path / "labels.csv")
    tiny.one_line(str(refused.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "has no column key, or two; it has file, label"),
        ("key,label\nelsewhere.png,a\n", "names no row of .*its keys look like '0000.png'"),
        ("key,label\n0001.png,a\n0002.png,a\n", "fewer than two classes"),
        ("", "labels.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(stores, table, text, message):
    with pytest.raises(UserError, match=message):
        open_labelled(stores / "train", table(text))


def test_a_table_that_is_not_there_is_refused(stores, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.csv is no file"):
        open_labelled(stores / "train", tmp_path / "nothing.csv")


def test_a_store_of_another_tokenizer_is_refused(stores):
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        open_labelled(stores / "test", fingerprint="b" * 64)


def test_a_split_divides_every_class_by_its_share(tmp_path):
    labels = np.array([0] * 10 + [1] * 5 + [2] * 2 + [3])
    classes = ["a", "b", "c", "d"]
    ids = tiny.random_ids(18, tiny.CODES, tiny.GRID)
    labelled = open_labelled(tiny.make_store(tmp_path, ids, labels=labels, classes=classes))
    first, second = split_labelled(labelled, 0.3, seed=0)
    assert np.bincount(first.targets, minlength=4).tolist() == [7, 3, 1, 1]  # a class of one is learned from
    assert np.bincount(second.targets, minlength=4).tolist() == [3, 2, 1, 0]
    assert sorted([*first.rows, *second.rows]) == list(range(18))


def test_a_split_is_the_same_again_and_another_for_another_seed(stores):
    labelled = open_labelled(stores / "train")
    parts = {seed: tuple(split_labelled(labelled, 0.5, seed=seed)[1].rows.tolist()) for seed in range(6)}
    assert tuple(split_labelled(labelled, 0.5, seed=4)[1].rows.tolist()) == parts[4]
    assert len(set(parts.values())) == 6


def test_a_split_of_single_images_is_refused_where_they_are(tmp_path):
    labelled = open_labelled(tiny.make_store(tmp_path / "store", tiny.random_ids(3, tiny.CODES, tiny.GRID)))
    with pytest.raises(UserError, match=r"store: no class has two labelled images, .*: label more"):
        split_labelled(labelled, 0.2, seed=0)


@pytest.mark.parametrize(
    ("codes", "grid", "matters"),
    [
        (50, tiny.GRID, r"test has 50 codes, but the store .*train knows 37"),
        (tiny.CODES, (6, 8), r"test has grids of \(6, 8\) tokens, .*train of \(4, 6\): tokenise both alike"),
    ],
)
def test_stores_that_name_one_tokenizer_but_differ_are_refused(tmp_path, codes, grid, matters):
    places = {"store": tiny.make_store(tmp_path / "train", tiny.random_ids(6, tiny.CODES, tiny.GRID))}
    places["eval_store"] = tiny.make_store(tmp_path / "test", tiny.random_ids(6, codes, grid), codes=codes)
    with pytest.raises(UserError, match=matters):
        open_train_and_test(FinetuneConfig(**{name: str(folder) for name, folder in places.items()}, output_dir="out"))


def test_a_pipe_that_is_called_a_table_is_refused_and_not_waited_for(stores, tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"labels\.csv is no file but a folder, pipe or device"):
        open_labelled(stores / "train", tmp_path / "labels.csv")
