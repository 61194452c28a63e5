"""A scatter plot as SVG: points of groups in a plane whose axes mean nothing, as t-SNE leaves them.

Up to a dozen groups have a mark of their own, one of six hues that are told apart by everyone in one of two shapes;
the page lists them (`legend_marks`). Of more groups the names stand where their points are. Hues are CSS classes of the
page (`hue-0` to `hue-5`, which set `--hue`): Okabe and Ito's, moved until each stands out from light and dark ground.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

MOST_MARKS = 12
"""groups that are told apart by their marks"""
MOST_NAMES = 20
"""that stand in the plot, where there are more groups than marks"""
WIDTH, HEIGHT = 560, 440
_MARGIN = 12
_HUES = 6
_LETTER, _LINE, _LONGEST_LABEL = 6.8, 15, 22


def scatter(points: np.ndarray, groups: np.ndarray, names: Sequence[str], *, title: str) -> Markup:
    """Draw points.

    Args:
        points: (n, 2); both axes have one scale. Those that are not finite are left out.
        groups: index of each point's group, (n,) int.
        names: of the groups, in the order of their marks.
        title: what it shows, in words, for those who don't see it.
    Returns: Markup of one `<svg>`; empty where there is no point.
    """
    finite = np.isfinite(points).all(axis=1)
    points, groups = points[finite], groups[finite]
    if not len(points):
        return Markup("")
    placed = _placed(points)
    parts = [f'<rect class="grid" fill="none" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6"/>']
    for group in np.unique(groups).tolist():
        hue, shape = _mark(group)
        path = "".join(shape(x, y) for x, y in placed[groups == group].tolist())
        parts.append(f'<g {hue}><title>{escape(names[group])}</title><path d="{path}"/></g>')
    if len(names) > MOST_MARKS:
        parts += _labels(placed, groups, names)
    return Markup(
        f'<svg class="chart scatter" viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:{WIDTH + 120}px" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def legend_marks(count: int) -> list[Markup]:
    """The marks of so many groups, each a small `<svg>`; none where names stand in the plot instead."""
    if count > MOST_MARKS:
        return []
    marks = []
    for group in range(count):
        hue, shape = _mark(group)
        marks.append(
            Markup(
                f'<svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true"><g {hue}>'
                f'<path d="{shape(6, 6)}"/></g></svg>'
            )
        )
    return marks


def _placed(points):
    """Points in the plot's units, in its middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
    scale = float((room / np.maximum(high - low, 1e-12)).min()) if (high > low).any() else 1.0
    centred = (points - (low + high) / 2) * scale * [1, -1]
    return np.round(centred + np.array([WIDTH, HEIGHT]) / 2, 1)


def _mark(group):
    """(attributes of its group, function from a place to a path)."""
    hue, shape = group % _HUES, group // _HUES % 2
    colour = 'style="fill:var(--hue);fill-opacity:.8"'
    return f'class="hue-{hue}" {colour}', (_circle, _triangle)[shape]


def _circle(x, y):
    return f"M{x - 3:g} {y:g}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"


def _triangle(x, y):
    return f"M{x:g} {y - 4:g}l4 7h-8z"


def _labels(placed, groups, names):
    """Names at the medians of their points, the largest groups first; one that would touch another is left out."""
    taken = []
    labels, counts = np.unique(groups, return_counts=True)
    for group in labels[np.argsort(-counts, kind="stable")].tolist():
        if len(taken) == MOST_NAMES:
            return
        name = names[group]
        text = name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "\u2026"
        half = len(text) * _LETTER / 2
        x, y = np.median(placed[groups == group], axis=0).tolist()
        x, y = min(max(x, half + 2), WIDTH - half - 2), min(max(y, _LINE), HEIGHT - 4)
        if any(abs(x - other) < half + width and abs(y - height) < _LINE for other, height, width in taken):
            continue
        taken.append((x, y, half))
        halo = 'style="paint-order:stroke;stroke:var(--paper,#fff);stroke-width:3px"'
        yield f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" {halo}>{escape(text)}</text>'
