"""Tables of labels that people made: what is read, what is said of a row at fault, and stores with several labels."""

import unicodedata

import numpy as np
import pytest

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.label_table import read_labels
from seitpp.tokenizers.tokenize import TokenizeConfig, main
from seitpp.tokens.store import open_store


@pytest.fixture
def written(tmp_path):
    """Write a table as bytes; returns its path."""

    def write(content):
        (tmp_path / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "labels.csv"

    return write


@pytest.mark.parametrize(
    "content",
    [
        "key,label\na.png,grey heron\nb.png,egret\n",
        "\ufeffKey;Label\r\na.png;grey heron\r\n\r\nb.png;egret\r\n;\r\n",
        'sep=;\r\n"key";"label"\r\n"a.png";"grey heron"\r\n"b.png";"egret"\r\n',
        "label\tnote\tkey \ngrey heron\t1,2\ta.png\n egret \t\t./b.png \n",
        "key,label,\na.png,grey heron,\nb.png,egret,\na.png,grey heron,\n",
    ],
    ids=["plain", "spreadsheet", "sep", "tabs", "empty-column"],
)
def test_one_table_is_read_from_every_spreadsheet(written, content):
    table = read_labels(written(content))
    assert table.classes == ["egret", "grey heron"]
    assert table.match(["b.png", "c.png", "a.png"]).labels.tolist() == [0, -1, 1]


def test_lines_are_counted_from_the_top_of_the_file(written):
    with pytest.raises(UserError, match=r"line 4: a\.png is 'bee' here and 'ant' in line 3"):
        read_labels(written("sep=;\nkey;label\na.png;ant\na.png;bee\n"))


def test_other_names_of_columns_are_told_by_flags(written):
    path = written("file,species,label\na.png,ant,1\nb.png,bee,2\n")
    assert read_labels(path, key_column="file", label_column="species").classes == ["ant", "bee"]
    with pytest.raises(
        UserError, match="no column key, or two; it has file, species, label: name them by --key_column"
    ):
        read_labels(path)


def test_names_are_found_however_a_system_writes_them(written):
    table = read_labels(written("key,label\nVögel\\Löffler 1.png,ant\n./b.png,bee\n"))
    keys = [unicodedata.normalize("NFD", "Vögel/Löffler 1.png"), "b.png"]
    assert table.match(keys).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "separator", "expected"),
    [
        ("key,label\na,sea|sand\nb,\nc,|\nd,sea | sea\n", None, [["sand", "sea"], None, [], ["sea"]]),
        ("key,label\na,sea;sand\nb,\nc,;\nd,sea\n", None, [["sand", "sea"], None, [], ["sea"]]),
        ('key;label\na;"sea;sand"\nb;\nc;";"\nd;sea\n', None, [["sand", "sea"], None, [], ["sea"]]),
        ('key,label\na,"sea, sand"\nb,\nc,","\nd,sea\n', ",", [["sand", "sea"], None, [], ["sea"]]),
        ("key,label\na,sea|sand\nb,\nc,|\nd,sea\n", "none", [["sea|sand"], None, ["|"], ["sea"]]),
    ],
    ids=["bar", "semicolon", "quoted", "comma", "none"],
)
def test_several_labels_in_a_cell_are_divided(written, content, separator, expected):
    table = read_labels(written(content), separator=separator, several=True)
    known = table.match(["a", "b", "c", "d", "e"])
    names = [None if each is None else [table.classes[number] for number in each] for each in known.lists]
    assert names == [*expected, None]
    assert known.unlabelled == 2


@pytest.mark.parametrize(
    ("content", "several", "message"),
    [
        ("key,label\na,x\nb,x|y\nc,x;y\n", True, "by | in line 3 and by ; in line 4: name the right one"),
        ("key,label\na,x\nb,x|y\n", False, "line 3: 'x|y' is several labels, or none: seitpp finetune --multi_label"),
        (
            "key,label\na,x|y\na,x\n",
            True,
            "line 3: a is 'x' here and 'x|y' in line 2; several labels stand in one cell",
        ),
        ("key,label\na,x\n./a,\n", True, "line 3: ./a is without a label here and 'x' in line 2"),
        ("key,label\na,x\nb\n", False, "line 3: 1 fields, expected 2: key, label"),
    ],
)
def test_a_row_at_fault_is_named_in_one_line(written, content, several, message):
    with pytest.raises(UserError) as error:
        read_labels(written(content), several=several)
    assert message in tiny.one_line(str(error.value))


