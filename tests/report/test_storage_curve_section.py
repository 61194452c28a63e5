"""The storage curve's section: names, what is compared at each budget, and the papers' points apart."""

import pytest

from report_runs import write_run
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import find_runs
from seitpp.report.storage_curve import storage_curve_sections
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import Result

HEADER = (
    "dataset,budget,storage,init,augmentation,images,bytes,bytes_with_tokenizer,metric,mean,std,seeds,quality,side,"
    "test_images"
)
ROWS = """
pets,500,,scratch,,10,1500,4500,accuracy,0.40,0.03,3,,,50
pets,500,,mtm,,10,1500,4500,accuracy,0.46,0.03,3,,,50
pets,500,jpeg75,scratch,,3,1400,1400,accuracy,0.25,0.04,3,75,64,50
pets,500,jpeg75_side_fit,scratch,,7,1499,1499,accuracy,0.20,0.01,3,75,24,50
pets,500,jpeg75,scratch,,3,1400,1400,cross_entropy,2.25,0.04,3,75,64,50
pets,900,,mtm,tokenadapt+coloradapt,20,1900,4900,accuracy,0.50,,1,,,50
pets,900,jpeg_fit,scratch,,9,1800,1800,accuracy,0.52,,1,5,64,50
"""
REPORTED = (
    "paper,table,dataset,method,bytes,metric,value,how\n"
    "SeiT++,2,imagenet-1k,tokens,1400000000,accuracy,0.778,secondary\n"
    "SeiT++,2,imagenet-1k,tokens,300000000,accuracy,60.6,secondary\n"
    "SeiT++,2,imagenet-100,tokens,300000000,accuracy,81.4,secondary\n"
    "MAE,1,imagenet-1k,fine-tune,,accuracy,83.6,secondary\n"
)


@pytest.fixture
def curve(tmp_path):
    def write(rows=ROWS, dataset="pets", header=HEADER):
        result = Result(
            dataset=dataset, metric="accuracy", value=0.4, seed=0, init="scratch", protocol="finetune", train_images=10,
            test_images=50, run="seed-0/500/scratch/finetune",
        )  # fmt: skip
        write_run(tmp_path / "curve", "downstream.storage_curve", results=[result], dataset=dataset, quick=False)
        (tmp_path / "curve" / "storage_curve.csv").write_text(f"{header}\n{rows.strip()}\n")
        (tmp_path / "reported.csv").write_text(REPORTED)
        found = find_runs([tmp_path / "curve"])
        return found, tmp_path / "reported.csv"

    return write


def test_the_table_has_the_accuracy_of_every_point_and_its_bytes(curve):
    (section,) = storage_curve_sections(*curve())
    (table,) = section["tables"]
    assert list(table.columns) == ["Stored as", "Images", "Bytes", "With tokenizer", "Accuracy"]
    texts = [(name, *(cell.text for cell in cells)) for name, cells in table.rows]
    assert texts == [
        ("tokens, from scratch", "10", "1.5 kB", "4.5 kB", "40.0 ± 3.0"),
        ("tokens, MTM", "10", "1.5 kB", "4.5 kB", "46.0 ± 3.0"),
        ("JPEGs of quality 75", "3", "1.4 kB", "1.4 kB", "25.0 ± 4.0"),
        ("JPEGs of quality 75, of the side that fits: 24", "7", "1.5 kB", "1.5 kB", "20.0 ± 1.0"),
        ("tokens, MTM + TokenAdapt + ColorAdapt", "20", "1.9 kB", "4.9 kB", "50.0"),
        ("JPEGs of the quality that fits: 5", "9", "1.8 kB", "1.8 kB", "52.0"),
    ]
    assert [name for name, cells in table.rows if cells[-1].best] == [texts[1][0], texts[5][0]]
    assert [cells[-1].value for _, cells in table.rows] == pytest.approx([40, 46, 25, 20, 50, 52])
    assert table.rows[0][1][-1].std == pytest.approx(3)
    assert table.caption.endswith("; 50 test images, so one standard error is at most 7.1 points")  # sqrt(1 / 4 / 50)


def test_a_sentence_a_budget_compares_the_best_of_both_kinds_and_says_what_is_not_known(curve):
    (section,) = storage_curve_sections(*curve())
    assert section["sentences"] == [
        "In 1.5 kB: tokens of 10 images (MTM) 46.0 %, the best of the JPEGs (JPEGs of quality 75; 3 images) 25.0 %: "
        "+21.0 ± 5.0 points.",
        "In 1.9 kB: tokens of 20 images (MTM + TokenAdapt + ColorAdapt) 50.0 %, the best of the JPEGs (JPEGs of the "
        "quality that fits: 5; 9 images) 52.0 %: \u22122.0 points, of one seed, so that how much of it is chance is "
        "not known.",
    ]
    assert "tokenizer's weights, 3 kB, come on top" in section["legend"]


def test_the_chart_has_a_line_a_storage_and_start_and_error_bars(curve):
    (section,) = storage_curve_sections(*curve())
    chart = str(section["chart"])
    for label in (
        "tokens, scratch",
        "tokens, MTM",
        "tokens, MTM+TA+CA",
        "JPEG q75",
        "JPEG q75, px to f",
        "JPEG, q to fit",
    ):
        assert label in chart
    assert chart.count('<line class="line c-') == 4
    assert "kB of training data, logarithmic" in chart


def test_the_papers_points_lie_in_a_chart_of_their_own_but_for_imagenet(curve):
    (section,) = storage_curve_sections(*curve())
    assert "paper: " not in section["chart"]
    assert str(section["reported_chart"]).count("<circle") == 2  # neither of another set nor without bytes
    assert "GB of training data" in section["reported_chart"]


def test_the_papers_points_of_imagenet_lie_beside_ours(curve):
    rows = ROWS.replace("pets,", "imagenet-1k,")
    (section,) = storage_curve_sections(*curve(rows, dataset="imagenet-1k"))
    assert "paper: tokens" in section["chart"]
    assert section["reported_chart"] == ""


def test_without_reported_numbers_or_a_tokenizer_there_is_neither(curve, tmp_path):
    rows = "\n".join(",".join("" if place == 7 else each for place, each in enumerate(line.split(",")))
                     for line in ROWS.strip().splitlines())  # fmt: skip
    found, _ = curve(rows)
    (section,) = storage_curve_sections(found, tmp_path / "nothing.csv")
    assert section["reported_chart"] == ""
    assert "With tokenizer" not in section["tables"][0].columns
    assert "tokenizer's weights" not in section["legend"]


def test_results_of_a_curve_are_a_part_of_their_own_and_name_its_runs(curve):
    table = all_results(curve()[0])
    assert (table.part.item(), table.run.item()) == ("storage_curve", "seed-0/500/scratch/finetune")


@pytest.mark.parametrize(("header", "rows"), [("a,b", "1,2"), (HEADER, ROWS.replace("0.40", "much"))])
def test_a_damaged_table_is_named_in_one_line(curve, header, rows):
    found, reported = curve(rows, header=header)
    with pytest.raises(UserError, match=r"storage_curve\.csv ") as caught:
        storage_curve_sections(found, reported)
    assert "\n" not in str(caught.value)
