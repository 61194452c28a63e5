"""Checkpoints: Accelerate's state in a folder that is whole or not there."""

import shutil
from pathlib import Path

from training.errors import UserError
from training.files import replacing


def save_checkpoint(accelerator, run, *, next_step, keep):
    """Save the state before step `next_step`; keep the newest `keep` checkpoints.

    The folder gets its name `step-…` only when every process has written its part.
    """
    final = run.path / "checkpoints" / f"step-{next_step:08d}"
    if final.exists():
        return
    temporary = final.with_name(f".{final.name}.tmp")
    if accelerator.is_main_process and temporary.exists():
        shutil.rmtree(temporary)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        temporary.rename(final)
        for old in run.checkpoints()[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator, run):
    """Load the checkpoint that `run.config.resume` asks for and return the step to go on with.

    1. resume: PATH: that checkpoint. 2. resume: auto: the newest whole one of this run folder. 3. none: step 0.
    """
    wanted = run.config.resume
    if wanted not in ("auto", "none"):
        folder = Path(wanted)
        if not folder.is_dir() or not folder.name.startswith("step-"):
            raise UserError(f"--resume {wanted}: no checkpoint there; expected a folder checkpoints/step-…")
    elif wanted == "auto" and run.checkpoints():
        folder = run.checkpoints()[-1]
    else:
        run.forget_metrics_from(0)
        return 0
    accelerator.load_state(str(folder))
    step = int(folder.name.removeprefix("step-"))
    run.forget_metrics_from(step)
    return step


def save_weights(folder, state_dict, config):
    """Write weights for use elsewhere: `model.safetensors` and `config.json`, the folder whole or not there.

    Args:
        folder: the destination, usually a run's `weights/`.
        state_dict: name to tensor.
        config: a dict that says how to build the model.
    """
    from safetensors.torch import save_file

    from training.files import write_json

    with replacing(folder) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().contiguous().cpu().clone() for name, tensor in state_dict.items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", config)


def load_weights(folder):
    """Read what `save_weights` wrote: (state dict, config).

    Args:
        folder: a `weights/` folder, or a run folder that has one.
    Raises: UserError if there are no weights.
    """
    from safetensors.torch import load_file

    from training.files import read_json

    folder = Path(folder)
    if (folder / "weights").is_dir():
        folder = folder / "weights"
    if not (folder / "model.safetensors").exists():
        raise UserError(f"{folder} holds no weights (model.safetensors): name a finished run or its weights/ folder")
    return load_file(folder / "model.safetensors"), read_json(folder / "config.json")
