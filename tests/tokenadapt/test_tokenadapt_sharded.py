"""TokenAdapt's training with weights that FSDP2 shards over processes; the tokenizer's, which it can't."""

import pytest

from seitpp.tokenadapt import train as stage
from seitpp.tokenadapt.model import TokenAdaptConfig
from seitpp.tokenizers import train as train_tokenizer
from seitpp.tokenizers.networks.vq import VQConfig
from sharded import assert_same_run, run_sharded


@pytest.mark.slow
def test_fsdp2_gives_the_losses_and_weights_of_one_process(images, tokenizer_folder, tmp_path):
    fields = {
        "images": str(images), "tokenizer": str(tokenizer_folder), "model": TokenAdaptConfig(width=64), "steps": 4,
        "lr": 1e-3, "log_every": 1, "mixed_precision": "no", "held_out": 0.2, "trackers": (),
    }  # fmt: skip
    stage.main(stage.TrainTokenAdaptConfig(output_dir=str(tmp_path / "one"), batch_size=8, **fields))
    sharded = stage.TrainTokenAdaptConfig(output_dir=str(tmp_path / "sharded"), batch_size=4, **fields)
    done = run_sharded(sharded, tmp_path, "seitpp.tokenadapt.train")
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / name for name in ("one", "sharded")]
    assert_same_run(*runs)
    assert (runs[0] / "agreement.csv").read_text().count("\n") == (runs[1] / "agreement.csv").read_text().count("\n")


@pytest.mark.slow
def test_a_tokenizer_that_moves_its_codes_itself_is_not_sharded(images, tmp_path):
    config = train_tokenizer.TrainTokenizerConfig(
        images=str(images), output_dir=str(tmp_path / "run"), steps=2, batch_size=4,
        model=VQConfig(image_size=(16, 24), space_to_depth=4, widths=(32,), attention=False, codebook_size=16),
    )  # fmt: skip
    done = run_sharded(config, tmp_path, "seitpp.tokenizers.train")
    assert done.returncode != 0
    assert done.stderr.count("error: train-tokenizer does not work with FSDP") == 1
    assert not (tmp_path / "run").exists()
