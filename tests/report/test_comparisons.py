"""Several runs of a stage: their curves in one chart, the settings in which they differ, accuracy against epochs."""

import json
import re

import pytest

from report_runs import measured, report, write_finetuning, write_run
from seitpp.report.comparisons import comparison_sections, differing_table
from seitpp.report.curves import MOST_RUNS, curves_chart, run_colours, steps_per_epoch
from seitpp.report.found_runs import find_runs
from seitpp.report.tables import NOTHING, markdown_rows


def pretraining(folder, entropy, **config):
    """A run of seitpp.mtm.pretrain: two lines of training, two evaluations."""
    metrics = [
        {"step": 0, "lr": 0.1, "cross_entropy": entropy + 2}, {"step": 1, "eval_cross_entropy": entropy + 1},
        {"step": 1, "lr": 0.1, "cross_entropy": entropy + 1}, {"step": 2, "eval_cross_entropy": entropy},
    ]  # fmt: skip
    return write_run(folder, "mtm.pretrain", summary={}, metrics=metrics, output_dir=str(folder), **config)


def classifier(folder, accuracies, init="mtm", **config):
    """A fine-tuning of 40 images in batches of 5 with an evaluation every eight steps, a seed for each row."""
    config = {"batch_size": 5, "accum_iter": 1, "steps": 8 * len(accuracies[0]), **config}
    write_run(
        folder, "finetune.train", summary={}, dataset="pets", weights="runs/mtm" if init == "mtm" else None,
        results=measured(init, [row[-1] for row in accuracies]), **config,
    )  # fmt: skip
    for seed, row in enumerate(accuracies):
        lines = [{"step": 8 * (place + 1), "accuracy": value} for place, value in enumerate(row)]
        lines += [{"step": 8 * place + 7, "lr": 0.1, "loss": 2.0 - place} for place in range(len(row))]
        write_run(folder / f"seed-{seed}", "finetune.train/once", metrics=sorted(lines, key=lambda each: each["step"]))
    return folder


def runs_of(folder):
    return find_runs([folder]).runs


def polylines(svg):
    """{class: [points]} of an SVG's lines."""
    found = {}
    for name, points in re.findall(r'<polyline class="line ([^"]*)"[^>]* points="([^"]*)"', str(svg)):
        found.setdefault(name, []).append([tuple(map(float, each.split(","))) for each in points.split()])
    return found


def test_runs_of_a_stage_share_a_chart_of_training_and_one_of_evaluations(tmp_path):
    for name, entropy in (("first", 3.0), ("second", 2.0)):
        pretraining(tmp_path / name, entropy)
    (section,) = comparison_sections(find_runs([tmp_path]))
    assert section["title"] == "Pre-training"
    assert [chart["caption"].split(":")[0] for chart in section["charts"]] == ["Training", "Evaluation"]
    assert section["legend"] == [("c-run hue-0", "first"), ("c-run hue-1", "second")]
    assert section["left_out"] == 0
    ends = [re.findall(r'class="end c-run hue-."[^>]*>([^<]*)<', chart["picture"]) for chart in section["charts"]]
    assert ends == [["4", "3"], ["3", "2"]]  # the last values, from the top
    for chart in section["charts"]:
        lines = polylines(chart["picture"])
        assert sorted(lines) == ["c-run hue-0", "c-run hue-1"]
        (first,), (second,) = lines["c-run hue-0"], lines["c-run hue-1"]
        assert [x for x, _ in first] == [x for x, _ in second]
        assert all(above[1] < below[1] for above, below in zip(first, second, strict=True))  # SVG counts from the top


def test_one_run_of_a_stage_is_not_compared(tmp_path):
    pretraining(tmp_path / "mtm", 3.0)
    write_finetuning(tmp_path / "finetune", "mtm", (0.5, 0.6))
    assert comparison_sections(find_runs([tmp_path])) == []
    assert 'id="compared"' not in report(tmp_path).source


def test_fine_tunings_of_other_data_sets_are_not_compared(tmp_path):
    write_run(tmp_path / "cars", "finetune.train", summary={}, dataset="cars", seed=1)
    for name, seed in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, "finetune.train", summary={}, dataset="pets", seed=seed)
    (section,) = comparison_sections(find_runs([tmp_path]))
    assert (section["title"], section["charts"], section["legend"]) == ("Fine-tuning, pets", [], [])
    assert [row for row, _ in section["tables"][0].rows] == ["seed"]


