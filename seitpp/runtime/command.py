"""How every stage is started: a YAML recipe, then flags; one clear line where something is wrong.

python -m seitpp.mtm.pretrain --config demo --store tokens --output_dir runs/mine --blr 3e-4
accelerate launch -m seitpp.mtm.pretrain --config configs/pretrain/vit_base.yaml --store tokens --output_dir runs/base
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from seitpp.runtime.config import field_names, flattened, optional_fields
from seitpp.runtime.ending import Ending, leave_process_group, lost_a_process, tell
from seitpp.runtime.errors import Interrupted, Rehearsed, UserError
from seitpp.runtime.field_types import field_types, in_words, lists_as_typed
from seitpp.runtime.locations import with_homes
from seitpp.runtime.places import check_places
from seitpp.runtime.positional import without_positional
from seitpp.runtime.recipes import read_recipe
from seitpp.runtime.run_log import listening
from seitpp.runtime.suggest import did_you_mean
from seitpp.runtime.system_errors import refusal
from seitpp.runtime.yaml_texts import load_texts

Config = TypeVar("Config")
_HELP = "--help lists the known ones"


def run_command(
    main: Callable[[Any], object], config_class: type, *, recipes: str, argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse the command line into `config_class`, call `main(config)` and exit.

    Exit codes: 0 done; 1 something is wrong, said in one line on standard error; 130 Ctrl-C and 143 SIGTERM: preempted,
    with the state saved, so that the same command (without `--resume none` or PATH) resumes. Of many processes the main
    one speaks, or one that failed alone.

    Args:
        main: function of one argument, the configuration.
        config_class: a StageConfig dataclass.
        recipes: the stage's folder in configs/, where `--config NAME` is looked up.
        argv: arguments; None: those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    rank, ending = int(os.environ.get("RANK", "0")), Ending()
    with listening([*_typed(), *argv]) if rank == 0 else nullcontext():
        code = _exit_code(main, config_class, argv, recipes, rank)
    ending.end(code)


def _exit_code(main, config_class, argv, recipes, rank):
    """Do what `run_command` says, but for the end."""
    config, debug = None, "--debug" in argv
    try:
        config = parse(config_class, [word for word in argv if word != "--debug"], recipes=recipes)
        check_places(config)
        main(config)
        code = 0
    except Rehearsed as end:
        code = 0
        if rank == 0:
            print(end, flush=True)
    except Interrupted as interruption:
        code = 128 + interruption.signal
        _say(f"{interruption}. To resume, rerun {_same_command(config)}", rank)
    except KeyboardInterrupt:
        code = 130
        _say(f"stopped. To resume, rerun {_same_command(config)}", rank)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        code = 141
    except Exception as error:
        code = 1
        if debug:
            traceback.print_exc()
        said = getattr(error, "explained", False)
        tell(error, f"error: {f'process {rank}: ' if rank else ''}{explain(error, config)}", rank=rank, said=said)
    finally:
        leave_process_group()
    return code


def _typed():
    """How this process was called, without its flags."""
    started = getattr(sys.modules["__main__"], "__spec__", None)
    if started is None or sys.argv[0].startswith("seitpp "):
        return sys.argv[0].split(" ")
    return ["python", "-m", started.name]


def _say(line, rank):
    if rank == 0:
        print(line, file=sys.stderr, flush=True)


def parse(config_class: type[Config], argv: Sequence[str], *, recipes: str) -> Config:
    """Read a configuration: the dataclass defaults, then `--config`, then flags. In every Location `~` is the home.

    Raises: UserError for an unknown key (naming the nearest known one), a missing or a bad value.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser, set_loader, set_parsing_settings

    from seitpp.runtime.help_text import HelpText

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("texts", load_texts, (yaml.YAMLError,))
    description = (config_class.__doc__ or "").strip()
    parser = ArgumentParser(exit_on_error=False, description=description, formatter_class=HelpText, parser_mode="texts")
    parser.add_argument("--config", action="config", help="a recipe's name or path; flags after it change it")
    parser.add_class_arguments(config_class, as_group=False)
    parser.epilog = "--debug shows the traceback of an error"
    _help(config_class, parser, argv)
    known = [*field_names(config_class), "config", "print_config", "help", "help_all", "debug"]
    optional = set(optional_fields(config_class))
    argv, positional = without_positional(config_class, argv)
    for index, word in enumerate(argv):
        name = word.removeprefix("--").split("=")[0]
        if word.startswith("--") and name not in known:
            raise UserError(f"unknown flag --{name}; {did_you_mean(name, known, _HELP, dashes='--')}")
        if word == "--config" and index + 1 < len(argv):
            argv[index + 1] = _checked_recipe(argv[index + 1], recipes, known, optional)
        elif word.startswith("--config="):
            argv[index] = "--config=" + _checked_recipe(word.removeprefix("--config="), recipes, known, optional)
    kinds = field_types(config_class)
    argv = lists_as_typed(_none_as_null(argv, optional), kinds)
    try:
        values = parser.parse_args(argv)
    except ArgumentError as error:
        raise UserError(_in_our_words(" ".join(str(error).split()), kinds, argv)) from error
    values = vars(parser.instantiate(values))
    config = config_class(**{name: value for name, value in (values | positional).items() if name != "config"})
    return with_homes(config)


