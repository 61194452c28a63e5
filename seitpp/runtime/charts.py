"""Charts as SVG: a line chart with labels at the lines' ends, and the bar of a table's row.

Colours are CSS classes of the page (`c-mtm`, `c-scratch`, …), so a chart follows its light and dark scheme. A chart in
a file of its own brings them along.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from seitpp.runtime.files import write_text

WIDTH, HEIGHT = 464, 280
LEFT, RIGHT, TOP, BOTTOM = 42, 126, 30, 44
_LABEL_HEIGHT, _LONGEST_LABEL = 15, 18
_COLOURS = {"mtm": "#1a6fb5", "scratch": "#c2571a", "other": "#6b8e23", "baseline": "#777"}
_STYLE = "".join(
    [
        "<style>text { font: 12.5px sans-serif; fill: #222 } .tick, .axis { fill: #666 } .grid { stroke: #ddd } "
        ".line { fill: none; stroke-width: 1.8 } .rule { stroke-dasharray: 5 4 } .leader { fill: none; opacity: .5 }",
        *(
            f" .line.c-{name}, .rule.c-{name}, .leader.c-{name} {{ stroke: {colour} }}"
            f" .dot.c-{name}, .end.c-{name} {{ fill: {colour} }}"
            for name, colour in _COLOURS.items()
        ),
        "</style>",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        label: written at its end; "" for a line that shares the label of another.
        colour: name of the CSS class, without "c-"; "run hue-N" for N of 0 to 5, on a page that has these.
        points: list of (x, y), sorted by x; a single one is drawn as a dot.
        marked: whether every point gets a dot.
        errors: of each point, how far a bar reaches to both sides; None: it has none. (): no point has one.
        dashed: whether it is drawn broken.
    """

    label: str
    colour: str
    points: list = field(repr=False)
    marked: bool = False
    errors: Sequence[float | None] = ()
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A horizontal line at `y` for a number to compare with, labelled at its end."""

    label: str
    y: float
    colour: str = "baseline"


def line_chart(
    lines: Sequence[Line], *, title: str, x_label: str, y_label: str, rules: Sequence[Rule] = (), log_x: bool = False
) -> Markup:
    """Draw lines over a common x axis.

    Args:
        lines: list of Line; points that are not finite are left out.
        title: what it shows, in words, for those who don't see it.
        x_label: what the horizontal axis counts, with its unit.
        y_label: what the vertical axis measures, with its unit.
        rules: list of Rule.
        log_x: the horizontal axis is logarithmic; points at 0 and below are left out.
    Returns: Markup of one `<svg>`; empty where there is no point to draw.
    """
    known = [(line, _known_points(line, log_x)) for line in lines]
    drawn = [(line, points) for line, points in known if points]
    if not drawn:
        return Markup("")
    xs = [x for _, points in drawn for x, *_ in points]
    ys = [y + sign * error for _, points in drawn for _, y, error in points for sign in (-1, 1)]
    ys += [rule.y for rule in rules]
    x_range = _log_range(min(xs), max(xs)) if log_x else (0.0, max(xs))
    x_ticks, y_ticks = log_ticks(*x_range) if log_x else ticks(*x_range, 5), ticks(min(ys), max(ys), 6)
    x_ticks = [value for value in x_ticks if value <= x_range[1]]
    place = _Scale(*x_range, min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)), log_x)

    parts = [_axes(place, x_ticks, y_ticks, x_label, y_label)]
    ends = []
    for rule in rules:
        y = place.y(rule.y)
        parts.append(f'<line class="rule c-{rule.colour}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        ends.append((y, WIDTH - RIGHT, rule.label, rule.colour))
    for line, points in drawn:
        placed = [(place.x(x), place.y(y)) for x, y, _ in points]
        if len(placed) > 1:
            path = " ".join(f"{x},{y}" for x, y in placed)
            broken = ' stroke-dasharray="4 3"' if line.dashed else ""
            parts.append(f'<polyline class="line c-{line.colour}"{broken} points="{path}"/>')
        for x, y, error in points:
            if error:
                ends_at = f'y1="{place.y(y - error)}" y2="{place.y(y + error)}"'
                parts.append(f'<line class="line c-{line.colour}" x1="{place.x(x)}" x2="{place.x(x)}" {ends_at}/>')
        if line.marked or len(placed) == 1:
            parts += [f'<circle class="dot c-{line.colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in placed]
        if line.label:
            ends.append((placed[-1][1], placed[-1][0], line.label, line.colour))
    parts += _end_labels(ends)
    body = "".join(parts)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def write_chart(path: str | Path, chart: Markup) -> None:
    """Write what `line_chart` drew as an SVG file that any browser shows, on white."""
    size = f'xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    drawn = str(chart).replace("<svg ", f"<svg {size} ", 1).replace("</title>", f"</title>{_STYLE}{background}", 1)
    write_text(path, f"{drawn}\n")


MOST_POINTS = 400
"""points of a curve; more would make a page heavy and could not be told apart"""


def curve(
    records: Sequence[dict[str, Any]], name: str, *, offset: int = 0, scale: float = 1.0, factor: float = 1.0,
    **style: Any,
) -> Line:  # fmt: skip
    """The Line of one measure in a run's metrics.

    Args:
        records: dicts with "step" and some with `name`.
        name: the measure.
        offset: added to the step: 1 where a record tells of the step itself, 0 where of the state before it.
        scale: what steps are multiplied with, such as epochs a step.
        factor: what the measure is multiplied with, such as 100 for percent.
        **style: the Line's other attributes.
    """
    known = [record for record in records if record.get(name) is not None]
    return Line(points=thinned([((each["step"] + offset) * scale, factor * each[name]) for each in known]), **style)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: means of neighbours, the last of which keep the last point as it is."""
    each = math.ceil(len(points) / MOST_POINTS)
    if each <= 1:
        return list(points)
    *most, last = points
    groups = [most[start : start + each] for start in range(0, len(most), each)][: MOST_POINTS - 1]
    return [(_mean(x for x, _ in group), _mean(y for _, y in group)) for group in groups] + [last]


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def bar(value: float, limit: float, *, colour: str, std: float | None = None) -> Markup:
    """Draw the bar of a table's row, `value` of `limit` long, with a whisker of one standard deviation to both sides.

    It fills the width that it is given; the number itself stands in the table, so it is hidden from screen readers.
    """
    if not (limit > 0 and math.isfinite(value)):
        return Markup("")
    end = 100 * min(max(value / limit, 0.0), 1.0)
    whisker = ""
    if std is not None and std > 0:
        low, high = (100 * min(max((value + sign * std) / limit, 0.0), 1.0) for sign in (-1, 1))
        whisker = f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
    return Markup(
        f'<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%"/>'
        f'<rect class="fill c-{escape(colour)}" width="{end:.2f}%" height="100%"/>{whisker}</svg>'
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that cover [low, high], a list of floats.

    The step is 1, 2 or 5 times a power of ten.
    """
    span = high - low if high > low else max(abs(high), 1.0)
    rough = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 or 5 times a power of ten in [low, high], both above 0; of a narrow range, round numbers in it."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return found if len(found) > 1 else [value for value in ticks(low, high, 4) if low <= value <= high] or [low]


_AROUND, _LEAST = 1.15, 2.0
"""Factors of a logarithmic axis: how far it goes beyond its points, and how far at least from end to end."""


def _log_range(low: float, high: float) -> tuple[float, float]:
    beyond = max(_AROUND, math.sqrt(_LEAST * low / high))
    return low / beyond, high * beyond


@dataclass(frozen=True)
class _Scale:
    """From data to the chart's units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log_x: bool = False

    def x(self, value):
        low, high, value = (math.log(each) if self.log_x else each for each in (self.x_low, self.x_high, value))
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value):
        return round(HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM), 1)


