"""Runs of a stage on two processes of CPUs whose weights FSDP2 shards, as configs/accelerate/fsdp2.yaml says."""

import json
from dataclasses import asdict

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

import tiny
from seitpp.runtime.recipes import recipes_folder
from seitpp.runtime.run_folder import read_metrics

ON_CPUS = """
import importlib, sys
from accelerate import PartialState
from accelerate.utils import DistributedType
stage = importlib.import_module(sys.argv.pop(1))
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # or Accelerate refuses FSDP on CPUs
stage.cli()
"""


def run_sharded(config, tmp_path, stage="seitpp.mtm.pretrain"):
    """Run the configuration of a stage; returns the CompletedProcess."""
    (tmp_path / "on_cpus.py").write_text(ON_CPUS)
    plain = json.loads(json.dumps(asdict(config)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in plain.items() if v is not None}))
    fsdp = load_config_from_file(str(recipes_folder("accelerate") / "fsdp2.yaml")).fsdp_config
    environment = {name.upper(): str(value) for name, value in fsdp.items()}
    return tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "on_cpus.py", stage,
        "--config", tmp_path / "recipe.yaml",
        **environment, FSDP_TRANSFORMER_CLS_TO_WRAP=fsdp["fsdp_transformer_layer_cls_to_wrap"],
        ACCELERATE_USE_FSDP="true", ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1", PYTHONPATH=str(tiny.ROOT),
    )  # fmt: skip


def assert_same_run(one, sharded):
    """Two runs' losses are equal, and their weights as near as sums in another order leave them."""
    losses, others = ([line["loss"] for line in read_metrics(run) if "loss" in line] for run in (one, sharded))
    assert others == pytest.approx(losses, abs=1e-5)
    weights, others = (load_file(run / "weights" / "model.safetensors") for run in (one, sharded))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert others[name].numpy() == pytest.approx(tensor.numpy(), abs=2e-3), name
