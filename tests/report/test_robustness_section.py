"""The robustness section: every number is the results', heat maps have them in their cells."""

import re

import jinja2
import pytest

import tiny
from report_runs import MTM, SCRATCH, measured, robustness_results, write_run
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import find_runs
from seitpp.report.robustness import robustness_sections
from seitpp.report.tables import Table
from seitpp.runtime.heat_map import heat_map

MINUS = "\u2212"


def sections_of(tmp_path, rows):
    write_run(tmp_path / "runs" / "robustness", "downstream.robustness", summary={}, results=rows)
    return robustness_sections(all_results(find_runs([tmp_path / "runs"])))


def cells(table):
    return {name: [cell and cell.text for cell in row] for name, row in table.rows}


def texts(picture):
    return re.findall(r">([^<>]+)</text>", str(picture))


def test_a_row_a_set_and_a_column_a_method(tmp_path):
    (section,) = sections_of(tmp_path, robustness_results())
    table = section["accuracy"]
    assert table.columns == ["images", MTM, SCRATCH]
    assert cells(table) == {
        "clean (50 images)": ["60.0 ± 2.0", "52.0 ± 2.0"],
        "contrast (50 images)": ["41.0 ± 1.0", "36.0 ± 1.0"],
        "sketch (30 images)": ["21.0 ± 1.0", "26.0 ± 1.0"],
    }
    assert [[cell.best for cell in row] for _, row in table.rows] == [[True, False], [True, False], [False, True]]
    assert table.rows[0][1][0].value == pytest.approx(60)
    assert section["generated"] == "contrast (average over severities 1, 3, 5)"
    assert any("sketch" in sentence for sentence in section["sentences"])


def test_a_heat_map_a_classifier_and_one_of_the_difference(tmp_path):
    (section,) = sections_of(tmp_path, robustness_results())
    names = [each["table"].name for each in section["heat_maps"]]
    assert names == [
        "robustness-generated-fine-tuned-from-mtm", "robustness-generated-from-scratch",
        "robustness-generated-fine-tuned-from-mtm-minus-from-scratch",
    ]  # fmt: skip
    drawn = [texts(each["picture"]) for each in section["heat_maps"]]
    axes = ["1", "3", "5", "contrast"]
    assert drawn[0] == [*axes, "51.0", "46.0", "26.0", "severity"]
    assert drawn[1] == [*axes, "46.0", "41.0", "21.0", "severity"]
    assert drawn[2] == [*axes, "+5.0", "+5.0", "+5.0", "severity"]
    assert cells(section["heat_maps"][0]["table"]) == {"contrast": ["51.0", "46.0", "26.0"]}


def test_imagenet_c_and_what_was_generated_have_maps_of_their_own_and_means_a_table(tmp_path):
    rows = measured("mtm", [0.5, 0.7], shift="imagenet-c:fog", severity=2) + measured(
        "mtm", [0.2], shift="fog", severity=2
    )
    rows += measured("mtm", [0.8, 0.9], shift="imagenet-c", metric="mce")
    rows += measured("scratch", [0.7], shift="imagenet-c", metric="mce")
    rows += measured("mtm", [0.3], shift="imagenet-c-generated", metric="mean_accuracy")
    (section,) = sections_of(tmp_path, rows)
    given, generated = section["heat_maps"]
    assert given["caption"] == f"Accuracy on pets in %, ImageNet-C: {MTM}"
    assert texts(given["picture"]) == ["2", "fog", "60.0", "severity"]
    assert "generated from the clean images" in generated["caption"]
    assert texts(generated["picture"]) == ["2", "fog", "20.0", "severity"]
    means = section["means"]
    assert means.columns == ["mean", MTM, SCRATCH]
    assert cells(means) == {
        "ImageNet-C, mean corruption error (mCE)": ["85.0 ± 7.1", "70.0"],
        "corruptions of ImageNet-C, generated, mean accuracy": ["30.0", None],
    }
    assert [cell.best for cell in means.rows[0][1]] == [False, True]  # of errors the least


def test_many_corruptions_are_counted_in_one_sentence(tmp_path):
    rows = measured("mtm", [0.6, 0.62]) + measured("scratch", [0.5, 0.52])
    for place, name in enumerate(("fog", "snow", "frost", "contrast", "pixelate", "spatter", "saturate")):
        rows += measured("mtm", [0.4, 0.42], shift=name, severity=3)
        rows += measured("scratch", [0.7, 0.72] if place == 6 else [0.3, 0.32], shift=name, severity=3)
    (section,) = sections_of(tmp_path, rows)
    clean, counted = section["sentences"]
    assert clean.endswith("on clean (+10.0 ± 2.0 points).")
    assert counted == (
        f"Of 7 corruptions, averaged over severities, {MTM} is better than {SCRATCH} by more than one standard "
        "deviation over seeds on 6, and worse by more on 1."
    )


def test_names_of_tables_are_unique_on_the_page(tmp_path):
    rows = robustness_results() + measured("mtm", [0.2], dataset="birds", shift="imagenet-a")
    sections = sections_of(tmp_path, rows)
    tables = [table for section in sections for table in section["tables"]]
    assert all(isinstance(table, Table) and re.fullmatch("[a-z0-9-]+", table.name) for table in tables)
    assert len({table.name for table in tables}) == len(tables) == 5
    assert list(cells(sections[1]["accuracy"])) == ["ImageNet-A (50 images)"]


def test_without_robustness_there_is_no_section(tmp_path):
    write_run(tmp_path / "runs" / "finetune", "finetune.train", summary={}, results=measured("mtm", [0.5]))
    assert robustness_sections(all_results(find_runs([tmp_path / "runs"]))) == []


def test_the_partial_shows_every_table_and_picture(tmp_path):
    macros = "{% macro figures(table) %}<table>{{ table.name }}</table>{% endmacro %}"
    loader = jinja2.ChoiceLoader([
        jinja2.DictLoader({"macros.html.j2": macros}),
        jinja2.FileSystemLoader(tiny.ROOT / "seitpp" / "report" / "templates"),
    ])  # fmt: skip
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["unbroken"] = str
    page = environment.get_template("sections/robustness.html.j2").render(
        robustness=sections_of(tmp_path, robustness_results())
    )
    assert page.count("<svg") == 3
    assert "<table>robustness-accuracy</table>" in page
    assert page.lstrip().startswith('<section id="robustness">')


# Heat maps


def shades(picture):
    return re.findall(r'class="fill c-(\w+)"[^>]*fill-opacity="([\d.]+)"', str(picture))


def test_larger_numbers_are_deeper_and_signs_have_their_own_colours():
    drawn = heat_map(["fog"], ["1", "2", "3", "4"], [[10.0, -20.0, 0.0, None]], title="t", x_label="x", signed=True)
    assert shades(drawn) == [("mtm", "0.500"), ("scratch", "1.000"), ("mtm", "0.000")]
    assert texts(drawn) == ["1", "2", "3", "4", "fog", "+10.0", f"{MINUS}20.0", "+0.0", "\u2013", "x"]
    drawn = heat_map(["fog"], ["1"], [[25.0]], title="t", x_label="x", limit=100)
    assert shades(drawn) == [("mtm", "0.250")]


def test_texts_are_escaped_and_nothing_gives_nothing():
    drawn = heat_map(["<b>"], ["a & b"], [[1.0]], title='"t"', x_label="x")
    assert "<b>" not in drawn
    assert 'aria-label="&#34;t&#34;"' in drawn
    assert heat_map(["fog"], ["1"], [[None]], title="t", x_label="x") == ""
    assert heat_map([], [], [], title="t", x_label="x") == ""
