"""Charts: round ticks, labels that can be read, bars as long as their numbers."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from seitpp.runtime.charts import MOST_POINTS, Line, bar, curve, line_chart, log_ticks, thinned, ticks, write_chart


def test_ticks_are_round_and_cover_the_range():
    assert ticks(0, 2200, 5) == [0, 1000, 2000, 3000]
    assert ticks(2.87, 6.1, 6) == [2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(ticks(0.31, 0.34, 4), [0.31, 0.32, 0.33, 0.34])
    assert ticks(5, 5, 3)[0] <= 5 <= ticks(5, 5, 3)[-1]


def test_labels_of_lines_that_end_together_do_not_touch():
    lines = [Line(label=f"line {index}", colour="mtm", points=[(0, 9), (5, 4 + index / 100)]) for index in range(6)]
    drawn = line_chart(lines, title="<six>", x_label="step", y_label="loss")
    heights = sorted(float(y) for y in re.findall(r'class="end c-mtm" x="[\d.]+" y="([\d.]+)"', drawn))
    assert len(heights) == 6
    assert min(np.diff(heights)) >= 14.9
    assert "&lt;six&gt;" in drawn


def test_a_chart_without_points_is_nothing_and_one_point_is_a_dot():
    nothing = Line(label="", colour="mtm", points=[(1, math.nan)])
    assert line_chart([nothing], title="", x_label="", y_label="") == ""
    point = Line(label="", colour="mtm", points=[(7, 3)])
    assert "<circle" in line_chart([point, nothing], title="", x_label="", y_label="")


def test_a_chart_in_a_file_is_whole_svg_that_brings_its_colours(tmp_path):
    chart = line_chart([Line(label="a < b", colour="mtm", points=[(0, 1), (1, 2)])], title="t", x_label="", y_label="")
    write_chart(tmp_path / "it.svg", chart)
    root = ElementTree.parse(tmp_path / "it.svg").getroot()
    (style,) = root.iter("{http://www.w3.org/2000/svg}style")
    assert ".line.c-mtm" in style.text
    assert "a < b" in "".join(root.itertext())


def test_a_bar_is_as_long_as_its_fraction_of_the_longest():
    assert 'width="25.00%"' in bar(0.2, 0.8, colour="mtm")
    assert 'x1="12.50%" x2="37.50%"' in bar(0.2, 0.8, colour="mtm", std=0.1)
    assert bar(0.2, 0, colour="mtm") == ""


def test_ticks_of_a_logarithmic_axis_are_1_2_5_times_powers_of_ten_within_it():
    assert log_ticks(0.3, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(10, 100) == pytest.approx([10, 20, 50, 100])
    assert all(166 <= value <= 169 for value in log_ticks(166, 169))


def test_on_a_logarithmic_axis_equal_factors_are_equal_distances_and_zero_is_left_out():
    line = Line(label="", colour="mtm", points=[(0, 9), (1, 1), (10, 2), (100, 3)], marked=True)
    drawn = line_chart([line], title="", x_label="", y_label="", log_x=True)
    xs = [float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', drawn)]
    assert len(xs) == 3
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)


def test_a_logarithmic_axis_of_points_that_lie_close_together_spans_a_factor_of_two():
    line = Line(label="", colour="mtm", points=[(166.3, 1), (167.2, 2)], marked=True)
    drawn = line_chart([line], title="", x_label="", y_label="", log_x=True)
    assert re.findall(r'class="tick"[^>]*"middle">([\d.]+)<', drawn) == ["150", "200"]
    places = [float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', drawn)]
    assert sum(places) / 2 == pytest.approx((42 + 464 - 126) / 2, abs=1)  # the middle of the plot


def test_an_error_bar_reaches_as_far_to_both_sides_and_the_axis_holds_it():
    line = Line(label="", colour="mtm", points=[(1, 10), (2, 20)], errors=[None, 5.0], marked=True)
    drawn = line_chart([line], title="", x_label="", y_label="")
    (_, low), (x, dot) = [tuple(map(float, each)) for each in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    ((bar_x, first, last),) = re.findall(
        r'class="line c-mtm" x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', drawn
    )
    assert float(bar_x) == x
    assert float(first) - dot == pytest.approx((low - dot) / 2, abs=0.11)
    assert dot - float(last) == pytest.approx((low - dot) / 2, abs=0.11)
    assert float(last) >= 30  # below the upper edge of the plot


def test_a_curve_is_scaled_to_the_unit_of_its_axes():
    records = [{"step": 3, "accuracy": 0.5}, {"step": 7, "loss": 1.0}, {"step": 11, "accuracy": None}]
    assert curve(records, "accuracy", offset=1, scale=0.5, factor=100, label="", colour="mtm").points == [(2.0, 50.0)]


def test_a_long_curve_is_of_means_and_keeps_its_last_point():
    points = [(float(place), float(place % 2)) for place in range(10 * MOST_POINTS)]
    short = thinned(points)
    assert len(short) == MOST_POINTS
    assert short[:2] == [(4.5, 0.5), (14.5, 0.5)]
    assert short[-1] == points[-1]
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]
    assert len(thinned(points[: MOST_POINTS + 1])) <= MOST_POINTS