def _help(config_class: type, parser: Any, words: Sequence[str]) -> None:
    """Print the help that is asked for, if any, and exit."""
    from seitpp.runtime.short_help import short_help

    for word in words:
        if word in ("-h", "--help", "--help_all"):
            typed = sys.argv[0]
            started = getattr(sys.modules["__main__"], "__spec__", None)
            module = config_class.__module__ if started is None else started.name
            command = typed if typed.startswith("seitpp ") else f"python -m {module}"
            text = parser.format_help() if word == "--help_all" else short_help(config_class, command)
            print(text)
            sys.exit(0)


def _in_our_words(message: str, kinds: dict[str, Any], words: Sequence[str]) -> str:
    """What jsonargparse says of a value of the wrong type, without its names of Python's types."""
    found = re.search(
        r'Parser key "([^"]+)": (?:Does not validate|Expected a|Unable to load config|Not a valid)', message
    )
    if not found or found[1] not in kinds:
        return message
    key = found[1]
    given = re.search(r"(?:Got value:|Given value:|Unable to load config) (.*?)(?: - Parser key .*)?$", message)
    flag = f"--{key}" if any(word.split("=")[0] == f"--{key}" for word in words) else f"{key} in the recipe"
    got = "" if given is None else f", got {given[1]}"
    return f"{flag}: expected {in_words(kinds[key])}{got}"


def _none_as_null(words, optional):
    """The words with `None`, as the fields' texts call the absence of a value, where YAML says `null`."""
    flags, former, typed = {f"--{name}" for name in optional}, "", []
    for word in words:
        flag, _, value = word.partition("=")
        if value == "None" and flag in flags:
            word = f"{flag}=null"
        typed.append("null" if word == "None" and former in flags else word)
        former = word
    return typed


def _none_in_recipe(content, optional, prefix=""):
    """The same for the values of a recipe."""
    return {
        key: _none_in_recipe(value, optional, f"{prefix}{key}.") if isinstance(value, dict)
        else None if value == "None" and f"{prefix}{key}" in optional else value
        for key, value in content.items()
    }  # fmt: skip


def _checked_recipe(name, recipes, known, optional):
    """The recipe `name`, all of whose keys are known, as jsonargparse takes it: its content in one line."""
    path, content = read_recipe(name, recipes)
    content.pop("stage", None)  # of a config.yaml that a run has left, which is a recipe, too
    for key in flattened(content):
        for part in accumulate(key.split("."), "{}.{}".format):
            if part not in known:
                raise UserError(f"{path}: unknown key {part}; {did_you_mean(part, known, _HELP)}")
            if not any(name.startswith(f"{part}.") for name in known):
                break  # no configuration of its own: what lies in a field that is a dictionary is the user's
    return json.dumps(_none_in_recipe(content, optional))


def explain(error: BaseException, config: Any = None) -> str:
    """One line for an error: what is wrong, where, what to do. The error remembers that it was explained.

    Args:
        error: what was raised.
        config: of the stage, where it is known: it says which command resumes the stage.
    """
    vars(error)["explained"] = True
    if isinstance(error, UserError):
        return str(error)
    if lost_a_process(error):
        return f"another process ended early; to resume, rerun {_same_command(config)}"
    if refused := refusal(error):
        return refused
    first_line = (str(error).strip() or "no message").split("\n")[0]
    return f"{type(error).__name__}: {first_line} (unexpected; --debug shows the traceback)"


def _same_command(config):
    """The command that resumes: `--resume none` and PATH would ignore what the stage has saved since."""
    resume = getattr(config, "resume", "auto")
    if resume == "none" or (resume != "auto" and any(Path(config.output_dir).glob("**/checkpoints/step-*"))):
        return "the same command without --resume"
    return "the same command"
