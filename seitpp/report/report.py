"""One self-contained page of any runs and token stores; beside it results.csv and each table as CSV, Markdown, LaTeX.

    python -m seitpp.report.report runs/demo --out report.html
    python -m seitpp.report.report runs/mtm runs/finetune stores/train --out report.html --images photos

A stage that was not run has no section; a number that was not measured does not appear. The page holds its pictures
and styles, loads nothing, and runs no script.
"""

import argparse
import datetime
import math
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from seitpp.report.ablation import as_markdown, is_ablation_markdown
from seitpp.report.found_results import all_results
from seitpp.report.found_runs import Found, find_runs
from seitpp.report.page_summary import steps, summary_sentences, tiles
from seitpp.report.reported_tables import how_read, says
from seitpp.report.sections import Given, gather, shown
from seitpp.report.table_files import refuse_foreign_tables, write_tables
from seitpp.report.tables import Table, table_names
from seitpp.report.words import MINUS, TIMES, size
from seitpp.runtime.command import explain
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import followed, replacing, write_text
from seitpp.runtime.locations import with_home
from seitpp.runtime.ownership import begins_with, is_run, refuse_foreign_file
from seitpp.runtime.results import is_results, write_results

_TITLE = b": a seitpp report</title>"
"""Of every page, near its beginning."""


def write_report(folders: Sequence[str | Path], out: str | Path, *, images: str | Path | None = None) -> list[Path]:
    """Write the page, and beside it results.csv, the folder `tables` and, where there is an ablation, ablation.md.

    Args:
        folders: runs, token stores, or folders that hold some.
        out: the HTML file.
        images: the folder that was tokenised, or the one that holds train and test; None: `images` in a folder of
            `folders`, where it holds the images of the stores beside it.
    Returns: the files that were written, and the folder of tables, where there are any.
    Raises: UserError where there is nothing to report, a file is broken, or `out` cannot be written.
    """
    if "://" in str(out):
        raise UserError(f"--out {out} is a URL, which can't be written to: name a file of this machine")
    out = followed(out)
    if images is not None and not Path(images).is_dir():
        raise UserError(f"{images} is not a folder: give --images the folder that was tokenised")
    found = find_runs(folders, skip=[images, *(Path(folder) / "images" for folder in folders)])
    if out.is_dir():
        raise UserError(f"{out} is a folder: give --out a file, such as {out / 'report.html'}")
    results = all_results(found)
    page = page_of(found, results, images=images, folders=folders)
    names = table_names(tables_of(page))
    tables = {names[id(table)]: table for table in tables_of(page)}
    _refuse_foreign_files(out, page, found, tables)
    with replacing(out) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    write_results(out.parent, results)
    written = [out, out.parent / "results.csv"]
    if page["ablations"]:
        written.append(out.parent / "ablation.md")
        write_text(written[-1], as_markdown(page["ablations"]))
    return written + write_tables(out.parent, tables)


def _refuse_foreign_files(out, page, found, tables):
    """Refuse to replace what no report wrote: a run's table of results, and files that are something else."""
    if is_run(out.parent) or any(run.path.resolve() == out.resolve().parent for run in found.runs):
        raise UserError(f"{out.parent} is a run, whose results.csv would be replaced: give --out another folder")
    remedy = "give --out another folder, or move it elsewhere"
    refuse_foreign_file(out, lambda file: begins_with(file, _TITLE, within=1 << 12), "a report", remedy)
    refuse_foreign_file(out.parent / "results.csv", is_results, "a table of results", remedy)
    if page["ablations"]:
        refuse_foreign_file(out.parent / "ablation.md", is_ablation_markdown, "an ablation's table", remedy)
    refuse_foreign_tables(out.parent, tables)


def page_of(
    found: Found, results: pd.DataFrame, *, images: str | Path | None = None, folders: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Everything that the template shows: the sections, and what sums them up."""
    given = Given(found=found, results=results, images=images, folders=folders)
    page = gather(given)
    questions = shown(page)
    beginning, sections = says(results["dataset"]), [each for question in questions for each in question.sections]
    reported = {section.name: section.reported(beginning) for section in sections}
    page |= {"questions": questions, "reported": reported, "how_read": how_read()}
    page |= {"runs": found.runs, "rows": len(results), "version": _version()}
    page["date"] = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return page | {"summary": summary_sentences(page), "tiles": tiles(page), "steps": steps(page)}


def tables_of(page: dict[str, Any]) -> list[Table]:
    """The tables of the sections that are shown, in the page's order."""
    tables = []
    for section in [section for question in page["questions"] for section in question.sections]:
        for part in page[section.name]:
            tables += part.get("tables", ()) if isinstance(part, dict) else ()
        tables += page["reported"][section.name]
    return tables


def render(page: dict[str, Any]) -> str:
    """The page as HTML; every text of a run is escaped."""
    names = table_names(tables_of(page))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seitpp.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "size": size,
        "duration": _duration,
        "unbroken": _unbroken,
        "file_name": lambda table: names.get(id(table)),
    }
    return environment.get_template("report.html.j2").render(page)


def _version():
    try:
        return metadata.version("seitpp")
    except metadata.PackageNotFoundError:
        return ""


def _percent(value):
    return _number(100 * value, 1)


def _number(value, digits=2):
    """A number with its digits; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:,.{digits}f}".replace("-", MINUS)


def _unbroken(text):
    """Text whose numbers stay on one line with their signs and units."""
    return re.sub(rf"(?<=\d) (?=[%±{TIMES}\u2192]|nats|points|dB)|(?<=[±{TIMES}\u2192]) (?=\d)", "\u00a0", text)


def _duration(seconds):
    """Seconds as "8 min 12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; --help says more")


def cli(argv: Sequence[str] | None = None) -> None:
    """Run the report from the command line; exit code 1 and one line on standard error where something is wrong."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _Parser(prog="seitpp report", description="One self-contained page, and results.csv, of many runs.")
    place: Any = {"type": with_home}
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, a store, or a folder that holds some", **place)
    parser.add_argument("--out", default="report.html", help="the page; tables go beside it (%(default)s)", **place)
    parser.add_argument("--images", help="folder of the images, to compare bytes (RUN/images, if there)", **place)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    try:
        arguments = parser.parse_args(argv)
        written = write_report(arguments.runs, arguments.out, images=arguments.images)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)
    print(f"written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    cli()
