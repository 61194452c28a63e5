"""The section of segmentation: tables, sentences that are true for either sign, bars, pictures."""

import pytest

from report_runs import measured, write_run
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import find_runs
from seitpp.report.segmentation import segmentation_sections

SUMMARY = {
    "miou": 0.4, "window_size": [512, 512], "window_stride": [512, 341], "short_side": 512, "ignored_label": 255,
    "mask_resolution": "of the stored windows", "test_time_augmentation": "none",
}  # fmt: skip
TABLE = "class,iou,accuracy,pixels,answered_pixels\nwall,0.25,0.5,1000,900\nsky,0.75,0.8,2000,2100\nflag,,,0,0\n"


def miou(init, values, protocol="upernet", dataset="ade20k", **fields):
    return [
        row
        for metric, factor in (("miou", 1.0), ("pixel_accuracy", 1.5), ("mean_class_accuracy", 1.25))
        for row in measured(
            init, [factor * value for value in values], protocol=protocol, dataset=dataset, metric=metric, **fields
        )
    ]


@pytest.fixture
def runs(tmp_path):
    baseline = miou("", [0.1], "token_majority")
    write_run(tmp_path / "scratch", "downstream.segmentation", summary={**SUMMARY, "miou": 0.3},
              results=[*baseline, *miou("scratch", [0.28, 0.32])])  # fmt: skip
    best = write_run(tmp_path / "mtm", "downstream.segmentation", summary=SUMMARY, results=miou("mtm", [0.39, 0.41]))
    (best / "seed-0").mkdir()
    (best / "seed-0" / "per_class.csv").write_text(TABLE)
    (best / "seed-0" / "segmentation.png").write_bytes(b"png")
    write_run(tmp_path / "linear", "downstream.segmentation", summary={**SUMMARY, "miou": 0.2},
              results=miou("mtm", [0.2], "linear_segmentation"))  # fmt: skip
    return tmp_path


def test_methods_stand_by_their_miou_with_deviations_and_the_papers_gain_apart(runs):
    (section,) = segmentation_sections(find_runs([runs]))
    table = section["tables"][0]
    assert [name for name, _ in table.rows] == [
        "UPerNet, from MTM", "UPerNet, from scratch", "linear head, frozen encoder, from MTM",
        "each token's commonest class", "SeiT++'s gain, as reported",
    ]  # fmt: skip
    first = table.rows[0][1]
    assert (first[0].text, first[0].value, first[0].best) == ("40.0 ± 1.4", pytest.approx(40.0), True)
    assert [cell.text for cell in table.rows[3][1][:3]] == ["10.0", "15.0", "12.5"]
    assert table.rows[-1][1][:3] == [None] * 3
    assert table.rows[-1][1][3].text == "+4.2"
    assert table.reported == (3,)
    assert all(len(cells) == len(table.columns) - 1 for _, cells in table.rows)


def test_sentences_say_what_pre_training_changes_and_how_the_baseline_stands(runs):
    (section,) = segmentation_sections(find_runs([runs]))
    assert section["sentences"] == [
        "UPerNet on ade20k: mIoU 40.0 ± 1.4 % from MTM, 30.0 ± 2.8 % from scratch: +10.0 ± 3.2 points.",
        "Each token's commonest class alone reaches 10.0 %; all others are better.",
    ]
    assert "Windows of 512 x 512 pixels every 512 x 341, short side 512 pixels" in section["facts"]
    assert "value 255 is ignored" in section["facts"]


def test_a_loss_is_told_as_one_and_chance_as_chance(tmp_path):
    results = [*miou("", [0.35], "token_majority"), *miou("scratch", [0.4, 0.3]), *miou("mtm", [0.3, 0.32])]
    write_run(tmp_path / "a", "downstream.segmentation", summary=SUMMARY, results=results)
    (section,) = segmentation_sections(find_runs([tmp_path]))
    assert section["sentences"][0].endswith("\u22124.0 ± 7.2 points: no more than one standard deviation.")
    assert section["sentences"][1].endswith("reaches 35.0 %; not beaten by 2 of the others.")


def test_classes_are_bars_of_the_best_run_and_a_table_with_blanks(runs):
    (section,) = segmentation_sections(find_runs([runs]))
    assert section["best"] == "mtm"
    assert [(row["name"], row["iou"]) for row in section["bars"]] == [("sky", "75.0"), ("wall", "25.0")]
    assert [(name, cells[0] and cells[0].text) for name, cells in section["tables"][1].rows] == [
        ("sky", "75.0"), ("wall", "25.0"), ("flag", None)
    ]  # fmt: skip
    assert [picture["label"] for picture in section["pictures"]] == ["mtm"]
    assert section["pictures"][0]["source"] == "data:image/png;base64,cG5n"


def test_runs_that_measured_the_same_are_told_apart_and_the_baseline_is_not(tmp_path):
    for name in ("one", "two"):
        results = [*miou("", [0.1], "token_majority", "scenes"), *miou("mtm", [0.3], dataset="scenes")]
        write_run(tmp_path / name, "downstream.segmentation", summary=SUMMARY, results=results)
    (section,) = segmentation_sections(find_runs([tmp_path]))
    names = [name for name, _ in section["tables"][0].rows]
    assert sorted(names) == ["UPerNet, from MTM (one)", "UPerNet, from MTM (two)", "each token's commonest class"]
    assert section["tables"][0].reported == ()  # the papers' number is of ADE20K


def test_rows_of_segmentation_are_no_part_of_the_accuracies(runs):
    assert set(all_results(find_runs([runs]))["part"]) == {"segmentation"}
