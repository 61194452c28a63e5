"""What one looks at of `seitpp explore`: neighbours of test images, and the map of features."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from pathlib import Path
from typing import Any

import numpy as np

from seitpp.report import words
from seitpp.report.captioned import cut_images
from seitpp.report.found_runs import Run
from seitpp.report.run_tables import run_table
from seitpp.report.tables import Cell, Table, slug
from seitpp.runtime.scatter import MOST_MARKS, legend_marks, scatter


def feature_looks(run: Run) -> dict[str, Any] | None:
    """The section of one exploration; None while it is not finished."""
    if not run.summary or not (run.path / "feature_map.csv").is_file():
        return None
    table = run_table(run.path / "feature_map.csv", ["class"], ["x", "y"])
    names = _known_order(table["class"])
    groups = table["class"].map({name: place for place, name in enumerate(names)}).to_numpy(np.int64)
    told = run.summary.get("feature_map", {})
    title = f"{len(table)} test images in the space of features, of {len(names)} classes"
    origin = next(iter(run.results.itertuples()), None)
    return {
        "kind": "features", "dataset": run.config.get("dataset", ""), "label": run.label,
        "start": words.start(origin.init, origin.augmentation) if origin is not None else "",
        "of_classifier": origin is not None and origin.init == "classifier",
        "agreement": run.summary.get("neighbour_agreement"), "neighbours": run.summary.get("neighbours"),
        "rows": _neighbour_rows(run.path), "map": scatter(table[["x", "y"]].to_numpy(), groups, names, title=title),
        "mapped": len(table), "named": len(names) > MOST_MARKS,
        "legend": list(zip(legend_marks(len(names)), names, strict=False)),
        "method": told.get("method", ""), "explained": told.get("explained_variance"),
        "trustworthiness": told.get("trustworthiness"), "tables": _neighbour_tables(run),
    }  # fmt: skip


def _neighbour_rows(folder):
    """A list a query: itself and its neighbours, each {name, uri, text, right}; none without a picture."""
    pictures = iter(cut_images(folder / "neighbours.png"))
    rows = []
    for _, near in _neighbours(folder).groupby("query", sort=False):
        name = near["query_class"].iloc[0]
        row = [{"name": name, "uri": next(pictures, None), "text": "", "right": True}]
        row += [
            {"name": each.neighbour_class, "uri": next(pictures, None), "text": f"{each.similarity:.3f}",
             "right": each.neighbour_class == name}
            for each in near.itertuples()
        ]  # fmt: skip
        if any(each["uri"] is None for each in row):
            return []
        rows.append(row)
    return rows


def _neighbour_tables(run):
    table = _neighbours(run.path)
    rows = []
    for query, near in table.groupby("query", sort=False):
        cells = [Cell(text=each.neighbour_class, note=f"{each.similarity:.3f}") for each in near.itertuples()]
        rows.append((f"{near['query_class'].iloc[0]} ({Path(query).name})", cells))
    if not rows:
        return []
    most = max(len(cells) for _, cells in rows)
    return [
        Table(
            name=slug(f"neighbours-{run.label}"),
            caption="Classes of the nearest training images, and their similarity",
            columns=("test image", *(str(place + 1) for place in range(most))),
            rows=[(name, cells + [None] * (most - len(cells))) for name, cells in rows],
        )
    ]  # fmt: skip


def _neighbours(folder):
    return run_table(folder / "neighbours.csv", ["query", "query_class", "neighbour_class"], ["similarity"])


def _known_order(classes):
    """Class names, numbers by their value, else by the alphabet."""
    return sorted(classes.unique(), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
