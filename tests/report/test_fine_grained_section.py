"""The section of transfer to other data sets: of each set the metric that it is reported by."""

import pytest

from report_runs import measured, write_run
from seitpp.report.fine_grained import fine_grained_sections
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import find_runs


def write_fine_grained(folder, results, **sets):
    summary = {"sets": sets, "results": len(results)} if sets else None
    return write_run(folder, "downstream.fine_grained", summary=summary, results=results, finetune="demo", probe=None)


ROWS = [
    *measured("mtm", [0.5, 0.7], dataset="cub", train_images=5994, test_images=5794),
    *measured("mtm", [0.1, 0.1], dataset="cub", metric="mean_per_class", train_images=5994, test_images=5794),
    *measured("scratch", [0.25, 0.25], dataset="cub", train_images=5994, test_images=5794),
    *measured("mtm", [0.9, 0.9], dataset="pets"),
    *measured("mtm", [0.4, 0.2], dataset="pets", metric="mean_per_class"),
    *measured("mtm", [0.75], dataset="pets", metric="mean_per_class", protocol="linear"),
]


def test_sets_are_columns_and_methods_rows_with_the_sets_own_metric(tmp_path):
    write_fine_grained(tmp_path / "run", ROWS, cub="accuracy", pets="mean_per_class")
    (section,) = fine_grained_sections(find_runs([tmp_path]))
    (table,) = section["tables"]
    assert table.name == "fine-grained"
    assert table.columns == ["method", "CUB-200-2011", "Oxford-IIIT Pets, mean of classes"]
    rows = {name: [cell and (cell.text, cell.best) for cell in cells] for name, cells in table.rows}
    assert rows == {
        "fine-tuned from MTM": [("60.0 ± 14.1", True), ("30.0 ± 14.1", False)],
        "from scratch": [("25.0 ± 0.0", False), None],
        "linear probe, MTM encoder": [None, ("75.0", True)],
    }
    cell = table.rows[0][1][0]
    assert (cell.value, cell.std) == (pytest.approx(60.0), pytest.approx(14.142, abs=1e-3))
    assert section["images"] == (
        "Images to learn from / to measure on: CUB-200-2011 5,994 / 5,794, Oxford-IIIT Pets 40 / 50."
    )
    assert section["recipes"] == "Recipes: finetune demo."


def test_a_set_of_ones_own_has_its_name_and_accuracy(tmp_path):
    write_fine_grained(tmp_path / "run", measured("mtm", [0.5], dataset="mine"), mine="accuracy")
    (section,) = fine_grained_sections(find_runs([tmp_path]))
    assert section["tables"][0].columns == ["method", "mine"]
    assert "of one seed" in section["tables"][0].caption


def test_every_run_has_a_table_of_its_own_name_and_one_without_results_none(tmp_path):
    for name in ("a", "b"):
        write_fine_grained(tmp_path / name, ROWS, cub="accuracy", pets="mean_per_class")
    write_fine_grained(tmp_path / "unfinished", [])
    sections = fine_grained_sections(find_runs([tmp_path]))
    assert [(each["label"], each["tables"][0].name) for each in sections] == [
        ("a", "fine-grained-1"), ("b", "fine-grained-2")
    ]  # fmt: skip


def test_runs_within_are_not_found_again_and_rows_are_of_their_own_part(tmp_path):
    write_fine_grained(tmp_path / "run", ROWS, cub="accuracy", pets="mean_per_class")
    write_run(tmp_path / "run" / "sets" / "cub" / "finetune-weights", "finetune.train", summary={}, results=ROWS[:2])
    found = find_runs([tmp_path])
    assert len(found.runs) == 1
    assert set(all_results(found)["part"]) == {"fine_grained"}
