"""What a run leaves in its folder: what of it is work, and how it is cleared without touching anything else.

Only names that a run itself gives are removed, each folder of them file by file; what else lies there stays.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import LITTER
from seitpp.runtime.ownership import is_run

PREPARED = ("config.yaml", "env.json", "micro_batch.json", "run.log")
"""What is written before there is any work in a run."""
_FILES = (
    *(
        "summary.json",
        "metrics.jsonl",
        "run.log",
        "results.csv",
        "robustness.csv",
        "best.json",
        "best_weights.json",
        "tracker_id",
        "env.json",
        "micro_batch.json",
    ),
    *("completions.png", "reconstructions.png", "agreement.csv", "views.png"),
    *("neighbours.csv", "neighbours.png", "feature_map.csv"),
    *("jpegs.arrow", "jpegs.json"),
)
"""But for config.yaml, which proves that the folder is a run, and goes last."""
_STEP = re.compile(r"step-\d{8,}")
_UNFINISHED_STEP = re.compile(r"\.step-\d{8,}\.tmp")
_WEIGHTS = ("model.safetensors", "config.json", "tokenizer.json", "diffusion_pytorch_model.safetensors")
_WITHIN = {
    "checkpoints": re.compile(f"{_STEP.pattern}|{_UNFINISHED_STEP.pattern}"),
    "previews": re.compile(r"epoch-\d+\.png"),
    **dict.fromkeys(("weights", "weights_ema", "weights_best"), re.compile("|".join(map(re.escape, _WEIGHTS)))),
    **dict.fromkeys(("tensorboard", "wandb", "trackio"), re.compile(".*")),  # named by their libraries
}
"""Folders of a run, and which names in them are its own."""


def has_work(folder: Path) -> bool:
    """Whether there is more in a run folder than what is written before a run, or a run within it, begins."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != "." and name not in PREPARED and Path(parent, name).lstat().st_size:
                return True
    return False


def checkpoints_in(folder: Path) -> list[Path]:
    """Folders of a run's whole checkpoints, oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("step-*") if _STEP.fullmatch(path.name))


def remove_unfinished_checkpoints(folder: Path) -> None:
    """Remove the checkpoints that a killed process had half written; the run is locked."""
    for path in (folder / "checkpoints").glob(".*.tmp"):
        if _UNFINISHED_STEP.fullmatch(path.name):
            shutil.rmtree(path)


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints."""
    _clear_folder(folder / "checkpoints", _WITHIN["checkpoints"])


def clear_run(folder: Path) -> None:
    """Remove what a run wrote into its folder, but for config.yaml; what is not its own stays.

    Args:
        folder: of a run; in any other, nothing is removed.
    """
    if not is_run(folder):
        return
    for name, own in _WITHIN.items():
        _clear_folder(folder / name, own)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Remove a run: what it wrote, and its folder where nothing else is in it."""
    clear_run(folder)
    if is_run(folder):
        (folder / "config.yaml").unlink()
        (folder / ".lock").unlink(missing_ok=True)
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()


def refuse_foreign_weights(folder: Path) -> None:
    """Refuse a run folder whose weights/, which the run will replace, hold something that no run writes."""
    for name in ("weights", "weights_ema"):
        inside = folder / name
        found = sorted(path.name for path in inside.iterdir()) if inside.is_dir() else []
        foreign = [each for each in found if not _WITHIN[name].fullmatch(each) and each not in LITTER]
        if foreign:
            raise UserError(f"{inside / foreign[0]} is no weights of a run, and would be lost: move it elsewhere")


def _clear_folder(folder: Path, own: re.Pattern[str]) -> None:
    """Remove what is named so in a folder, and the folder where nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not own.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    remove_empty(folder)
