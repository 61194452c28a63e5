"""The numbers behind the page: results of all runs, methods told apart, means over seeds and severities."""

from dataclasses import replace

import pandas as pd
import pytest

from report_runs import MTM, PIXELS, measured, report, robustness_results, write_finetuning, write_run
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import find_runs
from seitpp.report.scores import differences, scores, shift_scores
from seitpp.runtime.results import COLUMNS, read_results


def probes_of(tmp_path, **results):
    """Results of runs of seitpp.finetune.probe, {name: rows}."""
    for name, rows in results.items():
        write_run(tmp_path / "runs" / name, "finetune.probe", summary={}, results=rows)
    return all_results(find_runs([tmp_path / "runs"]))


def summary_of(found):
    return [(score.name, round(score.mean, 6), score.seeds) for score in found]


# --- all results


def test_results_csv_has_every_row_of_every_run_and_names_the_run(demo):
    report(demo)
    written = read_results([demo.parent / "page"])
    folders = sorted(path.parent for path in demo.glob("*/results.csv"))
    expected = pd.concat([read_results([folder]).assign(run=folder.as_posix()) for folder in folders])
    assert list(written.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(written, expected.reset_index(drop=True).astype(written.dtypes))


def test_rows_belong_to_the_part_of_the_page_that_their_run_is_for(demo):
    table = all_results(find_runs([demo]))
    parts = {name: set(rows["part"]) for name, rows in table.groupby(table["run"].str.split("/").str[-1])}
    assert parts == {"finetune": {"main"}, "scratch": {"main"}, "probe": {"main"}, "robustness": {"robustness"}}
    assert set(table["label"]) == {""}  # clean images are measured by two stages, which are two parts


def test_a_shift_that_any_other_stage_measured_counts_as_robustness(tmp_path):
    rows = measured("mtm", [0.3], protocol="linear") + measured("mtm", [0.2], protocol="linear", shift="sketch")
    assert probes_of(tmp_path, probe=rows)["part"].tolist() == ["main", "robustness"]


def test_without_results_the_table_has_its_columns(tmp_path):
    write_run(tmp_path / "mtm", "mtm.pretrain", summary={})
    table = all_results(find_runs([tmp_path]))
    assert len(table) == 0
    assert [*COLUMNS, "part", "label"] == list(table.columns)


def test_two_runs_that_measured_the_same_are_told_apart(tmp_path):
    table = probes_of(
        tmp_path,
        first=measured("pixels", [0.3], protocol="linear") + measured("", [0.1], protocol="majority", dataset="cars"),
        second=measured("pixels", [0.5], protocol="linear"),
    )
    assert summary_of(scores(table[table["dataset"] == "pets"])) == [
        (f"{PIXELS} (second)", 0.5, 1), (f"{PIXELS} (first)", 0.3, 1)
    ]  # fmt: skip
    assert summary_of(scores(table[table["dataset"] == "cars"])) == [("majority class", 0.1, 1)]


def test_runs_of_different_seeds_are_one_method(tmp_path):
    more = [replace(each, seed=2) for each in measured("mtm", [0.6])]
    table = probes_of(tmp_path, first=measured("mtm", [0.2, 0.4]), second=more)
    assert summary_of(scores(table)) == [(MTM, 0.4, 3)]


def test_tokenizers_are_not_averaged(tmp_path):
    other = [replace(each, seed=1) for each in measured("mtm", [0.6], tokenizer="b" * 64)]
    table = probes_of(tmp_path, first=measured("mtm", [0.2], tokenizer="a" * 64), second=other)
    assert summary_of(scores(table)) == [(f"{MTM} (second)", 0.6, 1), (f"{MTM} (first)", 0.2, 1)]


# --- scores and differences


def test_a_score_is_mean_and_standard_deviation_over_seeds(tmp_path):
    (score,) = scores(probes_of(tmp_path, tuned=measured("mtm", [0.5, 0.6, 0.7])))
    assert (score.mean, score.std, score.seeds) == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert (score.train_images, score.test_images, score.text) == (40, 50, "60.0 ± 10.0")
    assert score.standard_error == pytest.approx((0.6 * 0.4 / 50) ** 0.5)


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    rows = measured("mtm", [float("nan")]) + measured("scratch", [0.5])
    assert summary_of(scores(probes_of(tmp_path, tuned=rows))) == [("from scratch", 0.5, 1)]


def test_differences_are_taken_to_the_best_run_from_scratch(tmp_path):
    write_finetuning(tmp_path / "runs" / "tuned", "mtm", [0.6])
    write_finetuning(tmp_path / "runs" / "long", "scratch", [0.5])
    write_finetuning(tmp_path / "runs" / "short", "scratch", [0.4])
    found = scores(all_results(find_runs([tmp_path / "runs"])))
    (difference,) = differences(found)
    assert (difference.pretrained.name, difference.scratch.name) == (MTM, "from scratch (long)")
    assert (difference.value, difference.std, difference.verdict) == (pytest.approx(0.1), None, "unknown")
    assert differences(found[1:]) == []


def test_differences_are_taken_to_a_run_from_scratch_on_as_many_labels(tmp_path):
    table = probes_of(
        tmp_path,
        all=measured("mtm", [0.6]) + measured("scratch", [0.5]),
        few=measured("mtm", [0.4], label_fraction=0.2) + measured("scratch", [0.1], label_fraction=0.2),
        tiny=measured("mtm", [0.2], budget_bytes=1000),
    )
    found = [(each.pretrained.mean, each.scratch.mean) for each in differences(scores(table))]
    assert found == [(0.6, 0.5), (0.4, 0.1)]


# --- shifts


def shifts_of(tmp_path, rows):
    write_run(tmp_path / "runs" / "robustness", "downstream.robustness", summary={}, results=rows)
    return shift_scores(all_results(find_runs([tmp_path / "runs"])))


def test_severities_are_averaged_seed_by_seed(tmp_path):
    clean, contrast, sketch = shifts_of(tmp_path, robustness_results())
    assert [(each.name, each.severities) for each in (clean, contrast, sketch)] == [
        ("clean", ()), ("contrast", (1, 3, 5)), ("sketch", ())
    ]  # fmt: skip
    assert summary_of(contrast.scores) == [(MTM, 0.41, 3), ("from scratch", 0.36, 3)]
    assert contrast.scores[0].std == pytest.approx(0.01)  # over seeds: severities differ by far more
    assert [score.test_images for score in sketch.scores] == [30, 30]


def test_clean_images_come_first(tmp_path):
    rows = measured("mtm", [0.2], shift="sketch") + measured("mtm", [0.6])
    assert [each.name for each in shifts_of(tmp_path, rows)] == ["clean", "sketch"]


def test_accuracies_over_other_severities_are_another_set(tmp_path):
    rows = measured("mtm", [0.2], shift="fog", severity=1) + measured("mtm", [0.1], shift="fog", severity=5)
    rows += measured("scratch", [0.3], shift="fog", severity=1)
    found = shifts_of(tmp_path, rows)
    assert {each.name: summary_of(each.scores) for each in found} == {
        "fog, average over severities 1, 5": [(MTM, 0.15, 1)],
        "fog, severity 1": [("from scratch", 0.3, 1)],
    }


def test_the_page_has_a_row_a_shift_and_says_what_it_averages(demo):
    page = report(demo)
    table = page.section("robustness")
    for words in ("clean (50 images)", "contrast (50 images)", "sketch (30 images)", "60.0 ± 2.0", "41.0 ± 1.0"):
        assert words in table
    assert "corruptions: contrast (average over severities 1, 3, 5)" in page.text
    assert "on clean (+8.0 ± 2.8 points)" in page.text
    assert "on sketch (\u22125.0 ± 1.4 points)" in page.text
    improved = page.text[page.text.rindex("What pre-training does not improve") :]
    assert f"pets on sketch images, {MTM} (\u22125.0 ± 1.4 points)" in improved
    assert "pets on contrast images" not in improved
