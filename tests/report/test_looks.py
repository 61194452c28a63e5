"""The section that one looks at: classes, confusions, mistakes and feature spaces are those of the runs' files."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from report_runs import measured, report, write_run
from seitpp.finetune.evaluation_pictures import captioned_images
from seitpp.report.captioned import cut_images
from seitpp.report.found_runs import find_runs
from seitpp.report.looks import looks_sections
from seitpp.report.looks_of_classes import MOST_CLASSES, PAIRS, SHOWN
from seitpp.runtime.errors import UserError


def write_details(folder, names, counts):
    """per_class.csv and confusion.csv of a matrix of counts, a row a true class."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.asarray(counts)
    images = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        table = {"class": names, "images": images, "accuracy": np.diag(counts) / images}
    pd.DataFrame(table).to_csv(folder / "per_class.csv", index=False)
    pairs = [(names[row], names[column], counts[row, column]) for row, column in np.argwhere(counts)]
    pd.DataFrame(pairs, columns=["class", "predicted", "images"]).to_csv(folder / "confusion.csv", index=False)


def write_evaluation(folder, *seeds, names=("ant", "bee", "cow")):
    """An evaluation of one classifier, a matrix of counts a seed."""
    rows = measured("mtm", [0.5] * len(seeds), test_images=10)
    write_run(folder, "finetune.evaluation", summary={"results": 1}, results=rows, dataset="insects")
    for seed, counts in enumerate(seeds):
        write_details(folder if len(seeds) == 1 else folder / f"seed-{seed}", list(names), counts)
    return folder


def write_pictures(path, count, columns, lines=2):
    """Images of grey 20, 40, … with captions."""
    greys = torch.arange(1, count + 1, dtype=torch.float32)[:, None, None, None] * 20 / 255
    captioned_images(path, greys.expand(count, 3, 16, 16), [("a",) * lines] * count, columns=columns)


def write_exploration(folder, classes, near, *, pictures=True, **summary):
    """An exploration: a point a class name of `classes`; `near` is {query: classes of its neighbours}."""
    told = {"neighbour_agreement": 0.25, "neighbours": 2, "feature_map": {"method": "tsne", "trustworthiness": 0.91}}
    rows = measured("mtm", [0.25], protocol="knn2", metric="neighbour_agreement", augmentation="tokenadapt")
    write_run(folder, "finetune.explore", summary=told | summary, results=rows, dataset="insects")
    points = {"key": range(len(classes)), "class": classes, "x": range(len(classes)), "y": 0.5}
    pd.DataFrame(points).to_csv(folder / "feature_map.csv", index=False)
    lines = [
        (f"{query}/0.png", query, rank, f"{name}/9.png", name, 1 - rank / 10)
        for query, names in near.items()
        for rank, name in enumerate(names, 1)
    ]
    columns = ["query", "query_class", "rank", "neighbour", "neighbour_class", "similarity"]
    pd.DataFrame(lines, columns=columns).to_csv(folder / "neighbours.csv", index=False)
    if pictures:
        most = 1 + max(map(len, near.values()))
        write_pictures(folder / "neighbours.png", len(near) * most, most)
    return folder


def sections(*folders):
    return looks_sections(find_runs(folders))


