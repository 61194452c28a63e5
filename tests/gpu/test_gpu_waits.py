"""No step waits for the GPU: from the loader to the update PyTorch itself refuses to."""

import pytest
import torch

import tiny
from seitpp.finetune import train as finetune
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.training import loop
from small_runs import VIEW, everything, losses, make_config, run


@pytest.fixture
def watched(cuda, monkeypatch):
    """The steps begun while waiting for the GPU was an error: 3 to 10, when all that is made once has been made."""
    plain, steps = loop.seed_dropout, []

    def seed_dropout(seed, step, rank):
        refused = 3 <= step < 11
        torch.cuda.set_sync_debug_mode("error" if refused else "default")
        steps.extend([step] if refused else [])
        plain(seed, step, rank)

    monkeypatch.setattr(loop, "seed_dropout", seed_dropout)
    yield steps
    torch.cuda.set_sync_debug_mode("default")


UNTIL_THE_END = {"mixed_precision": "bf16", "steps": 12, "log_every": 12}  # a line of the log does wait


def test_no_step_of_pretraining_waits_for_the_gpu(watched, world, tmp_path):
    assert len(run(make_config(world, tmp_path, **UNTIL_THE_END))) == 1
    assert watched == list(range(3, 11))


def test_no_step_of_finetuning_waits_for_the_gpu(watched, world, tmp_path):
    tiny.forget_accelerator()
    finetune.finetune(
        finetune.FinetuneConfig(
            store=str(world / "train"), eval_store=str(world / "test"), output_dir=str(tmp_path), view=VIEW,
            encoder=EncoderConfig(width=96, depth=2, heads=4), batch_size=16, clip_grad=1.0, trackers=(),
            augment=everything(world, mix=MixConfig(cutmix=1.0, token_adapt_mixup=0.8)), **UNTIL_THE_END,
        )
    )  # fmt: skip
    assert len(losses(tmp_path / "seed-0")) == 1
    assert watched == list(range(3, 11))


def test_pytorch_does_refuse(watched, cuda):
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device=cuda).item()
