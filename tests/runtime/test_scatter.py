"""A scatter plot: points in their places, groups told apart by marks or by names that do not touch."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from seitpp.runtime.scatter import HEIGHT, MOST_MARKS, MOST_NAMES, WIDTH, legend_marks, scatter


def circles(drawn):
    """Centres of the circles, (n, 2)."""
    return np.array([(float(x) + 3, float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)a3 3", drawn)])


def test_both_axes_have_one_scale_y_runs_upwards_and_all_lies_in_the_frame():
    points = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    placed = circles(scatter(points, np.zeros(3, int), ["a"], title="t"))
    assert placed[1, 0] - placed[0, 0] == pytest.approx(4 * (placed[0, 1] - placed[2, 1]), abs=0.5)
    assert placed[2, 1] < placed[0, 1]
    assert (placed > 0).all()
    assert (placed < [WIDTH, HEIGHT]).all()
    assert placed[1, 0] - placed[0, 0] > 0.9 * WIDTH


def test_each_of_a_dozen_groups_has_a_mark_of_its_own_that_the_legend_shows():
    drawn = scatter(np.random.default_rng(0).normal(size=(24, 2)), np.arange(24) % 12, list("abcdefghijkl"), title="t")
    kinds = [
        (hue, "a3 3" in path) for hue, path in re.findall(r'class="(hue-\d)".*?<path d="([^"]*)"', drawn)
    ]  # fmt: skip
    assert len(set(kinds)) == MOST_MARKS == 12
    legend = [re.search(r'class="(hue-\d)".*?<path d="([^"]*)"', mark).groups() for mark in legend_marks(12)]
    assert [(hue, "a3 3" in path) for hue, path in legend] == kinds
    assert "<text" not in drawn


def test_of_more_groups_names_stand_where_their_points_are_and_none_touches_another():
    random = np.random.default_rng(1)
    names = [f"class number {group}" for group in range(200)]
    groups = np.arange(1000) % 200
    drawn = scatter(random.normal(size=(200, 2))[groups] * 9 + random.normal(size=(1000, 2)), groups, names, title="t")
    texts = [
        (float(x), float(y), len(text))
        for x, y, text in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', drawn)
    ]
    assert 5 < len(texts) <= MOST_NAMES
    assert legend_marks(200) == []
    for place, (x, y, length) in enumerate(texts):
        for other, height, others in texts[:place]:
            assert abs(x - other) >= 6 * (length + others) / 2 or abs(y - height) >= 14


def test_a_name_stands_at_the_median_of_its_points():
    points = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10], *[[5, 5]] * 5])
    drawn = scatter(points, np.array([0, 1, 2, 3, 12, 12, 12, 12, 12]), [f"g{place}" for place in range(13)], title="t")
    x, y = re.search(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>g12<', drawn).groups()
    assert (float(x), float(y)) == pytest.approx((WIDTH / 2, HEIGHT / 2 + 4))


def test_it_is_whole_svg_with_escaped_names_and_leaves_out_what_is_not_finite():
    points = np.array([[0, 0], [1, np.nan], [1, 1.0]])
    root = ElementTree.fromstring(str(scatter(points, np.array([0, 0, 1]), ["<a>", "b & c"], title='"t"')))
    assert [each.text for each in root.iter("title")] == ['"t"', "<a>", "b & c"]
    assert sum(path.attrib["d"].count("M") for path in root.iter("path")) == 2


def test_no_point_is_nothing_and_one_point_is_in_the_middle():
    assert scatter(np.zeros((0, 2)), np.zeros(0, int), [], title="t") == ""
    assert circles(scatter(np.array([[7.0, 7]]), np.array([0]), ["a"], title="t")).tolist() == [[WIDTH / 2, HEIGHT / 2]]