def _known_points(line, log_x):
    """(x, y, how far its error bar reaches) of the points that can be drawn."""
    errors = line.errors or [None] * len(line.points)
    points = [(x, y, error or 0.0) for (x, y), error in zip(line.points, errors, strict=True)]
    return [each for each in points if all(map(math.isfinite, each)) and (each[0] > 0 or not log_x)]


def _axes(place, x_ticks, y_ticks, x_label, y_label):
    """Grid, numbers and labels of both axes."""
    parts = []
    for value in y_ticks:
        y = place.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
    for value in x_ticks:
        text = f'<text class="tick" x="{place.x(value)}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
        parts.append(f"{text}{_number(value)}</text>")
    parts.append(
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(x_label)}</text>'
        f'<text class="axis" x="0" y="12">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _end_labels(ends):
    """Texts right of the plot at the height of their lines, moved apart where they would touch."""
    ends = sorted(ends)
    heights = [y for y, *_ in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + _LABEL_HEIGHT)
    lowest = HEIGHT - BOTTOM + 4
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], lowest - _LABEL_HEIGHT * (len(heights) - 1 - index))
    x = WIDTH - RIGHT + 10
    for height, (y, end, label, colour) in zip(heights, ends, strict=True):
        yield f'<path class="leader c-{colour}" d="M{end + 3} {y}L{x - 3} {height:.1f}"/>'
        short = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "\u2026"
        yield f'<text class="end c-{colour}" x="{x}" y="{height + 4:.1f}">{escape(short)}</text>'


def _number(value):
    """A tick's number, without digits that it doesn't need."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
