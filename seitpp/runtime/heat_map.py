"""A heat map as SVG: rows by columns of numbers, stronger the larger the number; its colours are the page's.

A cell is the page's colour (`fill c-mtm`), more or less opaque, so light and dark scheme both run from paper to colour.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

_LETTER, _LINE = 6.8, 16
"""width and height of a letter of the page's charts, in their units"""
_LONGEST_LABEL, _GAP = 22, 6
_INVERTED_FROM = 0.7
"""opacity from which a number is paper on colour"""


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    texts: Sequence[Sequence[str]] | None = None,
    low: float = 0.0,
    high: float | None = None,
    row_label: str = "",
    column_label: str = "",
    colour: str = "mtm",
    signed: bool = False,
    side: float = 20,
) -> Markup:
    """Draw a matrix of numbers.

    Args:
        rows: names, written at the left.
        columns: names, written above; upwards where one is wider than a cell.
        values: (rows, columns); where one is None or not finite, the cell has no colour.
        title: what it shows, in words, for those who don't see it.
        texts: written into the cells, (rows, columns); "" for none. None: into no cell.
        low: the number of a cell without colour.
        high: the number of a cell of full colour; None: the largest of `values`.
        row_label: what the rows are, such as "true class".
        column_label: what the columns are.
        colour: name of the CSS class, without "c-".
        signed: whether colours tell the sign: above 0 that of MTM, below 0 that of training from scratch, the stronger
            the larger the size of the number.
        side: of a cell, at least; wider where a text needs it.
    Returns: Markup of one `<svg>` of its own width; empty where there is no row or no column.
    """
    if not rows or not columns:
        return Markup("")
    sizes = [[_size(value, signed) for value in line] for line in values]
    finite = [size for line in sizes for size in line if math.isfinite(size)]
    top = max(finite, default=low) if high is None else high
    names = [[_shortened(each) for each in some] for some in (rows, columns)]
    widest = max((len(text) for line in texts or () for text in line), default=0)
    width, height = max(side, widest * _LETTER + 8), side + 2 * bool(texts)
    upwards = max(map(len, names[1])) * _LETTER + _GAP > width
    left = max(map(len, names[0])) * _LETTER + 2 * _GAP
    left = max(left, len(row_label) * _LETTER + _GAP)
    above = max(map(len, names[1])) * _LETTER + _GAP if upwards else _LINE
    above += _LINE * bool(row_label or column_label) + _GAP

    parts = [f'<text class="axis" x="{left:.0f}" y="12">{escape(column_label)}</text>'] if column_label else []
    if row_label:
        parts.append(f'<text class="axis" x="{left - _GAP:.0f}" y="{above - _GAP:.0f}" text-anchor="end">')
        parts.append(f"{escape(row_label)}</text>")
    for place, name in enumerate(names[1]):
        x, y = left + (place + 0.5) * width, above - _GAP
        turned = f' transform="rotate(-90 {x + 4:.1f} {y:.1f})" x="{x + 4:.1f}"' if upwards else f' x="{x:.1f}"'
        anchor = "start" if upwards else "middle"
        parts.append(f'<text class="tick"{turned} y="{y:.1f}" text-anchor="{anchor}">{escape(name)}</text>')
    for line, name in enumerate(names[0]):
        y = above + line * height
        parts.append(_text(left - _GAP, y + height / 2, name, anchor="end"))
        for place, value in enumerate(values[line]):
            x = left + place * width
            share = _share(sizes[line][place], low, top)
            shade = ("scratch" if (value or 0.0) < 0 else "mtm") if signed else colour
            text = texts[line][place] if texts else ""
            told = f"{rows[line]}, {columns[place]}: {text or _number(value)}"
            parts.append(
                f'<g><title>{escape(told)}</title><rect class="fill c-{escape(shade)}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{width - 1:.1f}" height="{height - 1:.1f}" fill-opacity="{share:.3g}"/>'
                f"{_text(x + (width - 1) / 2, y + height / 2, text, inverted=share > _INVERTED_FROM)}</g>"
            )
    box = (
        f'x="{left - 1:.1f}" y="{above - 1:.1f}" width="{len(columns) * width + 1:.1f}" '
        f'height="{len(rows) * height + 1:.1f}"'
    )
    parts.insert(0, f'<rect class="grid" fill="none" {box}/>')
    size = (math.ceil(left + len(columns) * width + 1), math.ceil(above + len(rows) * height + 1))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {size[0]} {size[1]}" style="width:{size[0]}px;max-width:none" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _size(value, signed):
    """A number, or its size where colours tell the sign; nan where nothing was measured."""
    if value is None:
        return math.nan
    return abs(value) if signed else value


def _share(value, low, high):
    """How far a number is on the way from `low` to `high`, in [0, 1]."""
    if not math.isfinite(value) or high <= low:
        return 0.0
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _text(x, y, text, *, anchor="middle", inverted=False):
    """A text whose middle is at the height y."""
    if not text:
        return ""
    style = ' style="fill:var(--paper,#fff)"' if inverted else ""
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _shortened(text):
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "\u2026"


def _number(value):
    return f"{value:.4g}" if value is not None and math.isfinite(value) else "\u2013"
