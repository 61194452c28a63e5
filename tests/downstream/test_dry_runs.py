"""`--dry_run true` of every training: it says what there would be, and leaves the disk as it was."""

import re
import tempfile

import pytest

import tiny
import tiny_segmentation
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.train import SegmentationConfig, segmentation
from seitpp.finetune.continual import ContinualConfig, continual
from seitpp.finetune.pixels import PixelsConfig, train_on_pixels
from seitpp.finetune.train import FinetuneConfig, finetune
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, ModelConfig
from seitpp.mtm.pretrain import PretrainConfig, pretrain
from seitpp.runtime.errors import Rehearsed, UserError
from seitpp.tokenadapt.geometry import IDENTITY
from seitpp.tokenadapt.model import TokenAdaptConfig
from seitpp.tokenadapt.train import TrainTokenAdaptConfig
from seitpp.tokenadapt.train import main as train_token_adapt
from seitpp.tokenizers.networks.vq import VQConfig
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize
from seitpp.tokenizers.train import TrainTokenizerConfig
from seitpp.tokenizers.train import main as train_tokenizer

ENCODER = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images of three classes, their stores, a tokenizer, a store with label maps."""
    folder = tmp_path_factory.mktemp("dry")
    tiny.make_images(folder / "train", {"ant": 13, "bee": 9, "cow": 8}, seed=1)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 4, "cow": 3}, seed=2)
    tiny.make_tokenizer(folder / "tokenizer")
    for name, like in (("train", None), ("test", str(folder / "train store"))):
        tokenize(
            TokenizeConfig(
                images=str(folder / name), tokenizer=str(folder / "tokenizer"), like=like,
                output_dir=str(folder / f"{name} store"),
            )
        )  # fmt: skip
    tiny_segmentation.make_segmentation_store(folder / "masks")
    return folder


def labelled(world, output):
    return {
        "store": str(world / "train store"), "eval_store": str(world / "test store"), "encoder": ENCODER,
        "blr": 0.1, "augment": AugmentConfig(geometry=IDENTITY), **training(output),
    }  # fmt: skip


def training(output):
    return {
        "output_dir": str(output), "steps": 12, "batch_size": 8, "mixed_precision": "no", "trackers": (),
        "dry_run": True,
    }  # fmt: skip


def trials(world, output):
    """{stage: (function, configuration)}."""
    images = {"images": str(world / "train"), "eval_images": str(world / "test")}
    head = HeadConfig(kind="linear")
    return {
        "train-tokenizer": (
            train_tokenizer,
            TrainTokenizerConfig(
                images=images["images"], held_out=0.2, **training(output), unquantised=0.1,
                model=VQConfig(
                    image_size=tiny.IMAGE_SIZE, space_to_depth=4, widths=(32,), attention=False, codebook_size=17,
                    codebook_dim=5,
                ),
            ),
        ),
        "train-tokenadapt": (
            train_token_adapt,
            TrainTokenAdaptConfig(
                images=images["images"], tokenizer=str(world / "tokenizer"), held_out=0.2, geometry=IDENTITY,
                model=TokenAdaptConfig(width=64), **training(output),
            ),
        ),
        "pretrain": (
            pretrain,
            PretrainConfig(
                store=str(world / "train store"), augment=AugmentConfig(crop=False),
                model=ModelConfig(encoder=ENCODER, decoder=DecoderConfig(width=24, depth=1, heads=2)),
                **training(output),
            ),
        ),
        "finetune": (finetune, FinetuneConfig(**{**labelled(world, output), "blr_candidates": (0.1, 0.2), "seeds": 3})),
        "continual": (
            continual, ContinualConfig(tasks=3, memory="100", methods=("naive", "tokens"), **labelled(world, output)),
        ),
        "train-on-jpegs": (train_on_pixels, PixelsConfig(budget="9000", **images, **labelled(world, output))),
        "segmentation": (
            segmentation,
            SegmentationConfig(
                store=str(world / "masks"), eval_store=str(world / "masks"), encoder=ENCODER, head=head, seeds=2,
                baseline=True, **training(output),
            ),
        ),
    }  # fmt: skip


def everything_below(folder):
    """Names of all folders; names, sizes and times of all files."""
    return {path: path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("stage", "trainings"),
    [
        ("train-tokenizer", 1), ("train-tokenadapt", 1), ("pretrain", 1), ("finetune", 5), ("continual", 6),
        ("train-on-jpegs", 1), ("segmentation", 2),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_there_would_be_and_writes_nothing(world, stage, trainings, tmp_path, capsys, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = everything_below(world), everything_below(tmp_path)
    function, config = trials(world, tmp_path / "runs" / "mine")[stage]
    with pytest.raises(Rehearsed, match="nothing was written"):
        function(config)
    assert (everything_below(world), everything_below(tmp_path)) == before
    said = capsys.readouterr().out
    assert re.search(r"parameters", said)
    assert re.search(r"effective batch 8 = 8 x 1 x 1", said)
    assert re.search(r"^  12 steps \(.* epochs\)", said, re.MULTILINE)
    assert re.search(r"^dry run: a step took .* s \([\d,]+ images/s\), at most .* GB of memory$", said, re.MULTILINE)
    assert re.search(r"^  12 steps take about .* not counted$", said, re.MULTILINE)
    assert re.search(r"^  on disk about .*; .* are free$", said, re.MULTILINE)
    assert (f"one of {trainings} trainings" in said) == (trainings > 1)


def test_a_dry_run_refuses_what_the_training_would_refuse(world, tmp_path):
    function, config = trials(world, tmp_path / "run")["finetune"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"letter\.txt|no run"):
        function(config)