def grey(uri):
    """Of the middle of a picture."""
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as image:
        return image.convert("L").getpixel((image.width // 2, image.height // 2))


# Classes


def test_accuracies_of_classes_are_sorted_means_over_seeds_with_what_they_are_mistaken_for(tmp_path):
    first, second = [[4, 0, 6], [2, 8, 0], [0, 0, 10]], [[6, 3, 1], [4, 6, 0], [0, 0, 10]]
    (section,) = sections(write_evaluation(tmp_path / "run", first, second))
    table = section["tables"][0]
    assert [name for name, _ in table.rows] == ["cow", "bee", "ant"]
    cow, bee, ant = (cells for _, cells in table.rows)
    assert (cow[0].text, cow[2], cow[3]) == ("100.0 ± 0.0", None, None)
    assert bee[0].text == "70.0 ± 14.1"
    assert bee[0].value == pytest.approx(70)
    assert bee[0].std == pytest.approx(100 * np.std([0.8, 0.6], ddof=1))
    assert (ant[1].text, ant[2].text, ant[3].text) == ("10", "cow", "35.0")  # 7 of 20
    assert (section["seeds"], section["images"], section["cut"]) == (2, 30, 0)
    assert len(table.bars) == 3


def test_the_confusion_matrix_has_the_shares_of_each_true_class(tmp_path):
    (section,) = sections(write_evaluation(tmp_path / "run", [[1, 0, 3], [0, 5, 0], [1, 1, 0]]))
    told = re.findall(r"<g><title>(\w+), (\w+): ([^<]*)</title>", section["confusion"])
    shares = {pair[:2]: pair[2] for pair in told}
    assert len(shares) == 9
    assert (shares["ant", "ant"], shares["ant", "cow"], shares["bee", "bee"]) == ("25", "75", "100")
    assert [(name, cells[0].text, cells[1].text) for name, cells in section["tables"][1].rows] == [
        ("ant", "cow", "3"), ("cow", "ant", "1"), ("cow", "bee", "1"),
    ]  # fmt: skip


def test_of_many_classes_the_worst_and_best_and_the_most_confused_pairs_are_shown(tmp_path):
    names = [f"c{place:02d}" for place in range(40)]
    counts = np.diag(np.arange(40) + 10)
    counts[np.arange(40), (np.arange(40) + 1) % 40] = 10
    (section,) = sections(write_evaluation(tmp_path / "run", counts, names=names))
    shown = [name for name, _ in section["tables"][0].rows]
    assert len(names) > MOST_CLASSES == 2 * SHOWN
    assert shown == [*names[::-1][:SHOWN], *names[::-1][-SHOWN:]]
    assert (section["cut"], section["confusion"]) == (SHOWN, "")
    assert len(section["tables"][1].rows) == PAIRS
    assert "shows the 15 best and the 15 worst classes" in report(tmp_path / "run").text


def test_classes_without_images_are_counted_and_not_shown(tmp_path):
    (section,) = sections(write_evaluation(tmp_path / "run", [[2, 1, 0], [0, 0, 0], [0, 1, 1]]))
    assert [name for name, _ in section["tables"][0].rows] == ["ant", "cow"]
    assert section["without_images"] == 1
    assert "1 class has no test image" in report(tmp_path / "run").text


def test_where_every_answer_is_right_there_is_no_table_of_pairs(tmp_path):
    (section,) = sections(write_evaluation(tmp_path / "run", np.diag([2, 3, 4])))
    assert len(section["tables"]) == 1


def test_the_worst_mistakes_are_the_pictures_with_their_rows(tmp_path):
    folder = write_evaluation(tmp_path / "run", np.eye(3, dtype=int))
    rows = [(f"{place}.png", "ant", "bee", 0.9 - place / 10) for place in range(3)]
    pd.DataFrame(rows, columns=["key", "class", "predicted", "confidence"]).to_csv(folder / "worst.csv", index=False)
    write_pictures(folder / "worst.png", 3, 2)
    (section,) = sections(folder)
    found = section["mistakes"]
    assert [(each["name"], each["answer"], each["confidence"]) for each in found] == [
        ("ant", "bee", "90"), ("ant", "bee", "80"), ("ant", "bee", "70"),
    ]  # fmt: skip
    assert [grey(each["uri"]) for each in found] == pytest.approx([20, 40, 60], abs=2)


# Feature spaces


def test_neighbours_stand_with_their_pictures_and_the_wrong_ones_are_marked(tmp_path):
    folder = write_exploration(tmp_path / "run", ["ant", "bee"], {"ant": ("ant", "bee"), "bee": ("ant", "bee")})
    (section,) = sections(folder)
    first, second = section["rows"]
    assert [(each["name"], each["text"], each["right"]) for each in first] == [
        ("ant", "", True), ("ant", "0.900", True), ("bee", "0.800", False),
    ]  # fmt: skip
    assert [grey(each["uri"]) for each in (*first, *second)] == pytest.approx([20, 40, 60, 80, 100, 120], abs=2)
    page = report(folder)
    assert "25.0 % are of its class" in page.text.replace("\u00a0", " ")
    assert len(re.findall(r'<span class="other">', page.source)) == 2
    assert "encoder of MTM + TokenAdapt" in page.text


def test_without_pictures_neighbours_are_a_table(tmp_path):
    near = {"ant": ("ant", "bee"), "bee": ("bee",)}
    (section,) = sections(write_exploration(tmp_path / "run", ["ant", "bee"], near, pictures=False))
    assert section["rows"] == []
    rows = section["tables"][0].rows
    assert [name for name, _ in rows] == ["ant (0.png)", "bee (0.png)"]
    assert [None if cell is None else cell.text for cell in rows[1][1]] == ["bee", None]


def test_the_map_has_a_legend_up_to_a_dozen_classes_and_names_beyond(tmp_path):
    few = write_exploration(tmp_path / "few", ["10", "9", "9"], {"9": ("9",)})
    many = write_exploration(tmp_path / "many", [f"c{place}" for place in range(13)], {"c1": ("c1",)})
    first, second = sections(few, many)
    assert [name for _, name in first["legend"]] == ["9", "10"]
    assert "<text" not in first["map"]
    assert second["legend"] == []
    assert "<text" in second["map"]


def test_a_page_holds_both_kinds_and_loads_nothing(tmp_path):
    folders = [
        write_evaluation(tmp_path / "evaluate", [[1, 0, 3], [0, 5, 0], [1, 1, 0]]),
        write_exploration(tmp_path / "explore", ["<b>", "bee"], {"<b>": ("<b>", "bee")}),
    ]
    page = report(*folders)
    assert "Classes and feature space" in page.headings
    section = page.source[page.source.index('<section id="looks">') :]
    assert "<b><b>" not in section
    assert set(re.findall(r'src="(\w+):', section)) == {"data"}


def test_runs_that_are_not_finished_and_pages_without_such_runs_have_no_section(tmp_path, demo):
    write_run(tmp_path / "evaluate", "finetune.evaluation", dataset="insects")
    write_run(tmp_path / "explore", "finetune.explore", dataset="insects")
    assert sections(tmp_path / "evaluate", tmp_path / "explore") == []
    assert "Classes and feature space" not in report(demo).headings


# What is broken


def test_a_broken_table_or_picture_is_one_line_that_names_it(tmp_path):
    folder = write_exploration(tmp_path / "run", ["ant", "bee"], {"ant": ("ant",)})
    (folder / "neighbours.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"neighbours.png cannot be read"):
        sections(folder)
    (folder / "feature_map.csv").write_text("key,class,x,y\na,ant,one,2\n")
    with pytest.raises(UserError, match=r"feature_map.csv cannot be read"):
        sections(folder)


def test_a_picture_that_does_not_say_where_its_images_lie_shows_none(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "plain.png")
    assert cut_images(tmp_path / "plain.png") == cut_images(tmp_path / "none.png") == []
