"""What the papers report: the figures of the issue, each said to be secondary, in a column of their own."""

import pytest

from report_runs import measured, report, write_finetuning, write_run
from seitpp.report.ablation import ablation_sections
from seitpp.report.found_runs import find_runs
from seitpp.report.methods import Method
from seitpp.report.reported import known_dataset, read_reported, reported_of
from seitpp.runtime.errors import UserError

BOTH = "tokenadapt+coloradapt"
GB = 1_000_000_000
FIGURES = [  # data set, shift, method, protocol, augmentation, GB, %
    ("imagenet-1k", "", "full pixels", "finetune", "", 140, 81.8),
    ("imagenet-1k", "", "JPEG, quality 5", "finetune", "", 11, 74.6),
    ("imagenet-1k", "", "down-sampled 0.2", "finetune", "", 9.6, 75.2),
    ("imagenet-1k", "", "SeiT", "finetune", "", 1.4, 74.0),
    ("imagenet-1k", "", "SeiT + MTM", "finetune", "", 1.4, 75.1),
    ("imagenet-1k", "", "SeiT++, no MTM", "finetune", BOTH, 1.4, 75.5),
    ("imagenet-1k", "", "SeiT++", "finetune", BOTH, 1.4, 77.8),
    ("imagenet-1k", "", "SeiT", "finetune", "", 0.8, 66.3),
    ("imagenet-1k", "", "SeiT + MTM", "finetune", "", 0.8, 70.6),
    ("imagenet-1k", "", "SeiT++, no MTM", "finetune", BOTH, 0.8, 69.1),
    ("imagenet-1k", "", "SeiT++", "finetune", BOTH, 0.8, 74.1),
    ("imagenet-1k", "", "SeiT", "finetune", "", 0.3, 47.2),
    ("imagenet-1k", "", "SeiT + MTM", "finetune", "", 0.3, 53.9),
    ("imagenet-1k", "", "SeiT++, no MTM", "finetune", BOTH, 0.3, 51.2),
    ("imagenet-1k", "", "SeiT++", "finetune", BOTH, 0.3, 60.6),
    ("imagenet-100", "", "ViT-S", "finetune", "", None, 77.3),
    ("imagenet-100", "", "ViT-S", "finetune", "coloradapt", None, 78.3),
    ("imagenet-100", "", "ViT-S", "finetune", "tokenadapt", None, 80.4),
    ("imagenet-100", "", "ViT-S", "finetune", BOTH, None, 81.4),
    ("imagenet-1k", "noise", "SeiT", "finetune", "", None, 50.7),
    ("imagenet-1k", "noise", "SeiT++, no MTM", "finetune", BOTH, None, 58.6),
    ("imagenet-1k", "blur", "SeiT", "finetune", "", None, 62.6),
    ("imagenet-1k", "blur", "SeiT++, no MTM", "finetune", BOTH, None, 66.8),
    ("imagenet-1k", "imagenet-r", "SeiT", "finetune", "", None, 25.5),
    ("imagenet-1k", "imagenet-r", "SeiT++, no MTM", "finetune", BOTH, None, 30.2),
    ("imagenet-1k", "imagenet-sketch", "SeiT", "finetune", "", None, 22.6),
    ("imagenet-1k", "imagenet-sketch", "SeiT++, no MTM", "finetune", BOTH, None, 27.7),
    ("imagenet-1k", "", "MAGE-B", "linear", "", None, 74.7),
    ("imagenet-1k", "", "MAGE-B", "finetune", "", None, 82.5),
    ("imagenet-1k", "", "MAE-B", "linear", "", None, 68.0),
    ("imagenet-1k", "", "MAE-B", "finetune", "", None, 83.6),
]
HEADER = "paper,table,dataset,shift,method,protocol,init,augmentation,bytes,metric,value,how\n"
ROW = "P (arXiv 1),,imagenet-1k,,M,finetune,mtm,,100,accuracy,0.5,secondary\n"


