"""`seitpp launch`: a stage on several processes of this machine, one a GPU, or on its cores.

    seitpp launch pretrain --config vit_base --store stores/train --output_dir runs/mtm
    seitpp launch --processes 8 --recipe fsdp2 pretrain --config vit_large --store stores/train --output_dir runs/large
    seitpp launch --processes 2 tokenize --images photos/train --tokenizer runs/tokenizer --output_dir stores/train

Ctrl-C and SIGTERM reach every process, each saves and ends, and the exit code is the stage's own: the same command
resumes. For several machines: `accelerate launch --config_file`, or Slurm (docs/scale.md).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from seitpp.runtime.errors import UserError
from seitpp.runtime.launch import check_devices, environment_of, run_processes
from seitpp.runtime.recipes import find_recipe, recipes_folder
from seitpp.runtime.suggest import did_you_mean

_ALONE = ("demo", "draw-openmoji", "report", "recipes", "doctor", "launch", "completion")
"""What is for one process."""


def recipe_names() -> list[str]:
    """The recipes for Accelerate that come with the package."""
    return sorted(path.stem for path in recipes_folder("accelerate").glob("*.yaml"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help says more")


def make_parser() -> argparse.ArgumentParser:
    """The flags of `seitpp launch`; those behind the stage are the stage's."""
    parser = _Parser(
        prog="seitpp launch", description="Run a stage on several processes of this machine.",
        usage="seitpp launch [--processes N] [--recipe RECIPE] STAGE [--flag value ...]",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, metavar="N", help="how many (one a GPU; without GPUs, it must be said)"
    )
    parser.add_argument(
        "--recipe", metavar="RECIPE",
        help=f"how Accelerate runs: {', '.join(recipe_names())}, or a file of its own (plain DDP)",
    )  # fmt: skip
    parser.add_argument("stage", metavar="STAGE", help="as seitpp --help lists them")
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="[--flag value ...]", help="of the stage")
    return parser


def launch(argv: Sequence[str], stages: Sequence[str]) -> int:
    """Start a stage as a command line says; returns its exit code.

    Args:
        argv: words behind `seitpp launch`.
        stages: names of those that there are.
    Raises: UserError if there is no such stage or recipe, or the machine does not have what they need.
    """
    given = make_parser().parse_args(list(argv))
    if given.stage not in stages:
        advice = did_you_mean(given.stage, list(stages), "seitpp --help lists them")
        raise UserError(f"no stage {given.stage}; {advice}")
    if given.stage in _ALONE:
        raise UserError(f"{given.stage} is for one process: seitpp {given.stage}")
    if given.processes is not None and given.processes < 1:
        raise UserError(f"--processes {given.processes} must be at least 1")
    variables = {} if given.recipe is None else environment_of(find_recipe(given.recipe, "accelerate"))
    command = [sys.executable, "-m", "seitpp.cli", given.stage, *given.flags]
    if any(word in ("-h", "--help", "--help_all", "--print_config") for word in given.flags):
        return run_processes(command, 1, {})
    gpus = _gpus()
    processes = given.processes or gpus
    if not processes:
        cores = len(os.sched_getaffinity(0))
        raise UserError(f"this machine has no GPU: say how many processes share its {cores} cores, --processes N")
    return run_processes(command, processes, variables | check_devices(processes, gpus, variables))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
