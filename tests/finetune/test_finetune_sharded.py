"""Fine-tuning with weights that FSDP2 shards over processes."""

import pytest

import tiny
from seitpp.finetune import train as stage
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.runtime.results import read_results
from sharded import assert_same_run, run_sharded


@pytest.mark.slow
def test_fsdp2_gives_the_losses_weights_and_results_of_one_process(stores, tmp_path):
    fields = {
        "store": str(stores / "train"), "eval_store": str(stores / "test"),
        "weights": str(tiny.make_mtm(tmp_path / "mtm")), "token_dropout": 0.0, "layer_decay": 0.7,
        "augment": AugmentConfig(crop=False), "steps": 4, "lr": 1e-3, "log_every": 1, "mixed_precision": "no",
        "trackers": (),
    }  # fmt: skip
    stage.finetune(stage.FinetuneConfig(output_dir=str(tmp_path / "one"), batch_size=12, **fields))
    sharded = stage.FinetuneConfig(output_dir=str(tmp_path / "sharded"), batch_size=6, **fields)
    done = run_sharded(sharded, tmp_path, "seitpp.finetune.train")
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / name / "seed-0" for name in ("one", "sharded")]
    assert_same_run(*runs)
    one, two = (read_results([run.parent]).value.to_numpy() for run in runs)
    assert two == pytest.approx(one, abs=1e-4)
