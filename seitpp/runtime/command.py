"""How every stage is started: a YAML recipe, then flags; one clear line where something is wrong.

python -m seitpp.mtm.pretrain --config demo --output_dir runs/mine --blr 3e-4
accelerate launch -m seitpp.mtm.pretrain --config configs/pretrain/vit_base.yaml --store tokens --output_dir runs/base
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from seitpp.runtime.config import field_names, flattened
from seitpp.runtime.ending import Ending, leave_process_group, lost_a_process, tell
from seitpp.runtime.errors import Interrupted, UserError
from seitpp.runtime.positional import without_positional
from seitpp.runtime.recipes import read_recipe
from seitpp.runtime.suggest import did_you_mean

Config = TypeVar("Config")
_FULL_DISK = ("os error 28", "No space left on device", "PytorchStreamWriter failed writing file", "unexpected pos")
"""How safetensors and torch, whose errors are no OSError, say that the disk is full."""
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
    debug = "--debug" in argv
    rank = int(os.environ.get("RANK", "0"))
    config, ending = None, Ending()
    try:
        config = parse(config_class, [word for word in argv if word != "--debug"], recipes=recipes)
        main(config)
        code = 0
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
    ending.end(code)


def _say(line, rank):
    if rank == 0:
        print(line, file=sys.stderr, flush=True)


def parse(config_class: type[Config], argv: Sequence[str], *, recipes: str) -> Config:
    """Read a configuration: the dataclass defaults, then `--config`, then flags.

    Raises: UserError for an unknown key (naming the nearest known one), a missing or a bad value.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, description=(config_class.__doc__ or "").strip())
    parser.add_argument("--config", action="config", help="a recipe's name or path; flags after it change it")
    parser.add_class_arguments(config_class, as_group=False)
    parser.epilog = "--debug shows the traceback of an error"
    known = [*field_names(config_class), "config", "print_config", "help", "debug"]
    argv, positional = without_positional(config_class, argv)
    for index, word in enumerate(argv):
        name = word.removeprefix("--").split("=")[0]
        if word.startswith("--") and name not in known:
            raise UserError(f"unknown flag --{name}; {did_you_mean(name, known, _HELP, dashes='--')}")
        if word == "--config" and index + 1 < len(argv):
            argv[index + 1] = _checked_recipe(argv[index + 1], recipes, known)
        elif word.startswith("--config="):
            argv[index] = "--config=" + _checked_recipe(word.removeprefix("--config="), recipes, known)
    try:
        values = parser.parse_args(argv)
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split())) from error
    values = vars(parser.instantiate(values))
    return config_class(**{name: value for name, value in (values | positional).items() if name != "config"})


def _checked_recipe(name, recipes, known):
    """The recipe `name`, all of whose keys are known, as jsonargparse takes it: its content in one line."""
    path, content = read_recipe(name, recipes)
    for key in flattened(content):
        for part in accumulate(key.split("."), "{}.{}".format):
            if part not in known:
                raise UserError(f"{path}: unknown key {part}; {did_you_mean(part, known, _HELP)}")
            if not any(name.startswith(f"{part}.") for name in known):
                break  # no configuration of its own: what lies in a field that is a dictionary is the user's
    return json.dumps(content)


def explain(error: BaseException, config: Any = None) -> str:
    """One line for an error: what is wrong, where, what to do. The error remembers that it was explained.

    Args:
        error: what was raised.
        config: of the stage, where it is known: it says which command resumes the stage.
    """
    vars(error)["explained"] = True
    if isinstance(error, UserError):
        return str(error)
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if full or any(words in str(error) for words in _FULL_DISK):
        file = getattr(error, "filename", None) or "a file"
        return f"no space left on the disk while writing {file}: free some and start again"
    if lost_a_process(error):
        return f"another process ended early; to resume, rerun {_same_command(config)}"
    if isinstance(error, PermissionError):
        return f"no permission to write or read {error.filename}: choose another folder or change its rights"
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    first_line = (str(error).strip() or "no message").split("\n")[0]
    return f"{type(error).__name__}: {first_line} (unexpected; --debug shows the traceback)"


def _same_command(config):
    """The command that resumes: `--resume none` and PATH would ignore what the stage has saved since."""
    resume = getattr(config, "resume", "auto")
    if resume == "none" or (resume != "auto" and any(Path(config.output_dir).glob("**/checkpoints/step-*"))):
        return "the same command without --resume"
    return "the same command"