def test_the_figures_are_these_and_all_of_them_are_secondary():
    found = read_reported()
    assert sorted(
        (each.dataset, each.shift, each.method, each.protocol, each.augmentation, str(each.bytes and each.bytes / GB),
         round(100 * each.value, 6))
        for each in found
    ) == sorted((*figure[:5], str(figure[5] and float(figure[5])), figure[6]) for figure in FIGURES)  # fmt: skip
    assert {each.how for each in found} == {"secondary"}
    assert {each.metric for each in found} == {"accuracy"}
    assert all("(arXiv " in each.paper for each in found)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("secondary", "hearsay", "line 3: how is 'hearsay'"),
        ("secondary", "secondary: ", "line 3: how is"),
        ("0.5", "50.0", "line 3: value is '50.0', not a fraction"),
        ("0.5", "", "line 3: value is ''"),
        (",100,", ",1.4 GB,", "line 3: bytes are '1.4 GB'"),
        ("P (arXiv 1)", "", "line 3: paper is empty"),
        ("M", "M", "line 3: the same figure is there twice"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_its_line(tmp_path, before, after, said):
    (tmp_path / "reported.csv").write_text(HEADER + ROW + ROW.replace(before, after, 1))
    with pytest.raises(UserError, match=said):
        read_reported(tmp_path / "reported.csv")


def test_a_figure_says_where_it_was_read(tmp_path):
    (tmp_path / "reported.csv").write_text(HEADER + ROW.replace("secondary", "primary") + ROW.replace("M", "N"))
    assert [each.how for each in read_reported(tmp_path / "reported.csv")] == ["primary", "secondary"]


@pytest.mark.parametrize("name", ["imagenet-1k", "ImageNet_1k", "imagenet1k", "ImageNet"])
def test_a_run_on_imagenet_has_the_papers_number_of_its_own_recipe(name):
    figures = read_reported()
    assert known_dataset(name) == "imagenet-1k"
    for init, augmentation, budget, percent in (
        ("scratch", "", None, 74.0),
        ("mtm", "", None, 75.1),
        ("mtm", BOTH, None, 77.8),
        ("mtm", BOTH, 810_000_000, 74.1),
        ("mtm", "", 300_000_000, 53.9),
    ):
        method = Method(protocol="finetune", init=init, augmentation=augmentation, budget_bytes=budget)
        assert 100 * reported_of(figures, name, method).value == pytest.approx(percent)
    for method in (
        Method(protocol="finetune", init="mtm", label_fraction=0.1),
        Method(protocol="finetune", init="mtm", augmentation="tokenadapt"),
        Method(protocol="linear", init="mtm"),  # MAE's and MAGE's are peers, of other recipes
        Method(protocol="finetune", init="mtm", budget_bytes=500_000_000),
        Method(protocol="majority", init=""),
    ):
        assert reported_of(figures, name, method) is None
    assert reported_of(figures, "pets", Method(protocol="finetune", init="mtm")) is None


def test_on_imagenet_the_papers_numbers_are_a_column_beside_ours(tmp_path):
    runs = tmp_path / "runs"
    rows = measured("mtm", (0.5, 0.52), dataset="imagenet-1k") + measured("scratch", (0.4,), dataset="imagenet-1k")
    write_run(runs / "finetune", "finetune.train", summary={}, results=rows, dataset="imagenet-1k")
    page = report(runs)
    part = page.section("results")
    assert '<th scope="col" class="reported">reported by the paper</th>' in part
    assert part.count('<td class="reported nowrap">75.1</td>') == 1
    assert part.count('<td class="reported nowrap">74.0</td>') == 1
    assert "on other data" not in page.text
    assert "What the papers report: top-1 accuracy on ImageNet-1k" in page.text
    results = (tmp_path / "page" / "results.csv").read_text()
    assert "0.751" not in results
    assert "What pre-training does not improve" in page.text
    assert "75.1" not in page.source[page.source.index('<div class="lead">') : page.source.index("</header>")]


def test_on_other_data_they_are_a_table_of_their_own_that_says_so(tmp_path):
    page = report(write_finetuning(tmp_path / "finetune", "mtm", (0.58, 0.6, 0.62)))
    assert "reported" not in page.section("results")
    assert "What the papers report, on other data: top-1 accuracy on ImageNet-1k" in page.text
    assert "SeiT++ 77.8 \u2013 MAGE-B 82.5 74.7 MAE-B 83.6 68.0" in page.text
    assert "All of the papers\u2019 figures are secondary" in page.text


def test_an_ablation_on_imagenet_has_the_papers_numbers_where_the_recipe_is_theirs(tmp_path):
    rows = measured("scratch", [0.5], dataset="imagenet-1k") + measured("mtm", [0.6], dataset="imagenet-1k")
    rows += measured("mtm", [0.65], dataset="imagenet-1k", augmentation="tokenadapt")
    rows += measured("mtm", [0.7], dataset="imagenet-1k", augmentation=BOTH)
    rows += measured("mtm", [0.3], dataset="imagenet-1k", protocol="knn10")
    config = {"pretrain": "p", "finetune": "f", "quick": False}
    run = write_run(tmp_path / "ablation", "downstream.ablation", summary={}, results=rows, **config)
    ((table,),) = [section["tables"] for section in ablation_sections(find_runs([run]))]
    assert table.columns == ("start", "fine-tuning", "10-NN", "fine-tuning, reported by the paper")
    assert table.reported == (2,)
    assert [cells[2] and cells[2].text for _, cells in table.rows] == ["74.0", "75.1", None, "77.8"]
    text = report(run).text
    assert "neither 74.0 66.3 47.2" in text
    assert "MTM + TokenAdapt + ColorAdapt 77.8 74.1 60.6" in text
    assert "TokenAdapt 80.4" in text


def test_robustness_of_imagenet_has_the_papers_numbers_on_the_same_images_beside_it(tmp_path):
    rows = []
    for shift, value in (("", 0.7), ("imagenet-r", 0.2), ("objectnet", 0.1)):
        rows += measured("scratch", [value], dataset="imagenet-1k", shift=shift)
    page = report(write_run(tmp_path / "run", "downstream.robustness", summary={}, results=rows))
    assert "from scratch, reported by the paper" in page.text
    assert "ImageNet-R (50 images) 20.0 25.5" in page.text
    assert "clean (50 images) 70.0 74.0" in page.text
    assert "ObjectNet (50 images) 10.0 \u2013" in page.text


def test_the_papers_robustness_stands_below_ours(demo):
    page = report(demo)
    after = page.text[page.text.index("top-1 accuracy of classifiers of ImageNet-1k") :]
    for row in ("clean 74.0 75.5", "Gaussian noise 50.7 58.6", "Gaussian blur 62.6 66.8"):
        assert row in after
    assert "25.5 30.2" in after
    assert "22.6 27.7" in after
    assert "full pixels 140 GB 81.8" in page.text
