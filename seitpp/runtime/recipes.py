"""Recipes by name: YAML files of the installed folder `seitpp/configs`, one folder a stage.

A recipe holds differences from the defaults. One that begins with `base: NAME` holds differences from that recipe.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import with_home
from seitpp.runtime.suggest import did_you_mean


def recipes_folder(stage: str) -> Path:
    """The folder of a stage's recipes."""
    return Path(str(resources.files("seitpp") / "configs")) / stage


def find_recipe(name: str, stage: str) -> Path:
    """The path of a recipe: a file as it stands, `configs/<stage>/<name>.yaml` from anywhere, or a bare name.

    Raises: UserError naming the nearest recipe if there is none.
    """
    path = Path(with_home(name))
    folder = recipes_folder(stage)
    packaged = folder.parent.joinpath(*path.parts[1:]) if path.parts[:1] == ("configs",) else folder / f"{name}.yaml"
    for candidate in (path, packaged):
        if candidate.is_file():
            return candidate
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    raise UserError(f"no recipe {name} for this stage; {did_you_mean(path.stem, names)}")


def read_recipe(name: str, stage: str, inside: tuple[Path, ...] = ()) -> tuple[Path, dict[str, Any]]:
    """(Path, content) of a recipe, on top of the content of its `base`, if it names one. Its values are texts.

    Args:
        name: as for `find_recipe`; a `base` is looked for beside the recipe that names it, too.
        stage: folder of the stage's recipes.
        inside: the recipes that this one is the base of.
    Raises: UserError if there is no such recipe, it is no YAML mapping, or it is its own base.
    """
    import yaml

    from seitpp.runtime.yaml_texts import load_texts

    beside = inside[-1].parent / f"{name}.yaml" if inside else None
    path = beside if beside is not None and beside.is_file() else find_recipe(name, stage)
    try:
        content = load_texts(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a recipe: expected lines of `key: value`")
    if "base" not in content:
        return path, content
    base = content.pop("base")
    if not isinstance(base, str):
        raise UserError(f"{path}: base = {base!r} must be the name of a recipe")
    if path in inside:
        raise UserError(f"{path} is its own base: remove `base` from it or from {inside[-1]}")
    return path, _merged(read_recipe(base, stage, (*inside, path))[1], content)


def _merged(base, content):
    """`base` with what `content` has, mappings key by key."""
    merged = dict(base)
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
