"""A heat map as SVG: rows by columns of numbers, stronger the larger the number; its colours are the page's.

A cell is a colour of the page (`fill c-mtm`), more or less opaque, so light and dark scheme both run from paper to
colour. A number on strong colour is written in the colour of the paper.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

_LETTER, _LINE = 6.8, 16
"""width and height of a letter of the page's charts, in their units"""
_LONGEST_LABEL, _GAP = 22, 6
_INVERTED_FROM = 0.7
"""opacity from which a number is paper on colour"""
_SHRINKS = 560
"""width up to which it gets narrower with the page; wider ones need a place that scrolls"""
_MINUS, _NOTHING = "\u2212", "\u2013"


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], *, title: str,
    x_label: str = "", y_label: str = "", limit: float | None = None, signed: bool = False,
    texts: Sequence[Sequence[str]] | None = None, side: float = 22,
) -> Markup:  # fmt: skip
    """Draw a matrix of numbers.

    Args:
        rows: names, written at the left.
        columns: names, written above; upwards where one is wider than a cell.
        values: a number a row and column; None, or what is not finite: not measured.
        title: what it shows, in words, for those who don't see it.
        x_label: what the columns are.
        y_label: what the rows are, such as "true class".
        limit: the number of a cell of full colour; None: the largest size of `values`.
        signed: whether signs are written and have a colour each: above 0 that of MTM, below 0 that of training from
            scratch. Else all are of MTM's colour.
        texts: what is written into the cells; None: their numbers with one digit.
        side: of a cell, at least; wider where a text needs it.
    Returns: Markup of one `<svg>` of its own width, which a narrow page shrinks if it is small; empty where nothing was
        measured.
    """
    finite = [abs(value) for line in values for value in line if value is not None and math.isfinite(value)]
    if not finite:
        return Markup("")
    limit = max(finite) if limit is None else limit
    texts = [[_written(value, signed) for value in line] for line in values] if texts is None else texts
    short_rows, short_columns = ([_shortened(each) for each in names] for names in (rows, columns))
    width = max(side, max(len(text) for line in texts for text in line) * _LETTER + 12)
    longest = max(map(len, short_columns)) * _LETTER + _GAP
    upwards = longest > width
    left = max(max(map(len, short_rows)) * _LETTER + 2 * _GAP, len(y_label) * _LETTER + _GAP)
    above = (longest if upwards else _LINE) + _LINE * bool(x_label or y_label) + _GAP
    right, bottom = left + len(columns) * width, above + len(rows) * side

    frame = f'x="{left - 1:.1f}" y="{above - 1:.1f}" width="{right - left + 1:.1f}" height="{bottom - above + 1:.1f}"'
    parts = [f'<rect class="grid" fill="none" {frame}/>']
    for place, name in enumerate(short_columns):
        parts.append(_column(left + (place + 0.5) * width, above - _GAP, name, upwards))
    for line, name in enumerate(short_rows):
        top = above + line * side
        parts.append(_text(left - _GAP, top + side / 2, name, anchor="end"))
        for place, (value, text) in enumerate(zip(values[line], texts[line], strict=True)):
            told = f"{rows[line]}, {columns[place]}: {text or _written(value, signed)}"
            cell = _cell(value, text, (left + place * width, top, width, side), limit, signed)
            parts.append(f"<g><title>{escape(told)}</title>{cell}</g>")
    if y_label:
        at = f'x="{left - _GAP:.0f}" y="{above - _GAP:.0f}" text-anchor="end"'
        parts.append(f'<text class="axis" {at}>{escape(y_label)}</text>')
    if x_label:
        parts.append(f'<text class="axis" x="{left:.0f}" y="12">{escape(x_label)}</text>')
    size = (math.ceil(right + 1), math.ceil(bottom + 1))
    at_most = "90vw" if size[0] <= _SHRINKS else "none"
    return Markup(
        f'<svg class="chart heat" viewBox="0 0 {size[0]} {size[1]}" style="width:{size[0]}px;max-width:{at_most}" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _column(x, y, name, upwards):
    """A column's name, its lower end in the middle of the column."""
    if upwards:
        x += 4
        return (
            f'<text class="tick" transform="rotate(-90 {x:.1f} {y:.1f})" x="{x:.1f}" y="{y:.1f}">{escape(name)}</text>'
        )
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(name)}</text>'


def _cell(value, text, box, limit, signed):
    """Colour and text of a cell; a dash where nothing was measured."""
    left, top, width, height = box
    middle = left + (width - 1) / 2, top + height / 2
    if not _is_finite(value):
        return _text(*middle, _NOTHING)
    share = min(abs(value) / limit, 1.0) if limit > 0 else 0.0
    if not signed and value < 0:
        share = 0.0
    colour = "scratch" if signed and value < 0 else "mtm"
    return (
        f'<rect class="fill c-{colour}" x="{left:.1f}" y="{top:.1f}" width="{width - 1:.1f}" '
        f'height="{height - 1:.1f}" fill-opacity="{share:.3f}"/>{_text(*middle, text, inverted=share > _INVERTED_FROM)}'
    )


def _text(x, y, text, *, anchor="middle", inverted=False):
    """A text whose middle is at the height y."""
    if not text:
        return ""
    style = ' style="fill:var(--paper,#fff)"' if inverted else ""
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _written(value, signed):
    """A number with one digit, or a dash."""
    if not _is_finite(value):
        return _NOTHING
    return (f"{value:+.1f}" if signed else f"{value:.1f}").replace("-", _MINUS)


def _is_finite(value):
    return value is not None and math.isfinite(value)


def _shortened(text):
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "\u2026"
