"""Classes of images that a classifier is measured on: by name, by number, from a file; and clear refusals."""

import numpy as np
import pytest
from scipy.io import savemat

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.class_order import listed, match_classes
from seitpp.tokenizers.sources.ground_truth import read_class_list, read_ground_truth
from seitpp.tokenizers.sources.labelled_images import open_labelled_images

KNOWN = ["ant", "bee", "cow"]
UNNAMED = [str(number) for number in range(12)]

# Which class is which


@pytest.mark.parametrize(
    ("found", "known", "places"),
    [
        (["bee", "cow"], KNOWN, [1, 2]),
        (["cow", "ant", "bee"], KNOWN, [2, 0, 1]),
        (["0", "1", "10", "11", "2"], UNNAMED, [0, 1, 10, 11, 2]),
        (["0", "1", "10", "2"], ["0", "1", "10", "2"], [0, 1, 2, 3]),  # a store that sorted its folders as text
        (["00", "07", "11"], UNNAMED, [0, 7, 11]),
        (["0", "1", "2"], KNOWN, [0, 1, 2]),
        (["1", "2", "3"], KNOWN, [0, 1, 2]),
        (["10", "20", "9"], KNOWN, [1, 2, 0]),  # all of the classes, sorted as numbers
        (["0", "2"], KNOWN, [0, 2]),
        (["1", "3"], KNOWN, [0, 2]),
        (["cow", "ant"], ["0", "1"], [1, 0]),  # a classifier that was told no names
        (["crane", "crane"], ["crane", "crane"], [0, 1]),  # ImageNet has two: the lists are the same
    ],
)
def test_classes_match_by_name_else_by_number(found, known, places):
    assert match_classes(found, known, "photos").tolist() == places


def test_the_first_number_may_be_said():
    assert match_classes(["1", "2"], KNOWN, "photos", first=0).tolist() == [1, 2]
    assert match_classes(["1", "2"], KNOWN, "photos", first=1).tolist() == [0, 1]
    assert match_classes(["1", "2"], UNNAMED, "photos", first=1).tolist() == [0, 1]


def test_a_class_that_does_not_occur_needs_no_match():
    assert match_classes(["ant", "yak", "cow"], KNOWN, "photos", used=[0, 2]).tolist() == [0, -1, 2]


@pytest.mark.parametrize(
    ("found", "known", "message"),
    [
        (["ant", "yak"], KNOWN, r"photos has a class 'yak' .*ant, yak \(2\).*ant, bee, cow \(3\)"),
        (["1", "2"], KNOWN, r"from 0 or from 1.*1, 2 \(2\).*ant, bee, cow \(3\)"),
        (["0", "3"], KNOWN, r"not 0 to 2.*0, 3 \(2\).*ant, bee, cow \(3\)"),
        (["1", "4"], KNOWN, r"not 1 to 3.*1, 4 \(2\).*ant, bee, cow"),
        (["crane"], ["crane", "crane"], "two of this name"),
    ],
)
def test_classes_that_do_not_match_are_shown_beside_the_classifiers(found, known, message):
    with pytest.raises(UserError, match=message):
        match_classes(found, known, "photos")


def test_long_lists_are_cut_short():
    assert listed(UNNAMED) == "0, 1, 2, 3, 4, … (12)"


# Ground truth in a file

KEYS = ["val_3.png", "val_1.png", "val_2.png"]


