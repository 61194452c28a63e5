"""A pre-training that takes a second: a model, a training and a test store, a configuration."""

import numpy as np

import tiny
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, ModelConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenizers.tokenizer import load_tokenizer

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, heads=3, token_dropout=0.0, embedding_std=1.0),
    decoder=DecoderConfig(width=24, depth=1, heads=2, dropout=0.0),
)


def make_world(folder, tokenizer_folder):
    """Write stores `train` and `test` of a tokenizer; returns the folder.

    Their maps are of one of three colours, three codes each.
    """
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    for name, rows in (("train", 48), ("test", 11)):
        ids = tiny.striped_ids(np.arange(rows) % 3, tiny.GRID, seed=rows)
        tiny.make_store(folder / name, ids, fingerprint=fingerprint)
    return folder


def make_config(world, output, **fields):
    """Eight steps on the training store of a world."""
    fields = {
        "store": str(world / "train"), "model": MODEL, "batch_size": 8, "steps": 8, "lr": 3e-3, "log_every": 1,
        "save_every": 4, "mixed_precision": "no", "augment": AugmentConfig(crop=False), **fields,
    }  # fmt: skip
    return PretrainConfig(output_dir=str(output), **fields)


def entropies(folder):
    """The losses that a run logged."""
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]