def test_what_a_table_does_not_name_and_what_is_not_there_is_said(written):
    table = read_labels(written("key,label\na,x\ngone,y\nlost,y\n"))
    known = table.match(["a", "b"])
    assert table.strangers(known.found, "photos").endswith(
        "labels.csv: 2 of 3 rows name no image of photos, the first in line 3: 'gone'"
    )
    known.found[2] = True
    assert table.strangers(known.found, "photos").endswith("labels.csv, line 3: 'gone' is not in photos")
    assert table.strangers(np.ones(3, bool), "photos") == ""
    with pytest.raises(UserError, match=r"names no row of photos: its keys look like 'x/a.png', the table's like 'a'"):
        table.require_some(np.zeros(3, bool), "photos", "x/a.png")


# In a store


def tokenised(images, tokenizer, folder, **words):
    main(TokenizeConfig(images=str(images), tokenizer=str(tokenizer), output_dir=str(folder), **words))
    return open_store(folder)


def test_a_store_takes_its_classes_from_a_table_wherever_its_images_lie(
    images, test_images, tokenizer_folder, tmp_path, written, capsys
):
    path = written("key;label\nant/000.png;red\nbee/001.png;blue\ncow/002.png;red\nbee/nowhere.png;blue\n")
    store = tokenised(images, tokenizer_folder, tmp_path / "train", labels=str(path))
    known = dict(zip(store.keys(), store.labels.tolist(), strict=True))
    assert store.classes == ["blue", "red"]
    assert {key: label for key, label in known.items() if label >= 0} == {
        "ant/000.png": 1, "bee/001.png": 0, "cow/002.png": 1,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert f"{path}, line 5: 'bee/nowhere.png' is not in {images}" in said
    assert f"{images}: 27 of 30 images have no label in {path}, the first is ant/001.png" in said
    like = tokenised(test_images, tokenizer_folder, tmp_path / "test", labels=str(path), like=str(tmp_path / "train"))
    assert like.classes == ["blue", "red"]
    path = written("key,label\nant/000.png,red\nant/001.png,green\n")
    with pytest.raises(UserError, match=r"line 3: 'green' is no class of .*train"):
        tokenised(test_images, tokenizer_folder, tmp_path / "x", labels=str(path), like=str(tmp_path / "train"))
    written("key,label\nant/000.png,blue\nant/001.png,red\n")
    with pytest.raises(UserError, match=r"other input \(labels differs\)"):
        tokenised(images, tokenizer_folder, tmp_path / "train", labels=str(path))


def test_several_labels_a_cell_are_a_column_of_the_store(images, tokenizer_folder, tmp_path, written):
    path = written("key,label\nant/000.png,red|wide\nbee/001.png,wide\ncow/002.png,|\n")
    words = {"labels": str(path), "multi_label": True, "rows_per_shard": 7}
    store = tokenised(images, tokenizer_folder, tmp_path / "store", **words)
    store.verify()
    rows = [store.keys().index(key) for key in ("ant/000.png", "bee/001.png", "cow/002.png", "ant/001.png")]
    assert store.classes == ["red", "wide"]
    assert [None if each is None else each.tolist() for each in store.label_lists_at(rows)] == [[0, 1], [1], [], None]
    assert store.labels[rows].tolist() == [-1, 1, -1, -1]
    written("key,label\nant/000.png,red|wide\nbee/001.png,wide\ncow/002.png,red|wide\n")
    with pytest.raises(UserError, match=r"other input \(label_lists differs\)"):
        tokenised(images, tokenizer_folder, tmp_path / "store", **words)
