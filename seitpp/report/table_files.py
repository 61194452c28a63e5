"""The page's tables as files beside it: `tables/NAME.csv`, `.md` and `.tex`.

`tables/tables.json` lists the files, so that a later report knows which are a report's: it replaces and removes these
alone, and refuses a folder without that list, or a file that another program put where one of a table belongs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from seitpp.report.tables import Table, as_csv, as_latex, as_markdown
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import followed, read_json, replacing, write_json
from seitpp.runtime.ownership import visible

FOLDER, LIST = "tables", "tables.json"
FORMS = {"csv": as_csv, "md": as_markdown, "tex": as_latex}
_SAYS = "tables of a seitpp report"


def refuse_foreign_tables(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write into a folder that no report made, or over a file that none wrote.

    Args:
        folder: that of the page.
        names: of the tables.
    """
    remedy = "give --out another folder, or move it elsewhere"
    tables = followed(folder / FOLDER)
    if tables.exists() and not tables.is_dir():
        raise UserError(f"{tables} is there already and is not a report's folder of tables: {remedy}")
    found, own = visible(tables), _listed(tables)
    if found and own is None:
        raise UserError(f"{tables} holds {found[0]} and is not a report's folder of tables: {remedy}")
    for file in _files(names):
        if file in found and file not in (own or ()):
            raise UserError(f"{tables / file} is there already and is not a report's table: {remedy}")


def write_tables(folder: Path, tables: Mapping[str, Table]) -> list[Path]:
    """Write each table in each form, and remove what an earlier report wrote and this one has not.

    Args:
        folder: that of the page.
        tables: by name.
    Returns: the folder of tables, or [] where there are none.
    """
    place = followed(folder / FOLDER)
    former = set(_listed(place) or ())
    names = set(_files(tables))
    if not former and not names:
        return []
    # Listed before they are written: a report that is killed leaves nothing that the next one would take for foreign.
    _list(place, former | names)
    for name, table in tables.items():
        for ending, form in FORMS.items():
            with replacing(place / f"{name}.{ending}") as temporary:
                temporary.write_text(form(table), encoding="utf-8")
    for file in former - names:
        (place / file).unlink(missing_ok=True)
    _list(place, names)
    return [place] if names else []


def _files(names):
    return [f"{name}.{ending}" for name in names for ending in FORMS]


def _list(place, files):
    write_json(place / LIST, {"these are": _SAYS, "files": sorted(files)})


def _listed(place):
    """The files that a folder's list names; None if it has none that a report wrote."""
    file = place / LIST
    try:
        content = read_json(file) if file.is_file() else None
    except (OSError, ValueError):
        return None
    if not (isinstance(content, dict) and content.get("these are") == _SAYS):
        return None
    files = content.get("files")
    if not (isinstance(files, list) and all(isinstance(each, str) and "/" not in each for each in files)):
        return None
    return [each for each in files if each.rpartition(".")[2] in FORMS]
