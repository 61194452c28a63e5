"""Names of files and folders that are no images or classes, whatever they hold."""

import shlex
from collections.abc import Iterable, Sequence

from seitpp.runtime.errors import UserError

_SYSTEM = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin", "recycler",
     "system volume information", "lost+found", "thumbs.db", "desktop.ini", "icon\r"}
)  # fmt: skip
"""What file managers, NAS (Synology, QNAP), macOS and Windows leave in folders; all lower case."""
_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation"})
"""Names of the parts of a split data set."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden (.ipynb_checkpoints, ._photo.png, .Trash-1000) or a system's (@eaDir)."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def refuse_split(keys: Iterable[str], names: Sequence[str], known: Sequence[str] | None, where: object) -> None:
    """Refuse a folder whose class folders are the parts of a split data set.

    Args:
        keys: paths of the images, from the root.
        names: names of the classes found.
        known: class names that must be kept; parts that are among them are classes indeed.
        where: the root.
    Raises: UserError with the folders to give instead.
    """
    if not names or not {name.casefold() for name in names} <= _PARTS or set(names) <= set(known or ()):
        return
    if len(names) == 1 and not any(key.count("/") > 1 for key in keys):
        return  # one class that is called so, such as of trains
    first, *others = _training_first(names)
    learned = f"--images {shlex.quote(f'{where}/{first}')} --output_dir STORES/{first}"
    measured = (
        f", then --images {shlex.quote(f'{where}/{name}')} --like STORES/{first} --output_dir STORES/{name}"
        for name in others
    )
    raise UserError(
        f"{where} is split already ({', '.join(names)}): these are no classes; give each a seitpp tokenize of its own: "
        f"{learned}{''.join(measured)}"
    )


def require_utf8(keys: Sequence[str], where: object) -> None:
    """Refuse names that no store can hold.

    Raises: UserError that names the first of them.
    """
    try:
        "\n".join(keys).encode()
    except UnicodeEncodeError:
        bad = next(key for key in keys if any("\ud800" <= sign <= "\udfff" for sign in key))
        shown = bad.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UserError(
            f"{where}: the name of {shown} is not UTF-8: rename it, or all of them by convmv -f latin1 -t utf8 -r "
            "--notest FOLDER"
        ) from None


def _training_first(names):
    return sorted(names, key=lambda name: (not name.casefold().startswith("train"), name))
