"""The demo: its steps, and the folder that it refuses."""

import shutil

import pytest
from PIL import Image

import tiny
from seitpp.demo import demo
from seitpp.demo.demo import DemoConfig, main
from seitpp.demo.steps import make_steps
from seitpp.downstream.robustness import RobustnessConfig
from seitpp.downstream.storage_curve import StorageCurveConfig
from seitpp.runtime.command import parse
from seitpp.runtime.errors import UserError
from seitpp.runtime.steps.runner import StepRunner


@pytest.fixture
def images(tmp_path):
    """Prepared images of two classes: 6 training and 2 test images of each."""
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / "images" / part / name / f"{index}.png")
    return tmp_path / "images"


def test_every_step_needs_only_steps_before_it(images):
    steps = make_steps(images.parent)
    names = [each.name for each in steps]
    assert len(set(names)) == len(names)
    for place, each in enumerate(steps):
        assert set(each.after) <= set(names[:place])


def test_without_sub_groups_and_sketches_those_steps_are_left_out(images):
    text = " ".join(word for each in make_steps(images.parent) for word in each.command)
    assert "sub-groups" not in text
    assert "sketch" not in text
    assert "on-black" not in text
    (images / "sketch").mkdir()
    (images / "subgroups.csv").write_text("key,label\ncat/0.png,small\n")
    text = " ".join(word for each in make_steps(images.parent) for word in each.command)
    assert "sub-groups" in text
    assert "sketch" in text


def test_batches_shrink_to_fit_few_images(images):
    for each in make_steps(images.parent):
        if "--batch_size" in each.command:
            size = int(each.command[each.command.index("--batch_size") + 1])
            assert size % 2 == 0
            assert 2 <= size <= 4
    assert sum("--batch_size" in each.command for each in make_steps(images.parent)) == 7


def test_a_fifth_of_the_labels_is_learned_from_where_that_leaves_some_of_every_class(images):
    assert not [each for each in make_steps(images.parent) if "fifth" in each.name]
    for name in ("cat", "dog"):
        for index in range(20):
            Image.new("RGB", (8, 8)).save(images / "train" / name / f"more-{index}.png")
    named = {each.name: list(each.command) for each in make_steps(images.parent) if "fifth" in each.name}
    assert len(named) == 4
    subset = named["A fifth of the labels"]
    assert subset[subset.index("--classes") + 1 :][:3] == ['["cat", "dog"]', "--fraction", "0.2"]
    for name in ("From scratch, a fifth of the labels", "Fine-tuning, a fifth of the labels"):
        sizes = [int(named[name][place + 1]) for place, word in enumerate(named[name]) if word == "--batch_size"]
        assert sizes[-1] == 2  # of 10 images; the last counts


def test_what_needs_many_images_is_left_out_of_small_demos(images, monkeypatch):
    large = {"Neighbours and a map of features", "Storage curve"}
    assert not large & {each.name for each in make_steps(images.parent)}
    monkeypatch.setattr("seitpp.demo.steps._MANY", {"train": 12, "test": 4})
    steps = {each.name: each.command for each in make_steps(images.parent, quick=True)}
    assert large <= set(steps)
    config = parse(StorageCurveConfig, steps["Storage curve"][2:], recipes="storage_curve")
    assert (config.budgets, config.ingredients, config.quick) == (("0.25", "1.0"), ("scratch",), True)


def test_a_demo_may_lie_in_a_folder_of_any_name(images, tmp_path):
    """`--classifiers [demo, v2/…]` were two names."""
    folder = tmp_path / "demo, v2 [no]: 1"
    for name in ("sketch", "on-black", "train"):
        (folder / "images" / name).mkdir(parents=True)
    (step,) = [each for each in make_steps(folder) if each.name == "Robustness"]
    config = parse(RobustnessConfig, step.command[2:], recipes="robustness")
    assert config.classifiers == (f"{folder}/scratch-categories", f"{folder}/finetune-categories")
    assert config.domains == {name: f"{folder}/images/{name}" for name in ("sketch", "on-black")}
    assert config.output_dir == f"{folder}/robustness"


def test_a_folder_of_another_demo_is_refused(tmp_path):
    (tmp_path / "demo.txt").write_text("OpenMoji\n")
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds a demo of OpenMoji: choose another --output_dir"):
        main(DemoConfig(images=str(tmp_path / "photos"), output_dir=str(tmp_path)))


def test_a_folder_that_is_no_demo_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "demo.txt").write_text("a demo of mine\nwith notes\n")
    with pytest.raises(UserError, match=r"holds demo.txt and is not a demo: choose another --output_dir"):
        main(DemoConfig(images=str(tmp_path.parent / "photos"), output_dir=str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.txt", "images"]


def test_a_first_try_that_is_refused_does_not_keep_the_corrected_one_out(tmp_path):
    for name in ("typo", "photos"):
        with pytest.raises(UserError, match=f"{name} does not exist"):
            main(DemoConfig(images=str(tmp_path / name), output_dir=str(tmp_path / "demo")))


def test_images_and_demo_in_one_another_are_refused(tmp_path):
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    for output in ("photos", "photos/demo", "."):
        with pytest.raises(UserError, match=r"--output_dir .* --images .*: choose another --output_dir"):
            main(DemoConfig(images=str(tmp_path / "photos"), output_dir=str(tmp_path / output)))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["ant"]


def begin(monkeypatch, folder, **fields):
    """A demo as far as to the steps that it would run."""
    monkeypatch.setattr(demo, "_check_extras", lambda config: None)
    monkeypatch.setattr(StepRunner, "run", lambda self: None)
    main(DemoConfig(output_dir=str(folder), **fields))


def test_a_demo_goes_on_where_its_images_were_moved_and_not_with_others(tmp_path, monkeypatch):
    photos = tiny.make_images(tmp_path / "photos", {"ant": 6, "bee": 6}, size=(32, 32))
    begin(monkeypatch, tmp_path / "demo", images=str(photos))
    moved = photos.rename(tmp_path / "elsewhere")
    begin(monkeypatch, tmp_path / "demo", images=str(moved))
    with pytest.raises(UserError, match=r"holds a demo of .*elsewhere: "):
        begin(monkeypatch, tmp_path / "demo", images=str(moved), quick=True)
    shutil.copy(moved / "ant" / "000.png", moved / "ant" / "more.png")
    with pytest.raises(UserError, match=r"holds a demo of .*elsewhere as they were before: choose another"):
        begin(monkeypatch, tmp_path / "demo", images=str(moved))
    shutil.rmtree(moved)
    begin(monkeypatch, tmp_path / "demo", images=str(moved))  # they were read before


def test_a_demo_of_an_older_version_is_known_by_its_path(tmp_path, monkeypatch):
    photos = tiny.make_images(tmp_path / "photos", {"ant": 6, "bee": 6}, size=(32, 32))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo.txt").write_text(f"{photos.resolve()}\n")
    begin(monkeypatch, tmp_path / "demo", images=str(photos))
    assert len((tmp_path / "demo" / "demo.txt").read_text().splitlines()) == 2  # and by what they are from now on
