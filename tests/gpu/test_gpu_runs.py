"""Pre-training on the GPU: stopped and gone on with, sharded, exploding, and how much of the GPU it uses."""

import signal

import pytest
import torch

import small_runs
import tiny
from seitpp import mtm
from seitpp.mtm.model import MaskedTokenModel
from seitpp.runtime.errors import Interrupted, UserError
from seitpp.runtime.run_folder import read_metrics
from seitpp.training import loop
from seitpp.training.speed import peak_flops
from small_runs import losses, make_config, make_model, run

ROOT = tiny.ROOT


def test_a_run_stopped_by_a_signal_goes_on_as_if_it_had_not_been(world, tmp_path, monkeypatch):
    fields = {"model": make_model(dropout=0.1), "save_every": 6}
    whole = run(make_config(world, tmp_path / "whole", **fields))
    stopped = make_config(world, tmp_path / "stopped", **fields)
    plain = loop.seed_dropout

    def told_to_stop(seed, step, rank):
        if step == 9:
            signal.raise_signal(signal.SIGTERM)
        plain(seed, step, rank)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "seed_dropout", told_to_stop)
        with pytest.raises(Interrupted, match="stopped before step 10 of 20; saved"):
            run(stopped)
    assert len(losses(tmp_path / "stopped")) == 10
    assert run(stopped) == pytest.approx(whole, rel=1e-3)


def test_fsdp2_runs_with_one_process_and_leaves_weights_that_load(cuda, world, tmp_path):
    fields = {"steps": 6, "save_every": 3, "eval_store": str(world / "test"), "mixed_precision": "bf16"}
    plain = run(make_config(world, tmp_path / "plain", **fields))
    recipe = small_runs.as_recipe(make_config(world, tmp_path / "sharded", **fields), tmp_path / "recipe.yaml")
    done = tiny.run(
        "-m", "accelerate.commands.launch", "--config_file", ROOT / "configs" / "accelerate" / "fsdp2.yaml",
        "--num_processes", "1", "-m", "seitpp.mtm.pretrain", "--config", recipe, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sharded" / "checkpoints" / "step-00000003" / "pytorch_model_fsdp_0").is_dir()
    assert losses(tmp_path / "sharded") == pytest.approx(plain, rel=0.02)
    encoder = mtm.load(tmp_path / "sharded", cuda).encoder
    features = encoder.pooled(tiny.random_ids(5, small_runs.CODES, small_runs.VIEW).to(cuda))
    assert features.shape == (5, 96)
    assert features.isfinite().all()


def test_a_loss_that_becomes_nan_stops_the_run_and_leaves_the_weights_of_before(device, world, tmp_path, monkeypatch):
    plain, kept = MaskedTokenModel.forward, []

    def forward(self, ids, masks):
        loss, measures = plain(self, ids, masks)
        if not ids.is_meta:  # where operations are only counted
            kept.append((self, {name: tensor.clone() for name, tensor in self.state_dict().items()}))
            loss = loss * (float("nan") if len(kept) == 6 else 1.0)
        return loss, measures

    monkeypatch.setattr(MaskedTokenModel, "forward", forward)
    with pytest.raises(UserError, match=r"the loss is nan at step 5; nothing was updated.*step-00000004"):
        run(make_config(world, tmp_path, log_every=4, save_every=4))
    # A GPU is asked a step later, when it has been told step 6 too: neither may have changed anything.
    assert len(kept) == (7 if device.type == "cuda" else 6)
    model, before = kept[5]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not torch.equal(before["mask_token"], kept[4][1]["mask_token"])
    assert [line["step"] for line in read_metrics(tmp_path)] == [3]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_the_share_of_this_gpus_peak_is_known_and_logged(cuda, world, tmp_path):
    assert peak_flops(torch.cuda.get_device_name(cuda), "bf16"), "add this GPU to the table in training/speed.py"
    larger = make_model(width=384, depth=6)  # of a tiny one's share four digits show nothing
    run(make_config(world, tmp_path, mixed_precision="bf16", model=larger, batch_size=96, log_every=5))
    shares = [line["mfu"] for line in read_metrics(tmp_path)]
    assert len(shares) == 4
    assert all(0 < share < 1 for share in shares)
