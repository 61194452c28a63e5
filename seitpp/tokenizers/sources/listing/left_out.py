"""What is left out of a data set of images: listed in skipped.csv, counted by kind for the last line."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seitpp.runtime.files import replacing

_PLURALS = {
    "broken link": "broken links",
    "class folder without images": "class folders without images",
    "hidden or system folder": "hidden or system folders",
    "hidden or system file": "hidden or system files",
    "link to what is listed already": "links to what is listed already",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that gives no image.

    Attributes:
        file: which one: its path from the root, or its key.
        kind: why, in words that are the same for all that are left out for this reason.
        detail: what is particular to this one.
    """

    file: str
    kind: str
    detail: str = ""


def counted(left_out: Iterable[LeftOut]) -> str:
    """How many there are of each kind, the most first: "8 broken links, 4 of unknown format .xyz"; "" for none."""
    kinds = Counter(each.kind for each in left_out)
    return ", ".join(
        f"{count:,} {_PLURALS.get(kind, kind) if count > 1 else kind}" for kind, count in kinds.most_common()
    )


def sentence(left_out: Sequence[LeftOut], table: str | Path | None = None) -> str:
    """What a last line says: "; left out: …, see TABLE"; "" where nothing is left out."""
    return f"; left out: {counted(left_out)}{f', see {table}' if table else ''}" if left_out else ""


def write_skipped(path: str | Path, left_out: Iterable[LeftOut]) -> None:
    """Write the CSV table file, reason; its reasons are "kind" or "kind: detail"."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "reason"))
        writer.writerows((each.file, f"{each.kind}: {each.detail}" if each.detail else each.kind) for each in left_out)


def read_skipped(path: str | Path) -> list[LeftOut]:
    """What `write_skipped` wrote; nothing where there is no such table."""
    if not Path(path).exists():
        return []
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2]
    return [LeftOut(name, *reason.split(": ", 1)) for name, reason in rows[1:]]
