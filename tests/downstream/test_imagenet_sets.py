"""ImageNet's benchmarks: official folders are read as their authors mean them, and what is amiss in them is named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import imagenet_miniatures as mini
import tiny
from imagenet_miniatures import GOLDFINCH, GOLDFISH, IN_A, IN_R, KNOWN, STINGRAY, TENCH
from seitpp.downstream.imagenet.imagenet_c import CORRUPTIONS, EXTRA
from seitpp.downstream.imagenet.imagenet_classes import (
    classes_of_benchmark,
    imagenet_wnids,
    is_whole,
    places_in,
    timm_list,
)
from seitpp.downstream.imagenet.known import open_benchmark
from seitpp.downstream.imagenet.objectnet import read_mappings
from seitpp.downstream.imagenet.real_labels import RealLabels
from seitpp.downstream.set_answers import judge
from seitpp.finetune.answers import Answers
from seitpp.runtime.errors import UserError


def refused(matters, function, *arguments):
    with pytest.raises(UserError, match=matters) as error:
        function(*arguments)
    tiny.one_line(str(error.value))


# Classes


@pytest.mark.parametrize(("letter", "first", "last"), [("a", [6, 11, 13], 988), ("r", [1, 2, 4], 988)])
def test_imagenet_a_and_r_show_200_classes_which_timm_names(letter, first, last):
    numbers = classes_of_benchmark(letter)
    assert len(set(numbers)) == 200
    assert list(numbers[:3]) == first
    assert numbers[-1] == last  # acorn
    wnids = imagenet_wnids()
    assert [wnids[number] for number in numbers] == timm_list(f"imagenet_{letter}_synsets.txt").split()


def test_the_thousand_classes_are_sorted_wordnet_ids():
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert [wnids[number] for number in mini.NUMBERS.values()] == list(mini.NUMBERS)


def test_a_classifier_may_have_the_classes_in_any_order_or_some_of_them_or_by_number():
    places = places_in(KNOWN)
    assert {number: int(places[number]) for number in mini.NUMBERS.values()} == {0: 2, 1: 3, 6: 1, 11: 0}
    assert (places >= 0).sum() == 4
    assert places_in([str(number) for number in range(1000)]).tolist() == list(range(1000))
    backwards = imagenet_wnids()[::-1]
    assert places_in(backwards).tolist() == list(range(999, -1, -1))
    assert is_whole(backwards)
    assert not is_whole(KNOWN)


@pytest.mark.parametrize("known", [["tench", "goldfish"], ["0", "1", "2"]])
def test_a_classifier_of_other_classes_is_refused(known):
    refused(rf"WordNet ids .*0 to 999.*knows {known[0]}, {known[1]}", places_in, known)


# Folders of class folders


def opened(name, folder, known=KNOWN):
    (found,) = open_benchmark(name, folder, known)
    images = found.open()
    return found, images, {key: known[label] for key, label in zip(images.keys, images.labels, strict=True)}


@pytest.mark.parametrize(("name", "shown"), [("imagenet-a", IN_A), ("imagenet-r", IN_R)])
def test_of_imagenet_a_and_r_the_classes_shown_alone_may_be_answered(tmp_path, name, shown):
    found, images, labels = opened(name, mini.class_folders(tmp_path / name, shown))
    assert len(images) == 2 * len(shown)
    assert all(key.split("/")[0] == label for key, label in labels.items())
    assert found.classes == tuple(sorted(KNOWN.index(each) for each in shown))
    assert (found.shift, found.severity, found.complete) == (name, None, None)
    assert [each.kind for each in images.left_out] == ["of unknown format .txt"]


def test_a_classifier_of_all_classes_answers_the_200_and_its_count_of_images_is_known(tmp_path):
    folder = mini.class_folders(tmp_path / "a", timm_list("imagenet_a_synsets.txt").split(), count=1)
    found, images, _ = opened("imagenet-a", folder, list(imagenet_wnids()))
    assert found.classes == classes_of_benchmark("a")
    assert (len(images), found.complete) == (200, 7500)


def test_numbered_folders_are_class_numbers_and_no_strings(tmp_path):
    _, images, labels = opened("imagenet-v2", mini.imagenet_v2(tmp_path / "v2"))
    assert {key.split("/")[0]: label for key, label in labels.items()} == {
        "0": TENCH, "1": GOLDFISH, "6": STINGRAY, "11": GOLDFINCH
    }  # fmt: skip
    assert len(images) == 8


def test_ten_is_behind_nine_for_a_classifier_of_a_thousand_numbers(tmp_path):
    folder = mini.class_folders(tmp_path / "v2", [str(number) for number in range(1000)], count=1)
    numbers = [str(number) for number in range(1000)]
    _, _, labels = opened("imagenet-v2", folder, numbers)
    assert all(key.split("/")[0] == label for key, label in labels.items())


def test_classes_that_the_classifier_lacks_are_left_out_by_name(tmp_path):
    folder = mini.class_folders(tmp_path / "sketch", [*KNOWN, "n01514859"], "JPEG")
    _, images, _ = opened("imagenet-sketch", folder)
    assert len(images) == 8
    assert ("n01514859", "of a class that the classifier lacks") in [(each.file, each.kind) for each in images.left_out]


def test_what_is_amiss_in_a_folder_is_said_in_one_line(tmp_path):
    folder = mini.class_folders(tmp_path / "a", IN_A)
    refused(r"nowhere is not there: ImageNet-A .*200 folders.*imagenet-a\.tar", open_benchmark, "imagenet-a",
            tmp_path / "nowhere", KNOWN)  # fmt: skip
    refused(r"has a folder 'a', which is no class of ImageNet-A", open_benchmark, "imagenet-a", tmp_path, KNOWN)
    (folder / TENCH).mkdir()  # a class of ImageNet, but not one of the 200
    refused(f"has a folder '{TENCH}', which is no class", open_benchmark, "imagenet-a", folder, KNOWN)
    (folder / TENCH).rmdir()
    shutil.rmtree(folder / GOLDFINCH)
    lacks = rf"lacks 1 of the 2 class folders .*first: {GOLDFINCH}\): unpack all of imagenet-a\.tar"
    refused(lacks, open_benchmark, "imagenet-a", folder, KNOWN)
    (folder / GOLDFINCH).mkdir()  # its images were not unpacked
    refused(lacks, open_benchmark, "imagenet-a", folder, KNOWN)
    refused("knows none of the 200 classes", open_benchmark, "imagenet-a", folder, [TENCH])


# ImageNet-C


def test_imagenet_c_is_a_set_for_each_corruption_and_severity(tmp_path):
    mini.imagenet_c(tmp_path / "blur", ["zoom_blur"])  # an archive in a folder of its own
    mini.imagenet_c(tmp_path, ["spatter", "gaussian_noise"])
    found = open_benchmark("imagenet-c", tmp_path, KNOWN)
    expected = [
        ("imagenet-c:" + name, level) for name in ("gaussian_noise", "zoom_blur", "spatter") for level in range(1, 6)
    ]
    assert [(each.shift, each.severity) for each in found] == expected
    images = found[7].open()
    assert images.where(0) == str(tmp_path / "blur" / "zoom_blur" / "3" / TENCH / "ILSVRC2012_val_00000003.JPEG")
    assert [KNOWN[label] for label in images.labels] == sorted(KNOWN)


def test_there_are_15_corruptions_and_4_more_as_the_generator_names_them():
    from imagecorruptions import get_corruption_names

    assert (len(CORRUPTIONS), len(EXTRA)) == (15, 4)
    assert set(CORRUPTIONS) == set(get_corruption_names("common"))
    assert set(EXTRA) == set(get_corruption_names("validation"))


def test_a_half_unpacked_imagenet_c_is_refused(tmp_path):
    folder = tmp_path / "c"
    refused("c is not there: .*gaussian_noise/1/n01440764", open_benchmark, "imagenet-c", folder, KNOWN)
    mini.imagenet_c(folder, ["fog"], severities=(1, 2, 3, 5))
    refused(r"fog lacks severity 4: .*weather\.tar", open_benchmark, "imagenet-c", folder, KNOWN)
    mini.imagenet_c(folder, ["fog"])
    shutil.rmtree(folder / "fog" / "2" / STINGRAY)
    refused(rf"fog/2 lacks 1 of the 4 class folders .*{STINGRAY}", open_benchmark, "imagenet-c", folder, KNOWN)
    (folder / "mist").mkdir()
    refused("'mist', which is no corruption", open_benchmark, "imagenet-c", folder, KNOWN)
    (tmp_path / "empty").mkdir()
    refused("empty holds no corruption", open_benchmark, "imagenet-c", tmp_path / "empty", KNOWN)


# Several true classes


def answers_of(predicted):
    count = len(predicted)
    return Answers(
        targets=np.zeros(count, np.int64), predicted=np.array(predicted), confidence=np.ones(count),
        rank=np.ones(count, np.int64), loss=np.ones(count, np.float32), classes=4,
    )  # fmt: skip


def test_any_of_an_images_labels_is_right_and_images_without_one_do_not_count(tmp_path):
    file = mini.real_json(tmp_path / "real.json", [[0], [], [1, 6], [6, 388], [388]])
    truths = RealLabels(file, places_in(KNOWN).tolist())
    keys = [f"{TENCH}/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)]
    # tench 2, none, goldfish 3 or stingray 1, stingray 1 (panda is unknown), none that the classifier knows
    assert [truths(key) for key in keys] == [(2,), (), (3, 1), (1,), ()]
    judged = judge(answers_of([2, 2, 1, 3, 0]), keys, truths)
    assert judged.measures == [("accuracy", pytest.approx(2 / 3))]
    assert judged.images == 3


def test_timms_real_labels_are_50000_lists_of_which_3163_are_empty():
    truths = RealLabels("timm", range(1000))
    assert len(truths.lists) == 50000
    assert sum(not each for each in truths.lists) == 3163
    assert truths("val/n02123045/ILSVRC2012_val_00000002.JPEG") == (970, 795)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[[1000]]", '[["tench"]]', "[3]"])
def test_a_file_that_is_no_real_json_is_refused(tmp_path, content):
    (tmp_path / "real.json").write_text(content)
    refused(r"real\.json is no real\.json .*0 to 999", RealLabels, tmp_path / "real.json", list(range(1000)))


@pytest.mark.parametrize(
    "key", ["n01440764/photo.JPEG", "ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG"]
)
def test_images_that_are_no_validation_images_are_refused(tmp_path, key):
    truths = RealLabels(mini.real_json(tmp_path / "real.json", [[0]] * 3), range(1000))
    refused(f"{key}: expected --images of ImageNet's validation set", truths, key)


def test_objectnets_objects_may_be_of_several_classes_and_lose_their_border(tmp_path):
    found, images, labels = opened("objectnet", mini.objectnet(tmp_path / "objectnet-1.0"))
    assert images.keys == ["big_fish/10.png", "big_fish/11.png", "fish_tank_fish/00.png", "fish_tank_fish/01.png"]
    assert [found.truths(key) for key in images.keys] == [(2,), (2,), (3, 2), (3, 2)]
    assert labels["fish_tank_fish/00.png"] == GOLDFISH
    assert found.classes is None
    assert "air_freshener" in [each.file for each in images.left_out]
    inner = np.asarray(Image.open(images.where(0)))[2:-2, 2:-2]
    np.testing.assert_array_equal(images.read(0, mini.SIZE), inner.transpose(2, 0, 1))


def test_mappings_of_objectnet_that_do_not_fit_are_refused(tmp_path):
    folder = mini.objectnet(tmp_path / "objectnet-1.0") / "mappings"
    file = folder / "objectnet_to_imagenet_1k.json"
    file.write_text(json.dumps({"Fish": "carp"}))
    refused(r"mappings: its files do not fit together .*carp", read_mappings, folder)
    file.write_text("no json")
    refused(r"objectnet_to_imagenet_1k\.json is no JSON", read_mappings, folder)
    file.unlink()
    refused(r"objectnet_to_imagenet_1k\.json is not there: expected images/ and mappings/", read_mappings, folder)
    shutil.rmtree(tmp_path / "objectnet-1.0" / "images")
    mini.objectnet(tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "images" / "big_fish")
    refused("lacks 1 of the 2 class folders of ObjectNet", open_benchmark, "objectnet", tmp_path / "again", KNOWN)
