"""Checkpoints: Accelerate's state in a folder that is whole or not there, and the weights that a run leaves.

checkpoints/step-00000500/   Accelerate's state; checkpoint.json (what it belongs to); a safetensors file for each
                             further part of the training (the meter of the log, averaged weights)
best.json                    which checkpoint was best by evaluation; it outlives newer ones
"""

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_json
from seitpp.runtime.rights import check_readable, grant_as_usual
from seitpp.runtime.run_content import remove_unfinished_checkpoints
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.schema import anything, integer, number, read_described, record, shown, table, text
from seitpp.runtime.system_errors import name_file

if TYPE_CHECKING:
    from accelerate import Accelerator

_BEFORE = "move that folder elsewhere to resume from the one before"
_BELONGS = record({"stage": text(), "inputs": table(anything), "effective_batch": integer(1)})
"""What checkpoint.json says."""
_BEST = record(
    {"step": integer(0), "score": number(), "checkpoint": text(r"checkpoints/step-\d+", "checkpoints/step-…")}
)
"""What best.json says."""


def save_checkpoint(
    accelerator: "Accelerator",
    run: RunFolder,
    *,
    next_step: int,
    keep: int,
    parts: dict[str, Any],
    score: float | None = None,
) -> None:
    """Save the state before step `next_step`; keep the newest `keep` checkpoints and the best one.

    The folder gets its name `step-…` only when every process has written its part and all of it is on the disk.
    Where that fails, what was written is removed and the older checkpoints stay.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder.
        next_step: the step to resume from.
        keep: how many of the newest to keep.
        parts: name to an object with state_dict and load_state_dict of tensors, saved beside Accelerate's state.
        score: what evaluation gave at this step, less is better; None: not evaluated.
    """
    final = run.path / "checkpoints" / f"step-{next_step:08d}"
    if not final.exists():
        _write_checkpoint(accelerator, run, final, parts)
    if accelerator.is_main_process:
        if score is not None and score < _best(run).get("score", float("inf")):
            write_json(
                run.path / "best.json", {"step": next_step, "score": score, "checkpoint": f"checkpoints/{final.name}"}
            )
        best = _best(run).get("step")
        for old in run.checkpoints()[:-keep]:
            if _step_of(old) != best:
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _write_checkpoint(accelerator, run, final, parts):
    from safetensors.torch import save_file

    temporary = final.with_name(f".{final.name}.tmp")
    if accelerator.is_main_process:
        remove_unfinished_checkpoints(run.path)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(temporary))
        states = {name: part.state_dict() for name, part in parts.items()}
        if accelerator.is_main_process:
            for name, state in states.items():
                save_file({key: tensor.contiguous() for key, tensor in state.items()}, temporary / _part(name))
            write_json(temporary / "checkpoint.json", _belongs_to(accelerator, run))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            grant_as_usual(temporary)
            _flush(temporary)
            temporary.rename(final)
    except Exception as error:
        name_file(error, temporary, final)
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs its room back
        raise
    accelerator.wait_for_everyone()


def _part(name):
    return f"{name}.safetensors"


def _belongs_to(accelerator, run):
    """What must be the same where a checkpoint is resumed."""
    effective_batch = run.config.batch_size * run.config.accum_iter * accelerator.num_processes
    return {"stage": run.stage, "inputs": run.inputs, "effective_batch": effective_batch}


def _flush(folder):
    """Have the disk keep a folder's files, before its name says that they are whole."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _best(run):
    """best.json, or nothing where its checkpoint is gone."""
    file = run.path / "best.json"
    if not file.exists():
        return {}
    found = read_described(file, _BEST, "remove it: the newest checkpoints stay")
    return found if (run.path / found["checkpoint"]).is_dir() else {}


def _step_of(folder):
    return int(folder.name.removeprefix("step-"))


def load_checkpoint(accelerator: "Accelerator", run: RunFolder, parts: dict[str, Any] | None = None) -> int:
    """Load the checkpoint that `run.config.resume` asks for and return the step to resume from.

    1. resume: PATH: that checkpoint. 2. resume: auto: the newest whole one of this run folder. 3. none: step 0.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder.
        parts: as given to save_checkpoint.
    Raises: UserError if there is none, if it belongs to a training of another kind, or if it can't be read.
    """
    wanted = run.config.resume
    if wanted not in ("auto", "none"):
        folder = Path(wanted)
        if not folder.is_dir() or not re.fullmatch(r"step-\d+", folder.name):
            raise UserError(f"--resume {wanted}: no checkpoint there; expected a folder checkpoints/step-…")
    elif wanted == "auto" and run.checkpoints():
        folder = run.checkpoints()[-1]
    else:
        return 0
    _refuse_another_training(folder, _belongs_to(accelerator, run), own=wanted == "auto")
    _load(accelerator, folder, parts or {})
    return _step_of(folder)


def _refuse_another_training(folder, here, *, own):
    there = read_described(folder / "checkpoint.json", _BELONGS, _BEFORE)
    there, here = ({**each.pop("inputs"), **each} for each in (there, here))
    for name, value in here.items():
        if there.get(name) == value or (name == "effective_batch" and not own):
            continue
        remedy = "name another with --resume, or start afresh with --resume none"
        if name == "effective_batch":
            remedy = "start as many processes as before, so that --batch_size x --accum_iter x processes stays"
        raise UserError(f"{folder} is of another training ({name}: {there.get(name)} there, {value} here): {remedy}")


def _load(accelerator, folder, parts):
    from safetensors.torch import load_file

    for file in filter(Path.is_file, folder.rglob("*")):
        check_readable(file)
    try:
        accelerator.load_state(str(folder))
        for name, part in parts.items():
            part.load_state_dict(load_file(folder / _part(name)))
    except Exception as error:  # a broken pickle is a program that may fail in any way
        shapes = re.search(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", str(error))
        names = re.search(r"(?:Missing|Unexpected) key\(s\) in state_dict: \"?([^\s\",]+)", str(error))
        what = f"{names[1]} is only in one" if names else ""
        if shapes:
            what = f"{shapes[1]} is {shapes[2]} there, {shapes[3]} here"
        if what:
            message = f"{folder} is of another model ({what}): give it the K, the grid and the model of that run"
            raise UserError(message) from error
        raise UserError(_damaged(folder, error)) from error


def _damaged(folder, error):
    first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
    return f"the checkpoint {folder} can't be read ({shown(first_line, 160)}): {_BEFORE}"
