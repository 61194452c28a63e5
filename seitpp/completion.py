"""`seitpp completion bash|zsh|tcsh`: a script by which a shell completes stages, their flags and recipes.

    seitpp completion bash > ~/.local/share/bash-completion/completions/seitpp
    seitpp completion zsh > ~/.zfunc/_seitpp

It is made by shtab from the stages' configurations as they are now: make it anew after an update.
"""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seitpp.launch import make_parser, recipe_names
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.recipes import recipes_folder
from seitpp.runtime.stand_ins import stand_ins

SHELLS = ("bash", "zsh", "tcsh")


def script(shell: str, stages: Mapping[str, tuple[str, str]], others: Mapping[str, str]) -> str:
    """The text that a shell reads.

    Args:
        shell: one of SHELLS.
        stages: {name: (module, what it does)}.
        others: {name: what it does} of commands that are no stages.
    Raises: UserError if shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise UserError("shtab is not installed: pip install 'seitpp[completion]'")
    import shtab

    return shtab.complete(whole_parser(stages, others, shtab.FILE), shell)


def whole_parser(
    stages: Mapping[str, tuple[str, str]], others: Mapping[str, str], files: Any
) -> argparse.ArgumentParser:
    """A parser of everything that can be typed; it parses nothing, its flags are read by shtab.

    Args:
        stages: as in `script`.
        others: likewise.
        files: how shtab says that a value is the name of a file.
    """
    parser = argparse.ArgumentParser(prog="seitpp")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    with stand_ins():
        for name, (module, text) in stages.items():
            _add_stage(commands.add_parser(name, help=text), module, files)
    for name, text in others.items():
        if name == "launch":
            added = commands.add_parser(name, help=text, parents=[_launch_parser(stages)], add_help=False)
        else:
            added = commands.add_parser(name, help=text)
        if name == "completion":
            added.add_argument("shell", choices=SHELLS)
    return parser


def _launch_parser(stages):
    parser = argparse.ArgumentParser()
    for action in make_parser()._actions:
        if action.dest == "processes":
            parser.add_argument("--processes", help=action.help)
    parser.add_argument("--recipe", choices=recipe_names())
    parser.add_argument("stage", choices=list(stages))
    return parser


def _add_stage(parser: argparse.ArgumentParser, module: str, files: Any) -> None:
    """Add the flags of a stage, and the names of its recipes."""
    found = _configuration(module)
    if found is None:
        return
    config_class, recipes = found
    names = sorted(path.stem for path in recipes_folder(recipes).glob("*.yaml"))
    parser.add_argument("--config", help="a recipe", choices=names or None)
    parser.add_argument("--help_all", action="store_true")
    parser.add_argument("--print_config", action="store_true")
    _add_fields(parser, config_class, "", files)


def _configuration(module: str) -> tuple[type, str] | None:
    """(Configuration, folder of recipes) of a stage, as its `cli` gives them to `run_command`; None if it has none."""
    stage: Any = importlib.import_module(module)
    if not hasattr(stage, "run_command"):
        return None
    found, theirs = [], stage.run_command
    stage.run_command = lambda main, config_class, *, recipes: found.append((config_class, recipes))
    try:
        stage.cli()
    finally:
        stage.run_command = theirs
    return found[0]


def _add_fields(parser, config_class, prefix, files):
    kinds = get_type_hints(config_class)
    for field in fields(config_class):
        kind = kinds[field.name]
        if is_dataclass(kind):
            _add_fields(parser, kind, f"{prefix}{field.name}.", files)
        elif not field.metadata.get("positional"):
            action = parser.add_argument(f"--{prefix}{field.name}", choices=_choices(kind))
            if Location in (kind, *get_args(kind)):
                action.complete = files
        else:
            parser.add_argument(field.name, nargs="*").complete = files


def _choices(kind: Any) -> list[str] | None:
    """The values that there are, where they can be listed."""
    if kind is bool:
        return ["true", "false"]
    for each in (kind, *get_args(kind)):
        if get_origin(each) is Literal:
            return [str(choice) for choice in get_args(each)]
    return None


def print_script(words: list[str], stages: Mapping[str, tuple[str, str]], others: Mapping[str, str]) -> None:
    """Print the script of the shell that the words name; exit code 1 and one line where there is none."""
    if set(words) & {"-h", "--help", "--help_all"}:
        print(f"usage: seitpp completion {{{','.join(SHELLS)}}}\n\n{(__doc__ or '').strip()}")
        return
    try:
        if len(words) != 1 or words[0] not in SHELLS:
            raise UserError(f"seitpp completion takes the name of a shell: {', '.join(SHELLS)}")
        with contextlib.redirect_stdout(sys.stderr):
            text = script(words[0], stages, others)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(text)
