"""Steps of a fit as calls in this process: a process each would import torch a dozen times."""

import importlib

from seitpp.cli import STAGES
from seitpp.report.report import write_report
from seitpp.runtime.command import parse, run_command
from seitpp.runtime.steps.runner import StepRunner


def run_here(step):
    """Do what a step's command does."""
    _, stage, *words = step.command
    module = importlib.import_module(STAGES[stage][0])
    seen = []

    def called(main, config_class, *, recipes):
        main(parse(config_class, words, recipes=recipes))
        seen.append(stage)

    if stage == "report":
        write_report([words[0]], words[words.index("--out") + 1], images=words[words.index("--images") + 1])
        return
    assert module.run_command is run_command
    module.run_command = called
    try:
        module.cli()
    finally:
        module.run_command = run_command
    assert seen == [stage]


class RunnerHere(StepRunner):
    """Runs every step in this process, one after the other."""

    def __init__(self, steps, folder, *, lanes, on_finish=None):
        super().__init__(steps, folder, lanes=1, on_finish=on_finish, call=run_here)