def test_only_settings_that_differ_are_listed_in_words_in_the_order_of_their_files(tmp_path):
    common = {"batch_size": 8, "betas": [0.9, 0.95]}
    pretraining(tmp_path / "a", 3.0, **common, lr=0.1, augment={"flip": 0.5, "token_adapt": None}, steps=None)
    pretraining(tmp_path / "b", 3.0, **common, lr=0.2, augment={"flip": 0.5, "token_adapt": "/x/" + 50 * "y"}, new=[])
    table = differing_table("Pre-training", runs_of(tmp_path))
    assert markdown_rows(table) == [
        "| setting | a | b |", "|---|---:|---:|", f"| augment.token_adapt | none | \u2026{39 * 'y'} |",
        "| lr | 0.1 | 0.2 |", f"| steps | none | {NOTHING} |", f"| new | {NOTHING} | none |",
    ]  # fmt: skip


def test_runs_with_the_same_settings_are_said_to_have_the_same(tmp_path):
    for name in "ab":
        pretraining(tmp_path / name, 3.0, lr=0.1)
    assert differing_table("Pre-training", runs_of(tmp_path)) is None
    assert "They have the same settings." in report(tmp_path).text


def test_a_chart_has_no_more_runs_than_can_be_told_apart(tmp_path):
    for place in range(MOST_RUNS + 2):
        pretraining(tmp_path / f"run-{place:02}", 3.0, seed=place)
    (section,) = comparison_sections(find_runs([tmp_path]))
    assert section["left_out"] == 2
    assert len({classes for classes, _ in section["legend"]}) == len(section["legend"]) == MOST_RUNS
    assert section["legend"][-1] == ("c-run hue-5 broken", "run-11")
    assert len(section["tables"][0].columns) == 1 + MOST_RUNS
    assert "2 more runs are not shown." in report(tmp_path).text


def test_accuracy_of_fine_tuning_is_drawn_against_epochs(tmp_path):
    classifier(tmp_path / "finetune", [(0.2, 0.5, 0.6), (0.3, 0.5, 0.7)])
    classifier(tmp_path / "scratch", [(0.1, 0.2, 0.3)], init="scratch")
    assert [steps_per_epoch(run) for run in runs_of(tmp_path)] == [8, 8]  # 40 images in batches of 5
    section = report(tmp_path).section("results")
    loss, accuracy = re.findall(r"<svg class=\"chart\".*?</svg>", section, re.DOTALL)
    assert "training loss" in loss
    lines = polylines(accuracy)
    assert {name: len(each) for name, each in lines.items()} == {"c-mtm": 2, "c-scratch": 1}
    assert re.findall(r'class="tick"[^>]*middle">([^<]*)<', accuracy)[-1] == "3"  # epochs
    assert ">epoch<" in accuracy
    assert ">accuracy on test images, %<" in accuracy
    assert accuracy.count("<circle") == 9


def test_a_single_evaluation_is_no_curve(tmp_path):
    classifier(tmp_path / "finetune", [(0.6,), (0.7,)])
    assert report(tmp_path).section("results").count('<svg class="chart"') == 1


@pytest.mark.parametrize(("fields", "expected"), [({"batch_size": None}, None), ({"accum_iter": 2}, 4), ({}, 8)])
def test_the_length_of_an_epoch_is_known_from_images_and_effective_batch(tmp_path, fields, expected):
    (run,) = runs_of(classifier(tmp_path / "finetune", [(0.6,)], **fields))
    assert steps_per_epoch(run) == expected


def test_processes_share_an_epoch(tmp_path):
    folder = classifier(tmp_path / "finetune", [(0.6,)])
    (folder / "env.json").write_text(json.dumps({"processes": 4}))
    (run,) = runs_of(folder)
    assert steps_per_epoch(run) == 2


def test_where_one_run_does_not_know_its_epochs_all_are_drawn_against_steps(tmp_path):
    classifier(tmp_path / "a", [(0.2, 0.5)])
    classifier(tmp_path / "b", [(0.2, 0.5)], batch_size=None)
    runs = runs_of(tmp_path)
    drawn = {"title": "", "y_label": "", "of_evaluations": True, "epochs": True}
    assert ">step<" in curves_chart(runs, ("accuracy",), **drawn)
    assert ">epoch<" in curves_chart(runs[:1], ("accuracy",), **drawn)


def test_the_first_measure_that_a_run_has_is_drawn(tmp_path):
    pretraining(tmp_path / "a", 3.0)
    runs = runs_of(tmp_path)
    drawn = {"title": "", "y_label": "", "colours": run_colours(runs)}
    assert polylines(curves_chart(runs, ("nothing", "cross_entropy"), of_evaluations=False, **drawn))
    assert curves_chart(runs, ("cross_entropy",), of_evaluations=True, **drawn) == ""
