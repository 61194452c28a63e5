"""Weights sharded over processes (FSDP2): the numbers of one process, and weights in one piece."""

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

import tiny
from seitpp.mtm import pretrain
from seitpp.runtime.files import read_json
from seitpp.runtime.recipes import recipes_folder
from seitpp.training.fsdp import whole_state
from sharded import assert_same_run, run_sharded
from tiny_pretraining import entropies, make_config, make_world

ROOT = tiny.ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    return make_world(tmp_path_factory.mktemp("world"), tokenizer_folder)


@pytest.mark.parametrize("name", ["ddp_bf16", "fsdp2"])
def test_the_launchers_configurations_load(name):
    config = load_config_from_file(str(recipes_folder("accelerate") / f"{name}.yaml"))
    assert config.distributed_type == {"ddp_bf16": "MULTI_GPU", "fsdp2": "FSDP"}[name]
    assert (config.mixed_precision, config.num_processes) == ("bf16", 8)
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.slow
def test_fsdp2_shards_the_weights_and_gives_the_losses_and_weights_of_one_process(world, tmp_path):
    fields = {"eval_store": str(world / "test"), "clip_grad": 1.0}
    pretrain.pretrain(make_config(world, tmp_path / "one", **fields))
    done = run_sharded(make_config(world, tmp_path / "sharded", **{**fields, "batch_size": 4}), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sharded" / "checkpoints" / "step-00000008" / "pytorch_model_fsdp_0").is_dir()
    assert_same_run(tmp_path / "one", tmp_path / "sharded")
    one, sharded = (read_json(tmp_path / name / "summary.json") for name in ("one", "sharded"))
    assert sharded["eval_cross_entropy"] == pytest.approx(one["eval_cross_entropy"], abs=1e-5)


@pytest.mark.slow
def test_fsdp2_in_bf16_keeps_the_loss_in_float32(world, tmp_path):
    pretrain.pretrain(make_config(world, tmp_path / "one"))
    done = run_sharded(make_config(world, tmp_path / "sharded", batch_size=4, mixed_precision="bf16"), tmp_path)
    assert done.returncode == 0, done.stderr
    found = entropies(tmp_path / "sharded")
    assert found == pytest.approx(entropies(tmp_path / "one"), rel=0.01)
    assert all(4 < value < 8 for value in found)  # where bf16 has steps of 1/32, a mean of two processes' of 1/64
    assert any(64 * value % 1 for value in found)


def test_sharded_weights_come_back_in_one_piece(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )  # fmt: skip
    try:
        from torch.distributed.fsdp import fully_shard

        model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        after = whole_state(model)
    finally:
        torch.distributed.destroy_process_group()
    assert all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in after.values())
    assert {name: t.tolist() for name, t in after.items()} == {name: t.tolist() for name, t in before.items()}
