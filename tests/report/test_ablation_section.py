"""The ablation's section, and its tables as Markdown."""

import pytest

from report_runs import Page, measured, report, write_run
from seitpp.report.ablation import ablation_sections, as_markdown
from seitpp.report.found_runs import find_runs
from seitpp.report.report import write_report

STARTS = {
    "scratch": {"init": "scratch"},
    "mtm": {"init": "mtm"},
    "tokenadapt": {"init": "mtm", "augmentation": "tokenadapt"},
}


def rows_of(values, *, fraction=1.0, **fields):
    """Results of the ablation's runs, {start: a value a seed}."""
    return [
        row
        for start, numbers in values.items()
        for row in measured(
            accuracies=numbers, label_fraction=fraction, train_images=round(1234 * fraction), **STARTS[start], **fields
        )
    ]


def write_ablation(folder, rows, **config):
    config = {"pretrain": "p", "finetune": "f", "quick": False, **config}
    return write_run(folder, "downstream.ablation", summary={}, results=rows, **config)


ROWS = [
    *rows_of({"scratch": [0.5, 0.7], "mtm": [0.6, 0.6], "tokenadapt": [0.5, 0.6]}),
    *rows_of({"scratch": [2.0, 2.5], "mtm": [1.0, 1.5], "tokenadapt": [1.0, 1.5]}, metric="cross_entropy"),
    *measured("random", [0.1, 0.1], protocol="knn10", train_images=1234),  # the control of training from scratch
    *rows_of({"mtm": [0.2, 0.3], "tokenadapt": [0.3, 0.4]}, protocol="knn10"),
    *rows_of({"scratch": [0.25, 0.25], "mtm": [0.5, 0.25], "tokenadapt": [0.5, 0.5]}, fraction=0.075),
]
TABLES = [
    "**pets, 100 % of the labels (1,234 images; 50 test images)**",
    "",
    "| start | fine-tuning | 10-NN |",
    "|---|---:|---:|",
    "| from scratch | **60.0 ± 14.1** (+0.0 ± 14.1) | 10.0 ± 0.0 (\u221215.0 ± 7.1) |",
    "| MTM | **60.0 ± 0.0** | 25.0 ± 7.1 |",
    "| MTM + TokenAdapt | 55.0 ± 7.1 (\u22125.0 ± 7.1) | **35.0 ± 7.1** (+10.0 ± 0.0) |",
    "",
    "**pets, 7.5 % of the labels (93 images; 50 test images)**",
    "",
    "| start | fine-tuning |",
    "|---|---:|",
    "| from scratch | 25.0 ± 0.0 (\u221212.5 ± 17.7) |",
    "| MTM | 37.5 ± 17.7 |",
    "| MTM + TokenAdapt | **50.0 ± 0.0** (+12.5 ± 17.7) |",
    "",
]


def test_the_markdown_has_a_table_a_fraction_with_accuracies_and_paired_differences(tmp_path):
    write_ablation(tmp_path / "ablation", ROWS)
    write_report([tmp_path / "ablation"], tmp_path / "page" / "report.html")
    legend, empty, *tables = (tmp_path / "page" / "ablation.md").read_text().split("\n")
    assert (empty, tables) == ("", TABLES)
    for words in ("over 2 seeds", "plain MTM", "\u201cfrom scratch\u201d", "pre-training p, fine-tuning f"):
        assert words in legend


def test_the_page_has_the_same_tables_and_the_best_of_a_column_is_bold(tmp_path):
    page = report(write_ablation(tmp_path / "ablation", ROWS))
    table = page.section("ablation")
    assert "Ablation" in " ".join(page.headings)
    assert "pets, 100 % of the labels (1,234 images; 50 test images)" in page.text
    assert "MTM + TokenAdapt 55.0 ± 7.1 (\u22125.0 ± 7.1) 35.0 ± 7.1 (+10.0 ± 0.0)" in page.text
    for bold in ("60.0 ± 14.1", "60.0 ± 0.0", "35.0 ± 7.1", "50.0 ± 0.0"):  # of the first two one is as good
        assert f"<b>{bold}</b>" in table
    assert table.count("<b>") == 4
    assert 'id="results"' not in page.source


def test_shifts_are_columns_averaged_over_their_severities(tmp_path):
    rows = rows_of({"mtm": [0.6], "tokenadapt": [0.6]})
    for severity, value in ((1, 0.5), (5, 0.1)):
        rows += rows_of({"mtm": [value], "tokenadapt": [value + 0.1]}, shift="gaussian_noise", severity=severity)
    rows += rows_of({"mtm": [0.2]}, shift="sketch", test_images=60)
    (section,) = ablation_sections(find_runs([write_ablation(tmp_path / "ablation", rows)]))
    (table,) = section["tables"]
    assert table.columns == ("start", "fine-tuning", "gaussian noise", "sketch")
    assert table.caption == "pets, 100 % of the labels (1,234 images; 50 test images)"
    name, (plain, noise, sketch) = table.rows[1]
    assert (name, sketch) == ("MTM + TokenAdapt", None)
    assert (plain.text, plain.note, plain.best) == ("60.0", "+0.0", True)
    assert (noise.text, noise.note, noise.best) == ("40.0", "+10.0", True)
    assert noise.value == pytest.approx(40)
    assert "average over severities 1, 5" in section["legend"]
    assert "of one seed" in section["legend"]
    assert "from scratch" not in section["legend"]
    assert "| MTM + TokenAdapt | **60.0** (+0.0) | **40.0** (+10.0) | \u2013 |" in as_markdown([section])


def test_a_rehearsal_says_so_first(tmp_path):
    run = write_ablation(tmp_path / "ablation", rows_of({"tokenadapt": [0.5]}), quick=True)
    markdown = as_markdown(ablation_sections(find_runs([run])))
    first, _, legend, *_ = markdown.split("\n")
    assert "rehearsal" in first
    assert "difference" not in legend  # there is no plain MTM to compare with
    assert "rehearsal" in report(run).text


def test_several_ablations_are_told_apart(tmp_path):
    for name in ("one", "two"):
        write_ablation(tmp_path / "runs" / name, rows_of({"mtm": [0.5]}))
    markdown = as_markdown(ablation_sections(find_runs([tmp_path / "runs"])))
    assert [line for line in markdown.split("\n") if line.startswith("#")] == ["## one", "## two"]


@pytest.mark.parametrize("stage", ["downstream.ablation", "finetune.probe"])
def test_without_results_of_an_ablation_there_is_no_section_and_no_file(tmp_path, stage):
    rows = [] if stage == "downstream.ablation" else rows_of({"mtm": [0.5]})
    run = write_run(tmp_path / "run", stage, results=rows)
    written = write_report([run], tmp_path / "page" / "report.html")
    assert {path.name for path in written} <= {"report.html", "results.csv", "tables"}
    assert 'id="ablation"' not in Page(written[0]).source
