"""Recipes by name: YAML files of the installed folder `seitpp/configs`, one folder a stage."""

import difflib
from importlib import resources
from pathlib import Path

from seitpp.runtime.errors import UserError


def recipes_folder(stage):
    """The folder of a stage's recipes."""
    return Path(str(resources.files("seitpp") / "configs")) / stage


def find_recipe(name, stage):
    """The path of a recipe: a file as it stands, `configs/<stage>/<name>.yaml` from anywhere, or a bare name.

    Raises: UserError naming the nearest recipe if there is none.
    """
    path = Path(name)
    folder = recipes_folder(stage)
    packaged = folder.parent.joinpath(*path.parts[1:]) if path.parts[:1] == ("configs",) else folder / f"{name}.yaml"
    for candidate in (path, packaged):
        if candidate.is_file():
            return candidate
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise UserError(f"no recipe {name} for this stage; {advice}")
