"""The section of `seitpp evaluate`: its numbers are those of the runs, and no other section takes them for its own."""

from report_runs import measured, report, write_finetuning, write_run

EVALUATION = "finetune.evaluation"
DASH = "\u2013"


def evaluated(init, **values):
    """Results of a method of two seeds, by metric."""
    return [row for metric, each in values.items() for row in measured(init, each, metric=metric, test_images=5000)]


def test_all_measures_of_a_classifier_are_in_one_table(tmp_path):
    rows = evaluated("mtm", accuracy=(0.6, 0.64), top5=(0.9, 0.9), ece=(0.051, 0.049), cross_entropy=(1.25, 1.75))
    write_run(tmp_path / "mtm", EVALUATION, summary={}, results=rows)
    rows = evaluated("scratch", accuracy=(0.5,), accuracy_low=(0.47,))
    write_run(tmp_path / "scratch", EVALUATION, summary={}, results=rows)
    page = report(tmp_path)
    assert "Evaluation" in page.headings
    text = page.text.replace("\u00a0", " ")
    assert "fine-tuned from MTM; 5,000 images, seeds: 2 from scratch; 5,000 images, seeds: 1" in text
    for line in (
        "top-1 accuracy 62.0 ± 2.8 % 50.0 %",
        f"top-5 accuracy 90.0 ± 0.0 % {DASH}", f"calibration error 5.0 ± 0.1 % {DASH}",
        f"cross-entropy 1.500 ± 0.354 nats {DASH}", f"95 % interval, from {DASH} 47.0 %",
    ):  # fmt: skip
        assert line in text


def test_fine_tuning_that_is_measured_again_is_one_result(tmp_path):
    write_finetuning(tmp_path / "finetune", "mtm", (0.58, 0.6, 0.62))
    before = report(tmp_path / "finetune").section("results")
    write_run(tmp_path / "evaluate", EVALUATION, summary={}, results=evaluated("mtm", accuracy=(0.1, 0.2, 0.3)))
    assert report(tmp_path / "finetune", tmp_path / "evaluate").section("results") == before


def test_without_an_evaluation_there_is_no_section(demo):
    assert "Evaluation" not in report(demo).headings
