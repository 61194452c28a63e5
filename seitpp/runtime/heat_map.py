"""A heat map as SVG: a table whose cells are the deeper in colour the larger their numbers, which stand in them.

Colours are those of `charts`: CSS classes of the page, so it follows the page's light and dark scheme. Shades are
opacities up to a half, so that the page's ink is readable on each.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

LEFT, TOP, CELL_WIDTH, CELL_HEIGHT, BOTTOM = 138, 24, 56, 24, 22
_DEEPEST = 0.5
_LONGEST_NAME = 22
_MINUS = "\u2212"


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], *, title: str, x_label: str,
    limit: float | None = None, signed: bool = False,
) -> Markup:  # fmt: skip
    """Draw a table of numbers.

    Args:
        rows: names of the rows.
        columns: names of the columns.
        values: a number a row and column, as it is written, with one digit; None: not measured.
        title: what it shows, in words, for those who don't see it.
        x_label: what the columns are.
        limit: the number of the deepest shade; None: the largest size of `values`.
        signed: whether signs are written and have a colour each: above 0 that of MTM, below 0 that of training from
            scratch. Else all are of MTM's colour.
    Returns: Markup of one `<svg>`; empty where there is no number.
    """
    known = [abs(value) for row in values for value in row if value is not None and math.isfinite(value)]
    if not known:
        return Markup("")
    limit = limit if limit is not None else max(known)
    width, height = LEFT + CELL_WIDTH * len(columns), TOP + CELL_HEIGHT * len(rows) + BOTTOM
    parts = [
        f'<text class="tick" {_centred(place * CELL_WIDTH + LEFT, TOP - 8)}>{escape(name)}</text>'
        for place, name in enumerate(columns)
    ]
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        top = TOP + CELL_HEIGHT * number
        parts.append(f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{escape(_short(name))}</text>')
        for place, value in enumerate(row):
            parts.append(_cell(value, LEFT + CELL_WIDTH * place, top, limit, signed))
    parts.append(f'<text class="axis" x="{width}" y="{height - 6}" text-anchor="end">{escape(x_label)}</text>')
    return Markup(
        f'<svg class="chart heat" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _cell(value, left, top, limit, signed):
    middle = _centred(left, top + 16)
    if value is None or not math.isfinite(value):
        return f'<text class="tick" {middle}>\u2013</text>'
    share = min(abs(value) / limit, 1.0) if limit > 0 else 0.0
    colour = "scratch" if signed and value < 0 else "mtm"
    text = (f"{value:+.1f}" if signed else f"{value:.1f}").replace("-", _MINUS)
    return (
        f'<rect class="fill c-{colour}" x="{left + 1}" y="{top + 1}" width="{CELL_WIDTH - 2}" '
        f'height="{CELL_HEIGHT - 2}" fill-opacity="{_DEEPEST * share:.3f}"/><text {middle}>{text}</text>'
    )


def _centred(left, y):
    """Attributes of a text in the middle of a column."""
    return f'x="{left + CELL_WIDTH / 2:g}" y="{y}" text-anchor="middle"'


def _short(name):
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
