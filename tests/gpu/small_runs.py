"""Runs of pre-training that take a GPU seconds, on a store of usual ids, and the world that they need."""

import json
from dataclasses import asdict

import numpy as np
import torch
import yaml

import tiny
from seitpp.mtm import pretrain
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, ModelConfig
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenadapt.geometry import GeometryConfig

GRID, VIEW, CODES, DIM = (16, 20), (14, 18), 391, 8


def make_world(folder):
    """Write a training store of 96 rows, a test store of 24 and a TokenAdapt; returns the folder.

    Codes that follow one another are alike, so that crops and noise lead to ids that a model can learn to expect.
    """
    walk = torch.from_numpy(np.random.default_rng(0).standard_normal((CODES, DIM)).cumsum(axis=0)).float()
    codebook = (walk - walk.mean(dim=0)) / walk.std(dim=0)
    for name, rows in (("train", 96), ("test", 24)):
        ids = tiny.striped_ids(41 * (np.arange(rows) % 9), GRID, codes=CODES, seed=rows)
        labels = np.arange(rows) % 3
        tiny.make_store(folder / name, ids, codes=CODES, codebook=codebook, labels=labels, rows_per_shard=50)
    tiny.make_token_adapt(folder / "tokenadapt", grid=GRID, view=VIEW, codes=CODES, dim=DIM)
    return folder


def make_model(dropout=0.0, *, width=96, depth=3):
    """A ViT small enough for a CPU's rehearsal."""
    return ModelConfig(
        encoder=EncoderConfig(width=width, depth=depth, heads=4, token_dropout=dropout, embedding_std=0.3),
        decoder=DecoderConfig(width=64, depth=1, heads=2, dropout=dropout),
    )


def everything(world, **fields):
    """All parts of the augmentation that need no labels."""
    return AugmentConfig(
        token_adapt=str(world / "tokenadapt"), geometry=GeometryConfig(affine=1.0), color_adapt=0.3, noise=0.3,
        noise_channel=0.1, noise_element=0.1, eda=EdaConfig(synonyms=0.25, swap=0.25), **fields,
    )  # fmt: skip


def make_config(world, output, **fields):
    """A pre-training with all of the augmentation and without dropout."""
    fields = {
        "model": make_model(), "augment": everything(world), "view": VIEW, "batch_size": 16, "steps": 20, "lr": 1e-3,
        "warmup_steps": 2, "log_every": 1, "save_every": 100, "clip_grad": 3.0, "trackers": (), **fields,
    }  # fmt: skip
    return pretrain.PretrainConfig(store=str(world / "train"), output_dir=str(output), **fields)


def run(config):
    """Pre-train; returns the losses that were logged."""
    tiny.forget_accelerator()
    pretrain.pretrain(config)
    return losses(config.output_dir)


def losses(folder):
    """The losses of a run, in its order."""
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def as_recipe(config, path):
    """Write all of a configuration as a recipe; returns its path."""
    plain = json.loads(json.dumps(asdict(config)))
    path.write_text(yaml.safe_dump({name: value for name, value in plain.items() if value is not None}))
    return path