@pytest.fixture
def write(tmp_path):
    def write(text, name="truth.txt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("text", ["1\n3\n2\n", "ant\ncow\nbee", "1\r\n3\r\n2\r\n"])
def test_a_line_is_of_the_image_at_its_place_among_the_sorted_names(write, text):
    assert read_ground_truth(write(text), KEYS, KNOWN).tolist() == [1, 0, 2]


def test_numbers_of_a_text_file_count_from_1_whatever_the_classes_are_called(write):
    assert read_ground_truth(write("1\n2\n1"), KEYS, UNNAMED).tolist() == [0, 0, 1]
    assert read_ground_truth(write("0\n2\n1"), KEYS, KNOWN, first=0).tolist() == [1, 0, 2]


def test_a_table_names_files_and_leaves_others_out(write):
    table = write("label,file\nbee,val_1.png\ncow,val_3.png\n", "truth.csv")
    assert read_ground_truth(table, KEYS, KNOWN).tolist() == [2, 1, -1]
    table = write("file,label\nval_1.png,0\nval_3.png,2\nval_2.png,\n", "truth.csv")
    assert read_ground_truth(table, KEYS, KNOWN).tolist() == [2, 0, -1]


def test_numbers_mean_what_a_list_of_classes_says(write):
    truth, classes = write("1\n3\n2"), write("cow\nant\nbee\n", "classes.txt")
    assert read_ground_truth(truth, KEYS, KNOWN, class_list=classes).tolist() == [0, 2, 1]
    assert read_ground_truth(truth, KEYS, ["0", "1", "2"], class_list=classes).tolist() == [0, 2, 1]


def test_imagenets_own_numbers_are_read_with_the_meta_mat_beside_them(write, tmp_path):
    """Leaves alone are classes; ILSVRC2012_ID counts them from 1, in another order than that of their names."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(4, "n9", "animal", "", 3), (2, "n1", "ant", "", 0), (1, "n3", "cow", "", 0), (3, "n2", "bee", "", 0)]
    savemat(tmp_path / "meta.mat", {"synsets": np.array(rows, fields)})
    assert read_class_list(tmp_path / "meta.mat") == ["n3", "n1", "n2"]
    assert read_ground_truth(write("1\n2\n3"), KEYS, ["n1", "n2", "n3"]).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("1\n2", "truth.txt", "has 2 lines, there are 3 images"),
        ("1\n\n2", "truth.txt", "line 2 is empty"),
        ("1\n2\n4", "truth.txt", r"not 1 to 3.*4.*ant, bee, cow"),
        ("0\n1\n2", "truth.txt", r"not 1 to 3"),
        ("ant\nbee\nyak", "truth.txt", "'yak'"),
        ("name,label\na,b", "truth.csv", "columns file and label; it has name, label"),
        ("file,label\nval_9.png,ant", "truth.csv", r"names val_9\.png, which is not among the images"),
        ("", "truth.csv", "no CSV"),
    ],
)
def test_ground_truth_that_does_not_fit_is_refused(write, text, name, message):
    with pytest.raises(UserError, match=message):
        read_ground_truth(write(text, name), KEYS, KNOWN)


def test_files_that_are_missing_or_something_else_are_named(write, tmp_path):
    with pytest.raises(UserError, match=r"none\.txt is not there"):
        read_ground_truth(tmp_path / "none.txt", KEYS, KNOWN)
    with pytest.raises(UserError, match="no text file"):
        read_ground_truth(tmp_path, KEYS, KNOWN)
    with pytest.raises(UserError, match=r"meta\.mat"):
        read_ground_truth(write("1\n2\n3"), KEYS, KNOWN, class_list=write("no such thing", "meta.mat"))
    with pytest.raises(UserError, match="class number 3, its list of classes has 1 to 2"):
        read_ground_truth(write("1\n2\n3"), KEYS, KNOWN, class_list=write("ant\nbee", "two.txt"))


# Images


def test_folders_are_numbered_as_the_classifier_numbers_its_classes(tmp_path):
    tiny.make_images(tmp_path / "named", {"cow": 2, "ant": 1})
    images = open_labelled_images(tmp_path / "named", KNOWN)
    assert (images.labels.tolist(), images.classes) == ([0, 2, 2], KNOWN)
    tiny.make_images(tmp_path / "numbered", {str(number): 1 for number in range(12)})
    images = open_labelled_images(tmp_path / "numbered", [f"class {number}" for number in range(12)])
    assert [int(key.split("/")[0]) for key in images.keys] == images.labels.tolist()


def test_images_of_one_flat_folder_are_labelled_by_a_file(tmp_path, write):
    tiny.make_images(tmp_path / "photos", {"x": 3})
    flat = tmp_path / "photos" / "x"
    images = open_labelled_images(flat, KNOWN, ground_truth=write("3\n1\n3"))
    assert (images.keys, images.labels.tolist()) == (["000.png", "001.png", "002.png"], [2, 0, 2])
    table = write("file,label\n001.png,bee\n", "truth.csv")
    images = open_labelled_images(flat, KNOWN, ground_truth=table)
    assert (images.keys, images.labels.tolist(), images.where(0)) == (["001.png"], [1], str(flat / "001.png"))


def test_images_without_labels_are_refused(tmp_path, write):
    tiny.make_images(tmp_path, {"x": 2})
    with pytest.raises(UserError, match=r"x holds no labelled image: .*--ground_truth"):
        open_labelled_images(tmp_path / "x", KNOWN)
    with pytest.raises(UserError, match=r"truth\.csv has no class of any image"):
        open_labelled_images(tmp_path / "x", KNOWN, ground_truth=write("file,label\n", "truth.csv"))
