"""The list of recipes that come with the package, `seitpp recipes`: each with what it says of itself."""

import re
import shutil
import sys
import textwrap
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.recipes import recipes_folder
from seitpp.runtime.suggest import did_you_mean

_FOLDERS = {"train-tokenadapt": "tokenadapt"}
"""Of stages whose recipes lie in a folder of another name."""


def recipes_of(stage: str | None = None) -> dict[str, list[Path]]:
    """{stage's folder: its recipes}, of one stage or of all.

    Raises: UserError if no recipe is of such a stage.
    """
    folders = sorted(path for path in recipes_folder(".").iterdir() if any(path.glob("*.yaml")))
    names = [path.name for path in folders]
    if stage is not None:
        wanted = _FOLDERS.get(stage, stage.replace("-", "_"))
        if wanted not in names:
            raise UserError(f"no recipes for {stage}; {did_you_mean(wanted, names)}")
        folders = [path for path in folders if path.name == wanted]
    return {path.name: sorted(path.glob("*.yaml")) for path in folders}


def first_sentence(recipe: Path) -> str:
    """What a recipe says of itself at its top, after the command; "" if it is its command alone."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ").strip() for line in lines[1:6] if line.startswith("#"))
    return re.split(r"(?<=[a-z)])[.:] ", comment, maxsplit=1)[0].rstrip(".")


def cli() -> None:
    """Print the list; exit code 1 and one line where there is no such stage."""
    words = [word for word in sys.argv[1:] if word != "--debug"]
    if words and words[0] in ("-h", "--help", "--help_all"):
        print("usage: seitpp recipes [STAGE]\n\nList the recipes that --config knows by name.")
        return
    try:
        found = recipes_of(words[0] if words else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    width = max(len(path.stem) for paths in found.values() for path in paths)
    room = max(40, shutil.get_terminal_size((80, 24)).columns - width - 4)
    for stage, paths in found.items():
        print(f"{stage}:")
        for path in paths:
            print(f"  {path.stem:<{width}}  {textwrap.shorten(first_sentence(path), room, placeholder=' …')}".rstrip())
    print(f"\nThey lie in {recipes_folder('.').resolve()}; --config takes a name or the path of a file of your own.")
