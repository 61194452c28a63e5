"""Recipes by name: YAML files of the installed folder `seitpp/configs`, one folder a stage."""

from importlib import resources
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.suggest import did_you_mean


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
    raise UserError(f"no recipe {name} for this stage; {did_you_mean(path.stem, names)}")
