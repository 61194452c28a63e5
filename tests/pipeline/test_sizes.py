"""The rules by which `seitpp fit` chooses sizes, and the commands that they become."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import tiny
from seitpp.cli import STAGES
from seitpp.pipeline.facts import Facts
from seitpp.pipeline.hub_tokenizer import local_tokenizer
from seitpp.pipeline.sizes import even_third, plan
from seitpp.pipeline.steps import Way, fit_steps
from seitpp.pipeline.trial import Counts, Estimate, Pace, as_lines, extrapolated, steps_of
from seitpp.runtime.command import parse
from seitpp.runtime.errors import UserError
from seitpp.runtime.recipes import read_recipe
from seitpp.runtime.steps.step import Step

LAPTOP = Facts(
    images=3461, labelled=1300, test_images=560, classes=9, side=300, cores=2, gpus=0, memory=8 * 10**9
)  # fmt: skip
STATION = replace(LAPTOP, cores=16, gpus=1, memory=128 * 10**9)


def test_images_like_the_demos_get_the_demos_sizes():
    flags = plan(LAPTOP).flags
    assert flags["train-tokenizer"]["model.image_size"] == [64, 64]
    assert flags["train-tokenizer"]["model.codebook_size"] == 512
    for stage in ("train-tokenizer", "pretrain", "finetune"):
        _, recipe = read_recipe("demo", stage.replace("-", "_"))
        assert flags[stage]["batch_size"] == int(recipe["batch_size"])
    assert flags["pretrain"]["steps"] == 4600
    assert flags["finetune"]["steps"] == pytest.approx(280, abs=20)
    assert flags["finetune"]["seeds"] == 3


@pytest.mark.parametrize(("images", "batch"), [(2, 2), (9, 2), (13, 4), (95, 30), (96, 32), (10**6, 32)])
def test_a_batch_is_even_and_at_most_a_third_of_the_images(images, batch):
    assert even_third(images, 32) == batch


def test_few_images_get_small_batches_few_codes_and_steps_that_still_teach():
    sizes = plan(replace(LAPTOP, images=40, labelled=30, classes=3))
    assert sizes.flags["pretrain"]["batch_size"] == 12
    assert sizes.flags["finetune"]["batch_size"] == 10
    assert sizes.flags["train-tokenizer"]["model.codebook_size"] == 256  # 40 x 64 / 10
    assert sizes.flags["pretrain"]["steps"] == 1500
    assert sizes.flags["finetune"]["steps"] == 150


@pytest.mark.parametrize(("side", "input_side"), [(40, 64), (127, 64), (128, 128), (255, 128), (256, 256), (4000, 256)])
def test_a_gpu_gets_as_many_pixels_as_the_images_have_up_to_256(side, input_side):
    sizes = plan(replace(STATION, side=side))
    assert sizes.flags["train-tokenizer"]["model.image_size"] == [input_side, input_side]
    assert ("view" in sizes.flags["pretrain"]) == (input_side != 256)
    assert sizes.recipes["pretrain"] == "vit_small_256"
    assert sizes.flags["pretrain"]["shrink_batch"] is True


def test_imagenets_size_on_eight_gpus_is_counted_in_passes_over_the_images():
    sizes = plan(replace(STATION, images=1_281_167, labelled=1_281_167, classes=1000, gpus=8))
    assert sizes.processes == 8
    assert sizes.flags["pretrain"]["steps"] == round(200 * 1_281_167 / 256 / 8)
    assert sizes.flags["finetune"]["seeds"] == 1


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "lanes"),
    [(1, 0, 8e9, 1), (2, 0, 8e9, 2), (64, 0, 8e9, 2), (64, 0, 2e9, 1), (64, 1, 8e9, 1)],
)
def test_steps_run_side_by_side_where_cores_and_memory_allow(cores, gpus, memory, lanes):
    assert plan(replace(LAPTOP, cores=cores, gpus=gpus, memory=int(memory))).lanes == lanes


def test_quick_shortens_every_training():
    flags = plan(LAPTOP, quick=True).flags
    assert [flags[stage]["steps"] for stage in ("train-tokenizer", "train-tokenadapt", "pretrain", "finetune")] == [
        60, 20, 60, 15
    ]  # fmt: skip


@pytest.mark.parametrize("facts", [LAPTOP, STATION, replace(STATION, side=128, gpus=2), replace(LAPTOP, classes=0)])
def test_every_step_is_a_command_that_its_stage_takes(facts, monkeypatch):
    way = Way(folder=Path("my run"), images=Path("my run/images"), sizes=plan(facts))
    steps = fit_steps(way, labelled=facts.classes > 1)
    taken = []
    for step in steps:
        before = [each.name for each in steps[: steps.index(step)]]
        assert set(step.after) <= set(before)
        words = list(step.command)
        if words[0] == "accelerate":
            assert words[:4] == ["accelerate", "launch", "--num_processes", "2"]
            module, words = words[5], words[6:]
        else:
            module, words = STAGES[words[1]][0], words[2:]
        if step.name == "Report":
            continue
        monkeypatch.setattr(
            f"{module}.run_command",
            lambda main, config_class, *, recipes, words=words: taken.append(
                parse(config_class, words, recipes=recipes)
            ),
        )
        import_module(module).cli()
    assert len(taken) == len(steps) - 1


def test_a_tokenizer_that_is_there_is_not_trained_and_every_step_reads_it():
    facts = replace(STATION, grid=(16, 16))
    way = Way(folder=Path("run"), images=Path("run/images"), sizes=plan(facts), tokenizer="tokenizers/mine")
    steps = fit_steps(way, labelled=True)
    assert "Tokenizer" not in [step.name for step in steps]
    assert "run/tokenizer" not in " ".join(word for step in steps for word in step.command)
    assert plan(facts).flags["pretrain"]["view"] is None  # the recipe's 28 x 28 does not fit


def test_a_name_on_the_hub_that_is_none_is_one_line():
    with pytest.raises(UserError, match="hf://not/a/name can't be fetched") as refused:
        local_tokenizer("hf://not/a/name")
    tiny.one_line(str(refused.value))
    assert local_tokenizer("runs/tokenizer") == "runs/tokenizer"


# What a trial tells


def test_a_training_is_its_start_and_as_many_median_steps_as_are_planned_for_each_seed(tmp_path):
    rates = [1.0, 1.0, 1.0, 1.0, 48.0, 48.0, 24.0, 48.0]  # of the later half a step of 48 takes 1 s
    (tmp_path / "seed-0").mkdir()
    lines = [json.dumps({"step": step, "images_per_second": rate}) for step, rate in enumerate(rates)]
    (tmp_path / "seed-0" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    sizes = plan(LAPTOP)
    step = Step(name="Fine-tuning", command=("seitpp", "finetune", "--output_dir", str(tmp_path)), after=(), seconds=1)
    record = {"seconds": 20.0, "peak_memory_mb": 500}
    found = extrapolated(step, record, sizes, Counts(LAPTOP, 100, 10), Pace(0, 0))
    assert found.seconds == pytest.approx(12.0 + 3 * sizes.flags["finetune"]["steps"])
    assert found.memory == 500e6
    assert found.disk == 3 * (tmp_path / "seed-0" / "metrics.jsonl").stat().st_size


def test_another_step_is_its_trial_and_what_each_image_more_takes_and_a_store_takes_more_disk(tmp_path):
    (tmp_path / "store.json").write_bytes(b"1234567890")
    command = ("seitpp", "tokenize", "--output_dir", str(tmp_path))
    counts, record = Counts(replace(LAPTOP, images=1000, test_images=40), 100, 10), {"seconds": 7, "peak_memory_mb": 1}
    train = Step(name="Tokens of the training images", command=command, after=(), seconds=1)
    test = Step(name="Tokens of the test images", command=command, after=(), seconds=1)
    pace = Pace(tokens=0.5, features=0.25)
    assert extrapolated(train, record, plan(LAPTOP), counts, pace).seconds == pytest.approx(7 + 900 * 0.5)
    assert extrapolated(train, record, plan(LAPTOP), counts, pace).disk == 100
    assert extrapolated(test, record, plan(LAPTOP), counts, pace).seconds == pytest.approx(7 + 30 * 0.5)
    probing = Step(name="Probe", command=("seitpp", "probe", "--output_dir", str(tmp_path)), after=(), seconds=1)
    assert extrapolated(probing, record, plan(LAPTOP), counts, pace).seconds == pytest.approx(7 + 900 * 1.0)
    assert extrapolated(probing, record, plan(LAPTOP), counts, pace).disk == 10


def test_the_table_counts_cores_and_lanes():
    table = as_lines([Estimate("A", 60, 1e8, 1e6, cores=2), Estimate("B", 60, 3e9, 5e6)], lanes=2, images=7)
    assert table[1].split() == ["A", "1", "min", "00", "s", "100.0", "MB", "1.0", "MB"]
    assert table[3].split() == ["all", "1", "min", "30", "s", "6.0", "GB", "6.0", "MB"]
    assert table[4].startswith("measured here on 7 of the images and 8 steps")


def test_steps_that_the_plan_does_not_say_are_the_recipes():
    sizes = plan(LAPTOP)
    assert [steps_of(stage, sizes) for stage in ("train-tokenizer", "train-tokenadapt", "pretrain")] == [800, 400, 4600]
