"""A heat map: cells as strong as their numbers, texts that can be read on them, names that fit."""

import math
import re
from xml.etree import ElementTree

import pytest

from seitpp.runtime.heat_map import heat_map


def _opacities(drawn):
    return [float(each) for each in re.findall(r'fill-opacity="([\d.e-]+)"', drawn)]


def test_cells_are_as_opaque_as_their_share_of_the_range():
    drawn = heat_map(["a", "b"], ["x", "y"], [[0.1, 0.2], [0.4, 0.3]], title="t")
    assert _opacities(drawn) == [0.25, 0.5, 1.0, 0.75]
    drawn = heat_map(["a", "b"], ["x", "y"], [[0.1, 0.2], [0.4, 0.9]], title="t", limit=0.4)
    assert _opacities(drawn) == [0.25, 0.5, 1.0, 1.0]


def test_a_cell_without_a_number_has_no_colour_and_says_so():
    drawn = heat_map(["a"], ["x", "y"], [[math.nan, 2.0]], title="t", texts=[["", "2"]])
    assert _opacities(drawn) == [1.0]
    assert "a, x: \u2013" in drawn
    assert "a, y: 2" in drawn


def test_numbers_on_strong_colour_are_in_the_colour_of_the_paper():
    drawn = heat_map(["a"], ["x", "y"], [[1.0, 9.0]], title="t", texts=[["one", "nine"]])
    styles = dict(re.findall(r'<text [^>]*?(?:style="([^"]*)")?>(one|nine)</text>', drawn))
    assert {text: style for style, text in styles.items()} == {"one": "", "nine": "fill:var(--paper,#fff)"}


@pytest.mark.parametrize(("name", "turned"), [("x", False), ("a much longer name", True)])
def test_names_of_columns_run_upwards_where_they_are_wider_than_a_cell(name, turned):
    assert ("rotate(-90" in heat_map(["a"], [name, "y"], [[1, 2]], title="t")) == turned


def test_it_is_whole_svg_whose_names_are_escaped_and_that_shows_every_cell_within_its_frame():
    drawn = heat_map(
        ["<i>", "b", "c"], ["&", "a very long name of a class indeed"], [[1, 2], [3, 4], [5, 6]], title='"t"',
        y_label="true class", x_label="answer",
    )  # fmt: skip
    root = ElementTree.fromstring(str(drawn))
    assert "<i>" in "".join(root.itertext())
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    cells = [each for each in root.iter("rect") if "fill-opacity" in each.attrib]
    assert len(cells) == 6
    for cell in cells:
        assert 0 <= float(cell.attrib["x"]) <= width - float(cell.attrib["width"])
        assert 0 <= float(cell.attrib["y"]) <= height - float(cell.attrib["height"])


def test_a_matrix_without_rows_is_nothing_and_one_without_numbers_is_pale():
    assert heat_map([], ["x"], [], title="t") == ""
    assert _opacities(heat_map(["a"], ["x"], [[0.0]], title="t")) == [0.0]
