"""The demo: its steps, and the folder that it refuses."""

import pytest
from PIL import Image

from seitpp.demo.demo import DemoConfig, main
from seitpp.demo.steps import make_steps
from seitpp.downstream.robustness import RobustnessConfig
from seitpp.runtime.command import parse
from seitpp.runtime.errors import UserError


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
    assert sum("--batch_size" in each.command for each in make_steps(images.parent)) == 5


def test_a_demo_may_lie_in_a_folder_of_any_name(images, tmp_path):
    """`--classifiers [demo, v2/…]` were two names."""
    folder = tmp_path / "demo, v2 [no]: 1"
    (folder / "images" / "sketch").mkdir(parents=True)
    (folder / "images" / "train").mkdir()
    (step,) = [each for each in make_steps(folder) if each.name == "Robustness"]
    config = parse(RobustnessConfig, step.command[2:], recipes="robustness")
    assert config.classifiers == (f"{folder}/scratch-categories", f"{folder}/finetune-categories")
    assert config.domains == {"sketch": f"{folder}/images/sketch"}
    assert config.output_dir == f"{folder}/robustness"


def test_a_folder_of_another_demo_is_refused(tmp_path):
    (tmp_path / "demo.txt").write_text("OpenMoji\n")
    with pytest.raises(UserError, match="holds a demo of OpenMoji: choose another --output_dir"):
        main(DemoConfig(images=str(tmp_path / "photos"), output_dir=str(tmp_path)))
